//! Where clients should go: topics and groups of brokers to the addresses of the listener that the
//! client came in on.
//!
//! A route always has an id 0 for each group and all of its queues, whatever the health of the nodes:
//! only addresses change, so that clients' choices of queues stay what they are. The id 0 of a group is
//! its leader, but never the same node for all groups while others live: a client keeps a route for 30 s,
//! and when that node dies it needs another one to turn to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gantry_protocol::bodies::{BrokerData, ClusterInfo, QueueData, TopicRoute};
use gantry_protocol::topic as names;
use gantry_raft::{GroupId, NodeNumber};
use gantry_storage::tables::{PERM_WRITE, TopicConfig};
use tokio::time::{Instant, sleep, timeout};

use crate::catalog::on_each;
use crate::config::{Config, ListenerConfig};
use crate::error::Failure;
use crate::group::Group;
use crate::idempotent;
use crate::permissions;

/// How long a start waits for host names.
const RESOLVE_WAIT: Duration = Duration::from_secs(1);

/// How often a host name that could not be resolved is tried again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);

/// Routes of all groups of brokers that this node hosts.
pub struct Routes {
    config: Arc<Config>,
    groups: Vec<Arc<Group>>,
    /// Per group the node that led it when a route was last asked for; 0 if none was known yet.
    last_leaders: Vec<AtomicU16>,
    /// Per listener the address of each node, once its name is resolved.
    hosts: Vec<BTreeMap<NodeNumber, OnceLock<Ipv4Addr>>>,
}

impl Routes {
    /// Routes of `groups`, which are all groups of the configuration, in its order. Waits a moment for
    /// the host names of the listeners; [`Routes::resolve_hosts`] goes on where that was too short.
    pub async fn new(config: Arc<Config>, groups: Vec<Arc<Group>>) -> Self {
        assert_eq!(config.groups.len(), groups.len(), "a node hosts all groups");
        let last_leaders = groups.iter().map(|_| AtomicU16::new(0)).collect();
        let hosts = config.listeners.iter().map(known_hosts).collect();
        let routes = Routes {
            config,
            groups,
            last_leaders,
            hosts,
        };
        if timeout(RESOLVE_WAIT, routes.resolve_hosts()).await.is_err() {
            tracing::info!("not every host name of the listeners is known yet");
        }
        routes
    }

    /// All hosted groups, by id.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// The configuration that the routes are made of.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Resolves the host names that message ids need; ends when all are known.
    pub async fn resolve_hosts(&self) {
        loop {
            let mut missing = 0;
            for (listener, hosts) in self.config.listeners.iter().zip(&self.hosts) {
                for (node, host) in hosts.iter().filter(|(_, host)| host.get().is_none()) {
                    match resolve(&listener.nodes[node].host).await {
                        // Nobody else sets it.
                        Some(address) => drop(host.set(address)),
                        None => missing += 1,
                    }
                }
            }
            if missing == 0 {
                return;
            }
            tracing::debug!(
                missing,
                "host names of listeners that have no IPv4 address yet"
            );
            sleep(RESOLVE_INTERVAL).await;
        }
    }

    /// The address that message ids name: that of `node` for clients of the listener, or this node's
    /// while the name of the other is not resolved. Any node serves any message.
    pub fn store_host(&self, listener: usize, node: NodeNumber, group: GroupId) -> SocketAddrV4 {
        let known = |node: &NodeNumber| Some((*node, *self.hosts[listener].get(node)?.get()?));
        let (this_node, listener) = (self.config.node, &self.config.listeners[listener]);
        let (node, address) = known(&node)
            .or_else(|| known(&this_node))
            .unwrap_or_else(|| {
                let bound = match listener.bind {
                    IpAddr::V4(bound) if !bound.is_unspecified() => bound,
                    _ => Ipv4Addr::LOCALHOST,
                };
                (this_node, bound)
            });
        SocketAddrV4::new(address, listener.nodes[&node].groups[usize::from(group)])
    }

    /// The route of a topic for clients of a listener; none if no group has the topic now. Waits for
    /// the current state where this node has not seen the topic, until `deadline`.
    pub async fn topic_route(
        &self,
        topic: &str,
        listener: usize,
        deadline: Instant,
    ) -> Result<Option<TopicRoute>, Failure> {
        if topic == names::DEFAULT_TOPIC && !self.config.broker.auto_create_topic {
            return Ok(None);
        }
        let lacking = self.without(topic);
        let caught_up = on_each(&lacking, move |group| async move {
            group.catch_up(deadline).await
        });
        // A group that may have the topic is never left out: clients would move their queues away from
        // it. On an error they keep the route that they have.
        caught_up
            .await
            .into_iter()
            .collect::<Result<(), Failure>>()?;
        let route = self.known_route(topic, listener);
        Ok((!route.queue_datas.is_empty()).then_some(route))
    }

    fn without(&self, topic: &str) -> Vec<Arc<Group>> {
        let lacks = |group: &&Arc<Group>| group.store.tables().topic(topic).is_none();
        self.groups.iter().filter(lacks).cloned().collect()
    }

    fn known_route(&self, topic: &str, listener: usize) -> TopicRoute {
        let mut route = TopicRoute::default();
        for group in &self.groups {
            let (topic, mut perm) = {
                let tables = group.store.tables();
                let topic = tables.topic(topic);
                let perm = topic.as_ref().map_or(0, |topic| topic.config.perm);
                (topic, permissions::routed(&tables, perm))
            };
            if let Some(topic) = &topic
                && let Some(home) = idempotent::elsewhere(&self.groups, group, &topic.config)
                && home.store.tables().topic(&topic.config.name).is_some()
            {
                // Producers learn where their messages go, and their answers name that group.
                perm &= !PERM_WRITE;
            }
            if let Some(topic) = topic {
                route
                    .queue_datas
                    .push(queue_data(&group.name, (&topic.config, perm)));
                route.broker_datas.push(self.broker(group, listener));
            }
        }
        route
    }

    /// All groups with their addresses for clients of a listener.
    pub fn cluster_info(&self, listener: usize) -> ClusterInfo {
        let names: Vec<String> = self.groups.iter().map(|group| group.name.clone()).collect();
        let brokers = self.groups.iter().map(|group| {
            let broker = self.broker(group, listener);
            (group.name.clone(), broker)
        });
        ClusterInfo {
            broker_addr_table: brokers.collect(),
            cluster_addr_table: [(self.config.cluster.clone(), names)].into(),
        }
    }

    /// Names of the topics that this node sees in any group.
    pub fn topic_names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for group in &self.groups {
            let tables = group.store.tables();
            names.extend(tables.topics().map(|topic| topic.config.name.clone()));
        }
        names
    }

    /// The addresses of a group: the node to write to as id 0, the other nodes as 1 and up by number.
    pub fn broker(&self, group: &Group, listener: usize) -> BrokerData {
        let nodes = &self.config.listeners[listener].nodes;
        let order = broker_ids(self.node_for_writes(group), nodes.keys().copied());
        let address = |node: NodeNumber| {
            let node = &nodes[&node];
            format!("{}:{}", node.host, node.groups[usize::from(group.id)])
        };
        BrokerData {
            broker_addrs: order
                .into_iter()
                .map(|(id, node)| (id, address(node)))
                .collect(),
            broker_name: group.name.clone(),
            cluster: self.config.cluster.clone(),
            enable_acting_master: false,
        }
    }

    /// The leader. If one node leads all groups, then the node that should lead this one, which
    /// forwards: see above.
    fn node_for_writes(&self, group: &Group) -> NodeNumber {
        let leader = self.leader_or_likely(group);
        let mut leaders = self.groups.iter().map(|each| self.leader_or_likely(each));
        let leads_all = self.groups.len() > 1 && leaders.all(|each| each == leader);
        let preferred = group.replica.preferred();
        if leads_all && is_alive(group, preferred) && !group.replica.preferred_leaves() {
            return preferred;
        }
        leader
    }

    /// The leader; while there is none, the node that is most likely to answer soon.
    fn leader_or_likely(&self, group: &Group) -> NodeNumber {
        let position = usize::from(group.id);
        let last = &self.last_leaders[position];
        if let Some(leader) = group.leadership().leader {
            last.store(leader, Ordering::Relaxed);
            return leader;
        }
        let candidates = [last.load(Ordering::Relaxed), group.replica.preferred()];
        candidates
            .into_iter()
            .find(|node| is_alive(group, *node))
            .unwrap_or(group.node)
    }
}

/// Whether a node is this one or connected to it.
fn is_alive(group: &Group, node: NodeNumber) -> bool {
    node == group.node || group.peers.is_connected(node)
}

fn broker_ids(
    leader: NodeNumber,
    nodes: impl Iterator<Item = NodeNumber>,
) -> Vec<(i64, NodeNumber)> {
    let others = nodes.filter(|node| *node != leader);
    std::iter::once(leader)
        .chain(others)
        .enumerate()
        .map(|(id, node)| (id as i64, node))
        .collect()
}

fn queue_data(group: &str, (topic, perm): (&TopicConfig, u8)) -> QueueData {
    QueueData {
        broker_name: group.to_string(),
        perm: i32::from(perm),
        read_queue_nums: i32::from(topic.read_queues),
        topic_sys_flag: topic.sys_flag as i32,
        write_queue_nums: i32::from(topic.write_queues),
    }
}

/// The hosts of a listener's nodes; those that are addresses are known at once.
fn known_hosts(listener: &ListenerConfig) -> BTreeMap<NodeNumber, OnceLock<Ipv4Addr>> {
    let known = |host: &str| {
        host.parse::<Ipv4Addr>()
            .map_or_else(|_| OnceLock::new(), OnceLock::from)
    };
    listener
        .nodes
        .iter()
        .map(|(node, at)| (*node, known(&at.host)))
        .collect()
}

async fn resolve(host: &str) -> Option<Ipv4Addr> {
    let found = tokio::net::lookup_host((host, 0)).await;
    let found = found.inspect_err(|error| tracing::debug!(host, %error, "cannot be resolved"));
    found.ok()?.find_map(|address| match address {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_id_0_and_the_others_keep_their_order() {
        assert_eq!(
            broker_ids(2, [1, 2, 3].into_iter()),
            [(0, 2), (1, 1), (2, 3)]
        );
        assert_eq!(broker_ids(1, [1].into_iter()), [(0, 1)]);
    }

    #[tokio::test]
    async fn names_become_ipv4_addresses() {
        assert_eq!(resolve("127.0.0.1").await, Some(Ipv4Addr::LOCALHOST));
        assert_eq!(resolve("::1").await, None);
    }
}
