//! Finding single clients: on which connection, at which node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_protocol::bodies::{AllProducers, ProducerInfo};
use gantry_raft::NodeNumber;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Client, Registry};
use crate::remoting::Channel;

/// A client that something is to be asked of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whom {
    /// Its id.
    pub client_id: String,
    /// As a member of this consumer group; none: as a producer of any group.
    pub consumer_group: Option<String>,
}

impl Whom {
    fn is(&self, client: &Client) -> bool {
        let has_role = match &self.consumer_group {
            Some(group) => client.consumes_for(group),
            None => !client.producer_groups.is_empty(),
        };
        client.client_id == self.client_id && has_role
    }
}

/// A member of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its id.
    pub client_id: String,
    /// Name of its language, see [`gantry_protocol::Language::name`].
    pub language: String,
}

impl Registry {
    /// The newest connection of a client to this node.
    pub(in crate::sessions) fn channel_of(&self, whom: &Whom) -> Option<Arc<Channel>> {
        let mut matching = self.local.values().filter(|local| whom.is(&local.client));
        // Keys begin with the connection's number, and numbers grow.
        matching.next_back().map(|local| local.channel.clone())
    }

    /// The other nodes that a client is connected to, as far as they told.
    pub(in crate::sessions) fn nodes_with(&self, whom: &Whom) -> Vec<NodeNumber> {
        let has = |clients: &[Client]| clients.iter().any(|client| whom.is(client));
        let nodes = self
            .remote
            .iter()
            .filter(|(_, remote)| has(&remote.clients));
        nodes.map(|(node, _)| *node).collect()
    }

    /// The members of a consumer group, each once, ordered.
    pub(in crate::sessions) fn members_with_language(&self, group: &str) -> BTreeSet<Member> {
        let members = self.clients().filter(|client| client.consumes_for(group));
        let member = |client: &Client| Member {
            client_id: client.client_id.clone(),
            language: client.language.clone(),
        };
        members.map(member).collect()
    }

    /// All producers by group. When another node's client last sent a heartbeat is not told: its node's
    /// last word stands for it.
    pub(in crate::sessions) fn all_producers(&self, now: Instant, now_ms: u64) -> AllProducers {
        let ago = |then: Instant| now_ms.saturating_sub((now - then).as_millis() as u64) as i64;
        let remote = self.remote.values().flat_map(|remote| {
            let last = ago(remote.last_word);
            remote.clients.iter().map(move |client| (client, last))
        });
        let local = self
            .local
            .values()
            .map(|local| (&local.client, ago(local.last_heartbeat)));
        let mut data: BTreeMap<String, BTreeMap<&str, ProducerInfo>> = BTreeMap::new();
        for (client, last_update_timestamp) in remote.chain(local) {
            for group in &client.producer_groups {
                let info = ProducerInfo {
                    client_id: client.client_id.clone(),
                    language: client.language.clone(),
                    last_update_timestamp,
                    remote_ip: client.address.clone(),
                    version: client.version,
                };
                let of_group = data.entry(group.clone()).or_default();
                of_group.insert(&client.client_id, info);
            }
        }
        let listed = data
            .into_iter()
            .map(|(group, clients)| (group, clients.into_values().collect()));
        AllProducers {
            data: listed.collect(),
        }
    }
}
