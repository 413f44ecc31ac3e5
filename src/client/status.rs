//! What a node says about itself over HTTP: `/api/v1/status` and `/readyz`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ClientError, http};

/// A node and its replicas. Members that a node of another version leaves out have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Number of the node.
    pub node: u16,
    /// Its cluster.
    pub cluster: String,
    /// Version of the program.
    pub version: String,
    /// Whether it would serve clients well.
    pub ready: bool,
    /// Its replicas.
    pub groups: Vec<ReplicaStatus>,
    /// What this client does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// One replica: positions are log indexes, `None` before the first record.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct ReplicaStatus {
    /// Broker group.
    pub name: String,
    /// `leader`, `follower` and so on.
    pub role: String,
    /// Raft term.
    pub term: u64,
    /// Node that leads, as far as this replica knows.
    pub leader: Option<u16>,
    /// Last record in the log.
    pub last: Option<u64>,
    /// Last record that is agreed on.
    pub committed: Option<u64>,
    /// Last record whose effect is visible.
    pub applied: Option<u64>,
    /// Nodes that vote.
    pub voters: Vec<u16>,
    /// Nodes that only receive.
    pub learners: Vec<u16>,
    /// How far the leader knows each other replica to be; empty on followers.
    pub replicas: Vec<PeerProgress>,
    /// Bytes of log on disk.
    pub disk_bytes: u64,
    /// What of the log is damaged on this node's disk.
    pub damage: Damage,
    /// What waits, as the replica has applied it.
    pub waiting: Waiting,
    /// What this client does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Damage to the log of one replica since its process runs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Damage {
    /// Parts that are not mended yet.
    pub holes: Vec<DamagedRecords>,
    /// Parts that were found.
    pub found: u64,
    /// Parts that were mended from another node.
    pub mended: u64,
    /// Bytes that were read again to find rot.
    pub scrubbed_bytes: u64,
}

/// Messages of a broker group that wait for something.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Waiting {
    /// Messages that wait for their time.
    pub timers: u64,
    /// Half messages of open transactions.
    pub half_messages: u64,
    /// Messages that are handed out by POP, concurrently.
    pub leases: u64,
    /// Consumer groups that hold any up.
    pub consumers: Vec<HeldUp>,
}

/// Messages that did not go through a consumer group at once.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct HeldUp {
    /// Consumer group.
    pub group: String,
    /// Handed out by POP and not acknowledged.
    pub in_flight: u64,
    /// In its retry topics and not read yet.
    pub retries: u64,
    /// In its dead letter topic.
    pub dead_letters: u64,
}

/// Damaged records: the first and the last one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct DamagedRecords {
    /// First record.
    pub first: u64,
    /// Last record.
    pub last: u64,
}

/// A replica as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct PeerProgress {
    /// Its node.
    pub node: u16,
    /// Last record that it has.
    pub matched: Option<u64>,
}

/// Asks a node (`host:port` of its HTTP) how it stands.
///
/// # Errors
/// [`ClientError`] if it cannot be asked or its answer makes no sense.
pub async fn get(address: &str) -> Result<NodeStatus, ClientError> {
    let answer = http::get(address, "/api/v1/status").await?;
    let unusable = |reason: String| ClientError::Unreachable {
        address: address.to_string(),
        reason,
    };
    if answer.status != 200 {
        return Err(unusable(format!(
            "its status page answers {}",
            answer.status
        )));
    }
    serde_json::from_str(&answer.body)
        .map_err(|error| unusable(format!("its status page makes no sense: {error}")))
}

/// A transaction that is open on the node that leads its broker group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct OpenTransaction {
    /// Broker group.
    pub group: String,
    /// Physical offset of its half message.
    pub place: i64,
    /// Queue offset of its half message.
    pub offset: i64,
    /// Topic that its message is for.
    pub topic: String,
    /// Producer group.
    pub producer: String,
    /// Unique key of its message.
    pub key: String,
    /// The producer's clock when it was opened; milliseconds since 1970.
    pub born_ms: i64,
    /// How often the producer was asked.
    pub checks: u32,
    /// Whether nobody is asked any more.
    pub given_up: bool,
}

/// The open transactions of the groups that a node leads.
///
/// # Errors
/// [`ClientError`].
pub async fn open_transactions(address: &str) -> Result<Vec<OpenTransaction>, ClientError> {
    let answer = http::get(address, "/api/v1/transactions").await?;
    let read = serde_json::from_str(&answer.body);
    read.map_err(|error| ClientError::Unreachable {
        address: address.to_string(),
        reason: format!("its list of transactions makes no sense: {error}"),
    })
}

/// Whether a node is ready; the text says why not.
///
/// # Errors
/// [`ClientError`] if it cannot be asked.
pub async fn ready(address: &str) -> Result<Result<(), String>, ClientError> {
    let answer = http::get(address, "/readyz").await?;
    if answer.status == 200 {
        return Ok(Ok(()));
    }
    Ok(Err(answer.body.trim().to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_with_and_without_its_optional_members() {
        let text = r#"{"node":1,"cluster":"gantry","version":"0.1.0","ready":true,"groups":[
            {"name":"broker-a","role":"leader","term":3,"leader":1,"last":10,"committed":10,"applied":10,
             "voters":[1,2,3],"learners":[],"replicas":[{"node":2,"matched":10}],"disk_bytes":123},
            {"name":"broker-b","role":"follower","term":0,"leader":null,"last":null}]}"#;
        let status: NodeStatus = serde_json::from_str(text).unwrap();
        assert_eq!(status.groups[0].replicas[0].matched, Some(10));
        assert_eq!(
            (status.groups[1].leader, status.groups[1].last),
            (None, None)
        );
    }
}
