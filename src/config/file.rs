//! A configuration as its file has it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use gantry_raft::NodeNumber;
use serde::{Deserialize, Serialize};

use super::{ConfigError, wrong};

/// A configuration file as it stands. Every key that may be left out has its default in
/// [`Config`](super::Config).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Name of the cluster; peers of another name are refused. Default `gantry`.
    pub cluster: Option<String>,
    /// Number of this node, 1 to 999, one of `peers`.
    pub node: Option<NodeNumber>,
    /// Directory of everything this node keeps.
    pub data: Option<PathBuf>,
    /// Allows addresses other than loopback without authentication. Default false.
    pub insecure: Option<bool>,
    /// Secret that all nodes of the cluster share. Required when peers are not all on loopback.
    pub peer_secret: Option<String>,
    /// Every node of the cluster, this one included.
    #[serde(default)]
    pub peers: Vec<PeerFile>,
    /// The broker groups, the same list in the same order on every node.
    #[serde(default)]
    pub groups: Vec<GroupFile>,
    /// Where clients come in, and the addresses that they are given.
    #[serde(default, rename = "listener")]
    pub listeners: Vec<ListenerFile>,
    /// The peer port.
    pub peer: Option<BindFile>,
    /// Metrics, health and the API.
    pub http: Option<BindFile>,
    /// The log on disk.
    #[serde(default)]
    pub storage: StorageFile,
    /// What clients may do and how much of it.
    #[serde(default)]
    pub broker: BrokerFile,
    /// Timers of the groups.
    #[serde(default)]
    pub raft: RaftFile,
}

/// One node as its peers reach it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PeerFile {
    /// The node's number.
    pub node: NodeNumber,
    /// `host:port` of its peer port; a name is resolved at every connect.
    pub address: String,
}

/// One broker group.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupFile {
    /// RocketMQ's brokerName.
    pub name: String,
    /// The node that leads the group when it can. Default: the nodes in turn.
    pub preferred: Option<NodeNumber>,
}

/// Where clients of one network come in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerFile {
    /// For messages.
    pub name: String,
    /// IP address to bind; the ports are those of this node below.
    pub bind: IpAddr,
    /// How clients of this listener reach each node.
    pub nodes: Vec<ListenerNodeFile>,
}

/// How clients of a listener reach one node. The node itself binds the same ports.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerNodeFile {
    /// The node.
    pub node: NodeNumber,
    /// Host name or address that these clients can reach.
    pub host: String,
    /// Port of the name server.
    pub namesrv: u16,
    /// One port for each group, in the order of `groups`. The port two below is served too.
    pub groups: Vec<u16>,
}

/// An address to listen on.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BindFile {
    /// `ip:port`.
    pub bind: SocketAddr,
}

/// Settings of the log. Sizes are numbers of bytes or text such as `256MiB`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StorageFile {
    /// Size of a log segment. Default 1GiB, minimum 16MiB; fixed when a group is formed.
    pub segment_bytes: Option<String>,
    /// `sync` (default): answered when on disk on a majority. `async`: when in a majority's page
    /// cache; a power cut may lose answered messages.
    pub flush: Option<String>,
    /// Recent log kept in memory, for all groups of the node together. Default 24MiB, minimum 1MiB.
    pub tail_bytes: Option<String>,
    /// Log kept in memory after it was read from the disk, for all groups of the node together. Default
    /// 32MiB, minimum 1MiB. Consumers of a group's queues that are further apart read more of the disk than
    /// they use.
    pub cold_bytes: Option<String>,
    /// How long messages are kept. Default `72h`.
    pub retention: Option<String>,
    /// Most bytes of log kept for each group. Default: no limit.
    pub retention_bytes: Option<String>,
    /// Percent of the disk in use above which expired segments go at any time. Default 75.
    pub disk_clean_percent: Option<u8>,
    /// Percent above which the oldest segments go whatever their age. Default 85.
    pub disk_force_percent: Option<u8>,
    /// Percent above which sends are refused. Default 90.
    pub disk_refuse_percent: Option<u8>,
    /// The whole log is read once in this time to find rot. Default `24h`; `0s`: never.
    pub scrub_interval: Option<String>,
    /// Bytes a second that finding rot may read, for each group. Default 32MiB.
    pub scrub_bytes_per_second: Option<String>,
    /// Bytes a second sent to a replica that catches up. Default 64MiB.
    pub catch_up_bytes_per_second: Option<String>,
}

/// What clients may do.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerFile {
    /// Create unknown topics at the first send. Default true.
    pub auto_create_topic: Option<bool>,
    /// Create unknown consumer groups at the first heartbeat. Default true.
    pub auto_create_group: Option<bool>,
    /// Queues of a topic that is created on its own, at most. Default 8.
    pub auto_create_queues: Option<u16>,
    /// Bytes of sends under way for each group before clients are held back. Default 64MiB.
    pub send_bytes_max: Option<String>,
    /// Client connections. Default 5000.
    pub connections_max: Option<usize>,
    /// How long a node that stops goes on serving clients that have not moved yet. Default `40s`:
    /// stock clients look for new routes every 30 s.
    pub drain: Option<String>,
    /// How long the delay levels 1, 2 and so on wait; the same on all nodes. Default RocketMQ's, `1s 5s 10s
    /// 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h`.
    pub message_delay_levels: Option<String>,
    /// The longest time that a message with a time may wait. Default `3d`.
    pub timer_max_delay: Option<String>,
    /// How old a half message is when its producer is asked first. Default `6s`.
    pub transaction_timeout: Option<String>,
    /// How long from one question to the next. Default `30s`, minimum `100ms`.
    pub transaction_check_interval: Option<String>,
    /// Questions after which a transaction is given up. Default 15.
    pub transaction_check_max: Option<u32>,
}

/// Timers of the groups, in milliseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RaftFile {
    /// Interval of heartbeats. Default 100.
    pub heartbeat_ms: Option<u64>,
    /// Shortest silence after which a follower campaigns. Default 250.
    pub election_min_ms: Option<u64>,
    /// Longest. Default 350.
    pub election_max_ms: Option<u64>,
}

impl ConfigFile {
    /// Reads a file and applies the environment's replacements, given as (name, value).
    pub fn load(
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<ConfigFile, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| ConfigError(format!("cannot read {}: {e}", path.display())))?;
        let mut file = ConfigFile::parse(&text)
            .map_err(|e| ConfigError(format!("{}: {e}", path.display())))?;
        file.apply_environment(environment)?;
        Ok(file)
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<ConfigFile, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError(with_suggestion(&error.to_string())))
    }

    pub(super) fn apply_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (name, value) in environment {
            match name.as_str() {
                "GANTRY_NODE" => match value.parse() {
                    Ok(node) => self.node = Some(node),
                    Err(_) => return wrong(format!("GANTRY_NODE is not a number: {value:?}")),
                },
                "GANTRY_DATA" => self.data = Some(value.into()),
                "GANTRY_PEER_SECRET" => self.peer_secret = Some(value),
                "GANTRY_CLUSTER" => self.cluster = Some(value),
                "GANTRY_INSECURE" => match value.as_str() {
                    "true" => self.insecure = Some(true),
                    "false" => self.insecure = Some(false),
                    _ => return wrong(format!("GANTRY_INSECURE is true or false, not {value:?}")),
                },
                _ => {}
            }
        }
        Ok(())
    }
}

/// Adds the key that was probably meant to the parser's message about an unknown one.
fn with_suggestion(message: &str) -> String {
    let Some(rest) = message.split_once("unknown field `").map(|(_, rest)| rest) else {
        return message.trim_end().to_string();
    };
    let Some((unknown, expected)) = rest.split_once('`') else {
        return message.trim_end().to_string();
    };
    let known = expected.split('`').skip(1).step_by(2);
    match known.min_by_key(|name| distance(unknown, name)) {
        Some(near) if distance(unknown, near) <= 1 + near.len() / 3 => {
            format!("{}\ndid you mean `{near}`?", message.trim_end())
        }
        _ => message.trim_end().to_string(),
    }
}

/// How many letters to insert, remove or replace to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
