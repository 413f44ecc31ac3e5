//! Ports that two parts of a node, or two nodes, would both want.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use gantry_raft::NodeNumber;

use super::{ConfigError, ListenerConfig, ListenerNode, wrong};

/// How far below a remoting port old clients look for a second one (RocketMQ's VIP channel).
const VIP_DISTANCE: u16 = 2;

impl ListenerNode {
    /// The port that old clients use instead of a group's remoting port.
    pub fn vip_port(remoting: u16) -> u16 {
        assert!(remoting > VIP_DISTANCE, "the configuration was checked");
        remoting - VIP_DISTANCE
    }
}

/// Every port that `node` binds is bound once, and no two nodes or groups have the same address for
/// clients, who take equal addresses for the same broker.
pub(super) fn check(
    node: NodeNumber,
    listeners: &[ListenerConfig],
    peer: SocketAddr,
    http: SocketAddr,
) -> Result<(), ConfigError> {
    for listener in listeners {
        check_listener(listener)?;
    }
    let mut bound: Vec<(SocketAddr, String)> = Vec::new();
    for (address, user) in wanted(node, listeners, peer, http) {
        if let Some((_, other)) = bound.iter().find(|(taken, _)| collide(*taken, address)) {
            let port = address.port();
            return wrong(format!(
                "node {node} would use port {port} twice: {other}, and {user}; choose another"
            ));
        }
        bound.push((address, user));
    }
    Ok(())
}

fn check_listener(listener: &ListenerConfig) -> Result<(), ConfigError> {
    let name = &listener.name;
    let mut given: BTreeMap<(&str, u16), NodeNumber> = BTreeMap::new();
    for (node, reached) in &listener.nodes {
        if reached.namesrv == 0 {
            return wrong(format!(
                "listener {name:?}: node {node}: `namesrv` cannot be 0"
            ));
        }
        for port in &reached.groups {
            if *port <= VIP_DISTANCE {
                return wrong(format!(
                    "listener {name:?}: node {node}: {port} cannot be a group's port: old clients use \
                     the port {VIP_DISTANCE} below it"
                ));
            }
            if let Some(other) = given.insert((&reached.host, *port), *node) {
                let host = &reached.host;
                return wrong(format!(
                    "listener {name:?}: {host}:{port} is a group's address on node {other} and again on \
                     node {node}; clients could not tell them apart"
                ));
            }
        }
    }
    Ok(())
}

/// What a node binds, and for what.
fn wanted(
    node: NodeNumber,
    listeners: &[ListenerConfig],
    peer: SocketAddr,
    http: SocketAddr,
) -> Vec<(SocketAddr, String)> {
    let mut wanted = vec![
        (peer, "`peer.bind`".to_string()),
        (http, "`http.bind`".to_string()),
    ];
    for listener in listeners {
        let (name, own) = (&listener.name, &listener.nodes[&node]);
        let mut add = |port: u16, user: String| wanted.push(((listener.bind, port).into(), user));
        add(own.namesrv, format!("`namesrv` of listener {name:?}"));
        for port in &own.groups {
            add(*port, format!("a group of listener {name:?}"));
            let vip = ListenerNode::vip_port(*port);
            add(vip, format!("the port below {port} of listener {name:?}"));
        }
    }
    wanted
}

/// Whether the second of two binds would fail. Port 0 is a free one each time.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = |ip: IpAddr| ip.is_unspecified();
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || everywhere(one.ip()) || everywhere(other.ip()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Config, ConfigFile};
    use super::*;

    fn resolve(node: u16, from: &str, to: &str) -> Result<Config, ConfigError> {
        let compose = include_str!("../../deploy/gantry/gantry.toml");
        assert!(compose.contains(from), "{from:?} is gone from the file");
        let text = format!("node = {node}\n{}", compose.replacen(from, to, 1));
        let mut file = ConfigFile::parse(&text).unwrap();
        file.peer_secret = Some("a secret that is long enough".to_string());
        file.resolve()
    }

    #[test]
    fn the_file_of_compose_is_a_configuration_of_each_node() {
        for node in 1..=3 {
            let config = resolve(node, "", "").unwrap();
            assert_eq!((config.node, config.listeners.len()), (node, 2));
        }
    }

    #[test]
    fn a_port_that_a_node_would_bind_twice_is_refused_with_both_users() {
        for (from, to, users) in [
            (
                "0.0.0.0:5557",
                "0.0.0.0:19876",
                ["`http.bind`", "`namesrv` of listener \"host\""],
            ),
            (
                "0.0.0.0:5557",
                "127.0.0.1:10909",
                ["`http.bind`", "the port below 10911"],
            ),
            (
                "0.0.0.0:5557",
                "0.0.0.0:10912",
                ["`peer.bind`", "`http.bind`"],
            ),
            (
                "= 19876",
                "= 9876",
                ["of listener \"internal\"", "of listener \"host\""],
            ),
            (
                "10911, 10921",
                "10911, 10913",
                ["a group of", "the port below 10913"],
            ),
        ] {
            let message = resolve(1, from, to).unwrap_err().to_string();
            let named = users.iter().all(|user| message.contains(user));
            assert!(named && message.contains("twice"), "{to}: {message}");
        }
    }

    #[test]
    fn equal_ports_on_different_addresses_are_no_collision() {
        let (peer, http) = ("127.0.0.2:7000", "127.0.0.1:7000");
        assert!(!collide(peer.parse().unwrap(), http.parse().unwrap()));
        assert!(collide(
            peer.parse().unwrap(),
            "0.0.0.0:7000".parse().unwrap()
        ));
        assert!(!collide(
            "0.0.0.0:0".parse().unwrap(),
            "0.0.0.0:0".parse().unwrap()
        ));
    }

    #[test]
    fn clients_get_one_address_for_one_group_of_one_node() {
        let message = resolve(1, "12911, 12921", "11911, 12921")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("127.0.0.1:11911") && message.contains("node 2"),
            "{message}"
        );
        let message = resolve(1, "[11911,", "[2,").unwrap_err().to_string();
        assert!(message.contains("2 cannot be a group's port"), "{message}");
    }
}
