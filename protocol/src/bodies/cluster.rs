//! The cluster as the tools see it: response body of 106.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::BrokerData;
use crate::json::{self, Dialect, JsonError};

/// Broker groups and the clusters they belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    /// Addresses by broker name.
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Broker names by cluster.
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}

impl ClusterInfo {
    /// Reads a body of either dialect.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn decode(body: &[u8]) -> Result<Self, JsonError> {
        json::read(body)
    }

    /// Writes the body. Upstream always leaves the integer keys unquoted here.
    pub fn encode(&self, dialect: Dialect) -> Vec<u8> {
        let mut out = b"{\"brokerAddrTable\":{".to_vec();
        for (position, (name, broker)) in self.broker_addr_table.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            json::write(name, &mut out);
            out.push(b':');
            broker.write(dialect, &mut out);
        }
        out.extend_from_slice(b"},\"clusterAddrTable\":");
        json::write(&self.cluster_addr_table, &mut out);
        out.push(b'}');
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn golden_text_and_back() {
        let broker = |name: &str| BrokerData {
            broker_addrs: [(0, format!("{name}:1"))].into(),
            broker_name: name.into(),
            cluster: "C".into(),
            enable_acting_master: false,
        };
        let names = ["a", "b"];
        let info = ClusterInfo {
            broker_addr_table: names.map(|name| (name.to_string(), broker(name))).into(),
            cluster_addr_table: [("C".to_string(), names.map(String::from).to_vec())].into(),
        };
        let text = String::from_utf8(info.encode(Dialect::Unquoted)).unwrap();
        let expected = "{\"brokerAddrTable\":{\
            \"a\":{\"brokerAddrs\":{0:\"a:1\"},\"brokerName\":\"a\",\"cluster\":\"C\",\
            \"enableActingMaster\":false},\
            \"b\":{\"brokerAddrs\":{0:\"b:1\"},\"brokerName\":\"b\",\"cluster\":\"C\",\
            \"enableActingMaster\":false}},\"clusterAddrTable\":{\"C\":[\"a\",\"b\"]}}";
        assert_eq!(text, expected);
        for dialect in [Dialect::Quoted, Dialect::Unquoted] {
            assert_eq!(ClusterInfo::decode(&info.encode(dialect)).unwrap(), info);
        }
    }
}
