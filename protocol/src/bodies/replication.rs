//! Replicas as RocketMQ's tools see them: response bodies of 901, 907 and 1007.

use serde::{Deserialize, Serialize};

use super::BrokerData;
use crate::json::Dialect;

/// Response body of `GET_BROKER_HA_STATUS` (907).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaStatus {
    /// This replica's view of its leader; of a follower only.
    pub ha_client_runtime_info: HaClient,
    /// The followers; of a leader only.
    pub ha_connection_info: Vec<HaConnection>,
    /// Followers that have everything.
    pub in_sync_slave_nums: i32,
    /// Whether this replica leads.
    pub master: bool,
    /// End of this replica's log, bytes.
    pub master_commit_log_max_offset: i64,
}

/// A follower.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaConnection {
    /// Its address.
    pub addr: String,
    /// Bytes of log that it does not have yet.
    pub diff: i64,
    /// Whether it has everything.
    pub in_sync: bool,
    /// End of its log, bytes.
    pub slave_ack_offset: i64,
    /// Bytes per second that go to it.
    pub transferred_byte_in_second: i64,
    /// Where it goes on.
    pub transfer_from_where: i64,
}

/// A follower's own view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaClient {
    /// Whether it follows a leader.
    pub activated: bool,
    /// When it last read from the leader, milliseconds since 1970.
    pub last_read_timestamp: i64,
    /// When it last wrote to the leader, milliseconds since 1970.
    pub last_write_timestamp: i64,
    /// The leader's address.
    pub master_addr: String,
    /// End of what is agreed, bytes.
    pub master_flush_offset: i64,
    /// End of its log, bytes.
    pub max_offset: i64,
    /// Bytes per second that come in.
    pub transferred_byte_in_second: i64,
}

/// Response body of `GET_BROKER_EPOCH_CACHE` (1007): the terms in a replica's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EpochCache {
    /// Broker id of the replica.
    pub broker_id: i64,
    /// Broker group.
    pub broker_name: String,
    /// Cluster.
    pub cluster_name: String,
    /// The terms, oldest first.
    pub epoch_list: Vec<Epoch>,
    /// End of the log, bytes.
    pub max_offset: i64,
}

/// One term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Epoch {
    /// First byte after its last record.
    pub end_offset: i64,
    /// Its number.
    pub epoch: i64,
    /// First byte of its first record.
    pub start_offset: i64,
}

standard_body!(HaStatus, EpochCache);

impl BrokerData {
    /// Writes the response body of `GET_BROKER_MEMBER_GROUP` (901).
    pub fn encode_member_group(&self) -> Vec<u8> {
        let mut out = b"{\"brokerMemberGroup\":".to_vec();
        self.write(Dialect::Unquoted, &mut out);
        out.push(b'}');
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn golden_texts_and_back() {
        let status = HaStatus {
            master: true,
            ha_connection_info: vec![HaConnection {
                addr: "h:1".into(),
                ..HaConnection::default()
            }],
            ..HaStatus::default()
        };
        let text = String::from_utf8(status.encode()).unwrap();
        assert!(
            text.contains("\"haConnectionInfo\":[{\"addr\":\"h:1\",\"diff\":0,\"inSync\":false,")
        );
        assert_eq!(HaStatus::decode(text.as_bytes()).unwrap(), status);
        let broker = BrokerData {
            broker_addrs: [(0, "h:1".to_string())].into(),
            broker_name: "b".into(),
            cluster: "C".into(),
            enable_acting_master: false,
        };
        let golden = "{\"brokerMemberGroup\":{\"brokerAddrs\":{0:\"h:1\"},\"brokerName\":\"b\",\
                      \"cluster\":\"C\",\"enableActingMaster\":false}}";
        assert_eq!(
            String::from_utf8(broker.encode_member_group()).unwrap(),
            golden
        );
    }
}
