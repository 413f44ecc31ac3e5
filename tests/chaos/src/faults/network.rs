//! Links that are cut, lossy or slow, and sockets that break.

use super::{Effect, Nemesis};
use crate::net::{self, NODES, address_of, name_of};
use crate::random::Random;
use crate::shell::{self, Outcome, run};

/// Needed for cuts and losses.
pub fn probe_filter() -> Result<(), String> {
    super::needs("nft", "nftables")
}

/// Needed for slow links and broken sockets.
pub fn probe_iproute() -> Result<(), String> {
    super::needs("tc", "iproute2")?;
    super::needs("ss", "iproute2")
}

fn others(node: usize) -> impl Iterator<Item = usize> {
    (1..NODES).map(move |step| (node + step) % NODES)
}

fn drop_from(node: usize) -> String {
    format!("ip saddr {} drop", address_of(node))
}

fn done(node: usize, detail: String) -> Outcome<Effect> {
    Ok(Effect::Done {
        nodes: vec![node],
        detail,
    })
}

/// The node and its peers do not hear each other. Clients reach all of them.
pub async fn isolate(node: usize, name: &str) -> Outcome<Effect> {
    for other in others(node) {
        net::filter(other, name, &[drop_from(node)]).await?;
    }
    let rules: Vec<String> = others(node).map(drop_from).collect();
    net::filter(node, name, &rules).await?;
    done(node, format!("{} is cut off from its peers", name_of(node)))
}

/// The node does not hear its peers, or is not heard by them.
pub async fn one_way(node: usize, name: &str, dice: u64) -> Outcome<Effect> {
    if Random::new(dice).one_in(2) {
        let rules: Vec<String> = others(node).map(drop_from).collect();
        net::filter(node, name, &rules).await?;
        return done(node, format!("{} does not hear its peers", name_of(node)));
    }
    for other in others(node) {
        net::filter(other, name, &[drop_from(node)]).await?;
    }
    done(node, format!("{} is not heard by its peers", name_of(node)))
}

/// The node and one peer do not hear each other; the third hears both.
pub async fn ring(node: usize, name: &str, dice: u64) -> Outcome<Effect> {
    let other = (node + Random::new(dice).between(1, 2) as usize) % NODES;
    net::filter(node, name, &[drop_from(other)]).await?;
    net::filter(other, name, &[drop_from(node)]).await?;
    let detail = format!(
        "the link between {} and {} is cut",
        name_of(node),
        name_of(other)
    );
    Ok(Effect::Done {
        nodes: vec![node, other],
        detail,
    })
}

/// Packets to the node get lost, from peers and clients.
pub async fn lose(node: usize, name: &str, dice: u64) -> Outcome<Effect> {
    let percent = Random::new(dice).between(3, 30);
    let subnet = "ip saddr 10.77.0.0/24";
    let rule = format!("{subnet} numgen random mod 100 < {percent} drop");
    net::filter(node, name, &[rule]).await?;
    done(
        node,
        format!("{percent} % of the packets to {} are lost", name_of(node)),
    )
}

/// Takes cuts and losses away.
pub async fn unfilter(name: &str) -> Outcome {
    for node in 0..NODES {
        net::unfilter(node, name).await?;
    }
    Ok(())
}

/// What the node sends goes through a narrow pipe and waits there.
pub async fn slow(node: usize, dice: u64) -> Outcome<Effect> {
    let kbit = Random::new(dice).between(500, 8_000);
    let rate = format!("{kbit}kbit");
    let pipe = ["tbf", "rate", &rate, "burst", "16kb", "latency", "500ms"];
    let mut command = vec!["tc", "qdisc", "replace", "dev", "eth0", "root"];
    command.extend(pipe);
    net::inside(node, &command).await?;
    done(
        node,
        format!("{} sends {kbit} kbit/s at most", name_of(node)),
    )
}

/// Some of the packets that the node sends take another way, which is slow: they come late, by more or
/// less, and others overtake them.
pub async fn reorder(node: usize, name: &str, dice: u64) -> Outcome<Effect> {
    let mut random = Random::new(dice);
    let (percent, mbit) = (random.between(3, 40), random.between(2, 40));
    let ways = [
        "qdisc replace dev eth0 root handle 1: htb default 1".to_string(),
        "class add dev eth0 parent 1: classid 1:1 htb rate 10gbit".to_string(),
        format!("class add dev eth0 parent 1: classid 1:2 htb rate {mbit}mbit"),
    ];
    for way in &ways {
        let command: Vec<&str> = ["tc"].into_iter().chain(way.split(' ')).collect();
        net::inside(node, &command).await?;
    }
    let chain = "{ type filter hook output priority 0; policy accept; }";
    let rule = format!("numgen random mod 100 < {percent} meta priority set 1:2");
    let script = format!(
        "add table inet {name}; add chain inet {name} out {chain}; add rule inet {name} out {rule}"
    );
    net::inside(node, &["nft", &script]).await?;
    let who = name_of(node);
    let detail = format!("{percent} % of the packets of {who} queue for {mbit} Mbit/s");
    done(node, detail)
}

/// Takes the narrow pipe, or the slow way, away.
pub async fn unslow(node: usize) -> Outcome {
    let shown = net::inside(node, &["tc", "qdisc", "show", "dev", "eth0"]).await?;
    if shown.contains("tbf") || shown.contains("htb") {
        net::inside(node, &["tc", "qdisc", "del", "dev", "eth0", "root"]).await?;
    }
    Ok(())
}

/// All connections between the node and its peers, and some of its clients', break.
pub async fn drop_sockets(nemesis: &Nemesis, node: usize) -> Outcome<Effect> {
    if !nemesis.cluster.nodes[node].runs() {
        return Ok(Effect::Moot(format!("{} is down", name_of(node))));
    }
    let mut broken = 0;
    for other in others(node) {
        let killed = net::inside(node, &["ss", "-K", "-t", "dst", &address_of(other)]).await?;
        broken += killed
            .lines()
            .filter(|line| line.starts_with("ESTAB"))
            .count();
    }
    // Those of the clients, from the clients' side.
    let killed = run(
        "ss",
        &["-K", "-t", "dst", &address_of(node), "dport", "=", ":10911"],
    )
    .await?;
    broken += killed
        .lines()
        .filter(|line| line.starts_with("ESTAB"))
        .count();
    if broken == 0 {
        return shell::failure(format!("ss -K broke no connection of {}", name_of(node)));
    }
    done(
        node,
        format!("{broken} connections of {} broken", name_of(node)),
    )
}
