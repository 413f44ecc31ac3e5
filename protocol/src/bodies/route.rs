//! The route of a topic: response body of 105, request body of 217.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::{self, Dialect, JsonError};

/// Bits of a topic's or queue's `perm`.
pub mod perm {
    /// May be read.
    pub const READ: i32 = 4;
    /// May be written.
    pub const WRITE: i32 = 2;
    /// New topics may take over this topic's settings.
    pub const INHERIT: i32 = 1;
}

/// Where a topic's queues are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRoute {
    /// `brokerA:8;brokerB:8`: fixes the queue list of an ordered topic.
    pub order_topic_conf: Option<String>,
    /// Queues per broker group.
    pub queue_datas: Vec<QueueData>,
    /// Addresses per broker group.
    pub broker_datas: Vec<BrokerData>,
}

/// Queues of a topic in one broker group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    /// Broker group.
    pub broker_name: String,
    /// Bits of [`perm`].
    pub perm: i32,
    /// Queues that can be read: 0 up to this number.
    pub read_queue_nums: i32,
    /// Unit bits, passed through.
    pub topic_sys_flag: i32,
    /// Queues that can be written: 0 up to this number.
    pub write_queue_nums: i32,
}

/// Addresses of one broker group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    /// Address by broker id; id 0 takes the writes. `host:port`, one each, without commas.
    pub broker_addrs: BTreeMap<i64, String>,
    /// Broker group.
    pub broker_name: String,
    /// Cluster.
    pub cluster: String,
    /// Always false here.
    pub enable_acting_master: bool,
}

impl TopicRoute {
    /// Reads a route of either dialect.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn decode(body: &[u8]) -> Result<Self, JsonError> {
        json::read(body)
    }

    /// Writes the body; see [`crate::version::route_keys_are_quoted`] for the dialect.
    pub fn encode(&self, dialect: Dialect) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + 256 * self.broker_datas.len());
        out.extend_from_slice(b"{\"brokerDatas\":[");
        for (position, broker) in self.broker_datas.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            broker.write(dialect, &mut out);
        }
        out.extend_from_slice(b"],\"filterServerTable\":{}");
        if let Some(conf) = &self.order_topic_conf {
            out.extend_from_slice(b",\"orderTopicConf\":");
            json::write(conf, &mut out);
        }
        out.extend_from_slice(b",\"queueDatas\":");
        json::write(&self.queue_datas, &mut out);
        out.push(b'}');
        out
    }
}

impl BrokerData {
    /// Appends the object in that dialect.
    pub(crate) fn write(&self, dialect: Dialect, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"brokerAddrs\":");
        json::write_int_map(&self.broker_addrs, dialect, out);
        out.extend_from_slice(b",\"brokerName\":");
        json::write(&self.broker_name, out);
        out.extend_from_slice(b",\"cluster\":");
        json::write(&self.cluster, out);
        out.extend_from_slice(b",\"enableActingMaster\":");
        json::write(&self.enable_acting_master, out);
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn route() -> TopicRoute {
        let addrs = [(0, "10.0.0.1:10911"), (1, "10.0.0.2:10911")];
        let broker = BrokerData {
            broker_addrs: addrs.map(|(id, addr)| (id, addr.to_string())).into(),
            broker_name: "broker-a".into(),
            cluster: "C".into(),
            enable_acting_master: false,
        };
        let queue = QueueData {
            broker_name: "broker-a".into(),
            perm: perm::READ | perm::WRITE,
            read_queue_nums: 4,
            topic_sys_flag: 0,
            write_queue_nums: 4,
        };
        TopicRoute {
            order_topic_conf: None,
            queue_datas: vec![queue],
            broker_datas: vec![broker],
        }
    }

    #[test]
    fn golden_text_of_both_dialects() {
        let rest = ",\"brokerName\":\"broker-a\",\"cluster\":\"C\",\"enableActingMaster\":false}],\
                    \"filterServerTable\":{},\"queueDatas\":[{\"brokerName\":\"broker-a\",\
                    \"perm\":6,\"readQueueNums\":4,\"topicSysFlag\":0,\"writeQueueNums\":4}]}";
        let unquoted = "{\"brokerDatas\":[{\"brokerAddrs\":{0:\"10.0.0.1:10911\",\
                        1:\"10.0.0.2:10911\"}";
        let quoted = "{\"brokerDatas\":[{\"brokerAddrs\":{\"0\":\"10.0.0.1:10911\",\
                      \"1\":\"10.0.0.2:10911\"}";
        let text = |dialect| String::from_utf8(route().encode(dialect)).unwrap();
        assert_eq!(text(Dialect::Unquoted), format!("{unquoted}{rest}"));
        assert_eq!(text(Dialect::Quoted), format!("{quoted}{rest}"));
    }

    #[test]
    fn both_dialects_read_back() {
        let ordered = TopicRoute {
            order_topic_conf: Some("broker-a:4".into()),
            ..route()
        };
        for expected in [route(), ordered] {
            for dialect in [Dialect::Quoted, Dialect::Unquoted] {
                assert_eq!(
                    TopicRoute::decode(&expected.encode(dialect)).unwrap(),
                    expected
                );
            }
        }
    }
}
