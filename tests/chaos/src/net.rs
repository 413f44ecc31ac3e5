//! Three hosts: network namespaces on a bridge, which is in the harness's own namespace.

use crate::shell::{Outcome, run};

/// Nodes are 0, 1, 2 here; their names and last parts of addresses count from 1.
pub const NODES: usize = 3;

/// Name of a node, in histories and of its namespace.
pub fn name_of(node: usize) -> String {
    format!("n{}", node + 1)
}

/// Address of a node.
pub fn address_of(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

/// Address of the harness and its clients.
pub const CLIENTS: &str = "10.77.0.254";

/// The program and arguments that go before a command to run it on a node.
pub fn on(node: usize) -> [String; 2] {
    [
        "nsenter".to_string(),
        format!("--net=/run/netns/{}", name_of(node)),
    ]
}

/// Makes bridge, namespaces and links.
pub async fn build() -> Outcome {
    run(
        "ip",
        &["link", "add", "br0", "type", "bridge", "forward_delay", "0"],
    )
    .await?;
    run(
        "ip",
        &["address", "add", &format!("{CLIENTS}/24"), "dev", "br0"],
    )
    .await?;
    run("ip", &["link", "set", "br0", "up"]).await?;
    for node in 0..NODES {
        let name = name_of(node);
        let port = format!("v{}", node + 1);
        run("ip", &["netns", "add", &name]).await?;
        let link = [
            "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name,
        ];
        run("ip", &link).await?;
        run("ip", &["link", "set", &port, "master", "br0", "up"]).await?;
        inside(node, &["ip", "link", "set", "lo", "up"]).await?;
        let address = format!("{}/24", address_of(node));
        inside(node, &["ip", "address", "add", &address, "dev", "eth0"]).await?;
        inside(node, &["ip", "link", "set", "eth0", "up"]).await?;
    }
    Ok(())
}

/// Runs a command on a node.
pub async fn inside(node: usize, command: &[&str]) -> Outcome<String> {
    let [program, namespace] = on(node);
    let mut arguments = vec![namespace.as_str()];
    arguments.extend(command);
    run(&program, &arguments).await
}

/// Applies firewall rules on a node under a name that takes them away again; `rules` are lines of the input
/// chain.
pub async fn filter(node: usize, name: &str, rules: &[String]) -> Outcome {
    let chain = "{ type filter hook input priority 0; policy accept; }";
    let mut script = format!("add table inet {name}; add chain inet {name} in {chain};");
    for rule in rules {
        script.push_str(&format!(" add rule inet {name} in {rule};"));
    }
    inside(node, &["nft", &script]).await.map(|_| ())
}

/// Takes away the rules of a name, if the node has them.
pub async fn unfilter(node: usize, name: &str) -> Outcome {
    let tables = inside(node, &["nft", "list", "tables"]).await?;
    if tables
        .lines()
        .any(|line| line.split_whitespace().next_back() == Some(name))
    {
        inside(node, &["nft", "delete", "table", "inet", name]).await?;
    }
    Ok(())
}
