//! The table behind [`Sessions`](super::Sessions): who is a member of what, given what was heard when.
//! Time is an argument; nothing here waits or sends.

mod lookup;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gantry_protocol::bodies::{
    Connection, ConsumeFromWhere, ConsumeType, ConsumerConnection, ConsumerData, Heartbeat,
    MessageModel, ProducerConnection, Subscription,
};
use gantry_raft::{GroupId, NodeNumber};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::remoting::Channel;

pub use lookup::{Member, Whom};

/// A client that sent no heartbeat for this long is gone even if its connection stands.
const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(120);

/// Clients of a node that was not heard for this long are gone, unless another node has them too. Long
/// enough for clients to look for new routes and to connect elsewhere.
const NODE_SILENCE_MAX: Duration = Duration::from_secs(40);

/// A node that was not heard for this long, two of its signs of life, is not relied on to notify clients.
const NODE_TRUST: Duration = Duration::from_secs(10);

/// What a client said about itself, as nodes tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Client {
    pub(super) client_id: String,
    address: String,
    pub(super) language: String,
    pub(super) version: i32,
    pub(super) producer_groups: Vec<String>,
    pub(super) consumers: Vec<ConsumerData>,
}

/// A client on one of its connections to this node.
struct Local {
    channel: Arc<Channel>,
    client: Client,
    /// Hash of the subscriptions that `client` holds, if it was sent with them.
    fingerprint: i32,
    last_heartbeat: Instant,
}

/// What another node told.
struct Remote {
    boot: u64,
    version: u64,
    clients: Vec<Client>,
    last_word: Instant,
}

/// A consumer group over all nodes.
#[derive(Default)]
struct View {
    members: BTreeSet<String>,
    /// By topic, the one with the highest version of any member.
    subscriptions: BTreeMap<String, Arc<Subscription>>,
    consume_type: ConsumeType,
    message_model: MessageModel,
    consume_from_where: ConsumeFromWhere,
}

/// What follows from a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The other nodes must be told.
    pub to_send: bool,
    /// Members of some group must be told.
    pub to_notify: bool,
}

/// Clients of this node and of the others.
///
/// Invariant: `views` has exactly the groups with members, and is what `local` and `remote` together say.
pub(super) struct Registry {
    node: NodeNumber,
    /// By connection and client id: some clients share a connection.
    local: BTreeMap<(u64, String), Local>,
    remote: BTreeMap<NodeNumber, Remote>,
    views: HashMap<String, View>,
    /// Groups whose members or topics changed since they were taken.
    changed: BTreeSet<String>,
    /// Counts changes of `local` that others must know.
    version: u64,
    to_send: bool,
}

impl Registry {
    pub(super) fn new(node: NodeNumber) -> Self {
        Registry {
            node,
            local: BTreeMap::new(),
            remote: BTreeMap::new(),
            views: HashMap::new(),
            changed: BTreeSet::new(),
            version: 0,
            to_send: false,
        }
    }

    /// See [`Sessions::heartbeat`](super::Sessions::heartbeat).
    pub(super) fn heartbeat(
        &mut self,
        channel: &Arc<Channel>,
        (language, version): (&str, i32),
        heartbeat: Heartbeat,
        now: Instant,
    ) -> bool {
        let key = (channel.id, heartbeat.client_id.clone());
        let previous = self.local.remove(&key);
        let (hash, without) = (heartbeat.heartbeat_fingerprint, heartbeat.without_sub);
        let known = !without
            || previous
                .as_ref()
                .is_some_and(|local| local.fingerprint == hash);
        let (address, language) = (channel.peer.to_string(), language.to_string());
        let mut client = Client::new((address, language, version), heartbeat);
        if without && let Some(previous) = &previous {
            client.keep_subscriptions_of(&previous.client);
        }
        let fingerprint = if known { hash } else { 0 };
        let before = previous.as_ref().map(|local| &local.client);
        let affected = affected_groups(before, Some(&client));
        let is_news = before != Some(&client);
        let (channel, last_heartbeat) = (channel.clone(), now);
        self.local.insert(
            key,
            Local {
                channel,
                client,
                fingerprint,
                last_heartbeat,
            },
        );
        if is_news {
            self.local_changed(&affected);
        }
        hash == 0 || !known
    }

    /// See [`Sessions::unregister`](super::Sessions::unregister).
    pub(super) fn unregister(
        &mut self,
        client_id: &str,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) {
        let mut is_news = false;
        for local in self
            .local
            .values_mut()
            .filter(|local| local.client.client_id == client_id)
        {
            let client = &mut local.client;
            let before = (client.producer_groups.len(), client.consumers.len());
            client
                .producer_groups
                .retain(|group| Some(group.as_str()) != producer_group);
            client
                .consumers
                .retain(|data| Some(data.group_name.as_str()) != consumer_group);
            if before != (client.producer_groups.len(), client.consumers.len()) {
                is_news = true;
                // What it left must come with its subscriptions if it comes back.
                local.fingerprint = 0;
            }
        }
        self.local.retain(|_, local| !local.client.is_nowhere());
        if is_news {
            self.local_changed(&consumer_group.map(String::from).into_iter().collect());
        }
    }

    /// A connection has ended.
    pub(super) fn disconnected(&mut self, channel_id: u64) {
        self.drop_local(|(channel, _), _| *channel == channel_id);
    }

    /// Drops whoever was silent for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.drop_local(|_, local| now >= local.last_heartbeat + CLIENT_SILENCE_MAX);
        let silent = |remote: &Remote| now >= remote.last_word + NODE_SILENCE_MAX;
        let gone: Vec<NodeNumber> = self
            .remote
            .iter()
            .filter(|(_, remote)| silent(remote))
            .map(|(n, _)| *n)
            .collect();
        for node in gone {
            let remote = self.remote.remove(&node).expect("it was just found");
            tracing::info!(
                node,
                clients = remote.clients.len(),
                "clients of a silent node are gone"
            );
            self.rebuild(&remote.clients.iter().flat_map(Client::groups).collect());
        }
    }

    /// Takes what another node told: its table, or only the version of it. Returns whether this node
    /// has that version now.
    pub(super) fn merge(
        &mut self,
        node: NodeNumber,
        (boot, version): (u64, u64),
        table: Option<Vec<Client>>,
        now: Instant,
    ) -> bool {
        assert_ne!(node, self.node, "a node does not tell itself");
        // A process that has just started knows nothing of this node's clients.
        self.to_send |= self
            .remote
            .get(&node)
            .is_none_or(|remote| remote.boot != boot);
        let Some(clients) = table else {
            let Some(remote) = self.remote.get_mut(&node) else {
                return false;
            };
            remote.last_word = now;
            return (remote.boot, remote.version) == (boot, version);
        };
        let mut affected: BTreeSet<String> = clients.iter().flat_map(Client::groups).collect();
        let remote = Remote {
            boot,
            version,
            clients,
            last_word: now,
        };
        if let Some(before) = self.remote.insert(node, remote) {
            affected.extend(before.clients.iter().flat_map(Client::groups));
        }
        self.rebuild(&affected);
        true
    }

    /// Whether another node's clients are known.
    pub(super) fn has_heard(&self, node: NodeNumber) -> bool {
        self.remote.contains_key(&node)
    }

    /// What follows from the changes since the last call.
    pub(super) fn take_news(&mut self) -> News {
        let to_send = std::mem::take(&mut self.to_send);
        News {
            to_send,
            to_notify: !self.changed.is_empty(),
        }
    }

    /// Groups whose members or topics changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    /// Version of this node's table.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// This node's clients; what a client says on several connections counts once.
    pub(super) fn table(&self) -> Vec<Client> {
        let mut clients: Vec<Client> = self.local_clients().cloned().collect();
        clients.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        clients.dedup_by(|a, b| a.says_the_same_as(b));
        clients
    }

    /// This node's clients on all of their connections.
    pub(super) fn local_clients(&self) -> impl Iterator<Item = &Client> {
        self.local.values().map(|local| &local.client)
    }

    /// Where this node notifies members of a consumer group: one connection, the newest, of each
    /// member that no node of a lower number has too. A member that is connected everywhere hears of
    /// a change once; clients exist that two notices at the same time bring to a standstill.
    pub(super) fn channels_to_notify(&self, group: &str, now: Instant) -> Vec<Arc<Channel>> {
        let lower = self.remote.range(..self.node);
        let elsewhere: BTreeSet<&str> = lower
            .filter(|(_, remote)| now < remote.last_word + NODE_TRUST)
            .flat_map(|(_, remote)| &remote.clients)
            .filter(|client| client.consumes_for(group))
            .map(|client| client.client_id.as_str())
            .collect();
        let members = self.local.values().filter(|local| {
            let client = &local.client;
            client.consumes_for(group) && !elsewhere.contains(client.client_id.as_str())
        });
        let newest: BTreeMap<&str, &Arc<Channel>> = members
            .map(|local| (local.client.client_id.as_str(), &local.channel))
            .collect();
        let channels: BTreeMap<u64, &Arc<Channel>> = newest
            .into_values()
            .map(|channel| (channel.id, channel))
            .collect();
        channels.into_values().cloned().collect()
    }

    /// Whether a client on this connection is a member of a consumer group.
    pub(super) fn is_member(&self, channel_id: u64, group: &str) -> bool {
        let of_connection = self.local.range((channel_id, String::new())..);
        let mut clients = of_connection.take_while(|((channel, _), _)| *channel == channel_id);
        clients.any(|(_, local)| local.client.consumes_for(group))
    }

    pub(super) fn members(&self, group: &str) -> Vec<String> {
        self.views
            .get(group)
            .map_or_else(Vec::new, |view| view.members.iter().cloned().collect())
    }

    pub(super) fn subscription(&self, group: &str, topic: &str) -> Option<Arc<Subscription>> {
        self.views.get(group)?.subscriptions.get(topic).cloned()
    }

    pub(super) fn groups_of(&self, topic: &str) -> Vec<String> {
        let subscribed = self
            .views
            .iter()
            .filter(|(_, v)| v.subscriptions.contains_key(topic));
        let mut groups: Vec<String> = subscribed.map(|(name, _)| name.clone()).collect();
        groups.sort();
        groups
    }

    pub(super) fn consumers(&self, group: &str) -> Option<ConsumerConnection> {
        let view = self.views.get(group)?;
        let subscriptions = view.subscriptions.iter();
        Some(ConsumerConnection {
            connection_set: self.connections(|client| client.consumes_for(group)),
            consume_from_where: view.consume_from_where,
            consume_type: view.consume_type,
            message_model: view.message_model,
            subscription_table: subscriptions
                .map(|(topic, subscription)| (topic.clone(), (**subscription).clone()))
                .collect(),
        })
    }

    pub(super) fn producers(&self, group: &str) -> ProducerConnection {
        ProducerConnection {
            connection_set: self.connections(|client| client.produces_for(group)),
        }
    }

    /// See [`Sessions::producer_channel`](super::Sessions::producer_channel).
    pub(super) fn producer_channel(&self, producer: &str, group: GroupId) -> Option<Arc<Channel>> {
        let open = self.local.values().filter(|local| {
            let produces = local.client.produces_for(producer);
            produces && !local.channel.is_closed()
        });
        let channels = open.map(|local| &local.channel);
        // The newest of the right port: an old one may be half dead.
        channels
            .max_by_key(|channel| (channel.port_group() == Some(group), channel.id))
            .cloned()
    }

    /// See [`Sessions::nodes_of_producer`](super::Sessions::nodes_of_producer).
    pub(super) fn nodes_of_producer(&self, producer: &str) -> Vec<NodeNumber> {
        let has = |remote: &Remote| {
            let mut clients = remote.clients.iter();
            clients.any(|client| client.produces_for(producer))
        };
        let nodes = self.remote.iter().filter(|(_, remote)| has(remote));
        nodes.map(|(node, _)| *node).collect()
    }

    /// One connection for each client that matches.
    fn connections(&self, matches: impl Fn(&Client) -> bool) -> Vec<Connection> {
        let matching = self.clients().filter(|client| matches(client));
        let by_id: BTreeMap<&str, &Client> = matching
            .map(|client| (client.client_id.as_str(), client))
            .collect();
        by_id.into_values().map(Client::connection).collect()
    }

    fn clients(&self) -> impl Iterator<Item = &Client> {
        let remote = self.remote.values().flat_map(|remote| &remote.clients);
        remote.chain(self.local_clients())
    }

    fn drop_local(&mut self, is_gone: impl Fn(&(u64, String), &Local) -> bool) {
        let mut affected = BTreeSet::new();
        let before = self.local.len();
        self.local.retain(|key, local| {
            let gone = is_gone(key, local);
            if gone {
                affected.extend(local.client.groups());
            }
            !gone
        });
        if self.local.len() != before {
            self.local_changed(&affected);
        }
    }

    fn local_changed(&mut self, affected: &BTreeSet<String>) {
        self.version += 1;
        self.to_send = true;
        self.rebuild(affected);
    }

    /// Makes the views of these groups anew.
    fn rebuild(&mut self, groups: &BTreeSet<String>) {
        let mut views: BTreeMap<&str, View> = groups
            .iter()
            .map(|group| (group.as_str(), View::default()))
            .collect();
        for client in self.clients() {
            for consumer in &client.consumers {
                if let Some(view) = views.get_mut(consumer.group_name.as_str()) {
                    view.add(&client.client_id, consumer);
                }
            }
        }
        for (group, view) in views {
            let before = if view.members.is_empty() {
                self.views.remove(group)
            } else {
                self.views.insert(group.to_string(), view)
            };
            let after = self.views.get(group);
            if !View::is_same(before.as_ref(), after) {
                self.changed.insert(group.to_string());
            }
        }
    }
}

impl Client {
    fn new((address, language, version): (String, String, i32), heartbeat: Heartbeat) -> Self {
        let producers = heartbeat.producer_data_set.into_iter();
        let mut consumers = heartbeat.consumer_data_set;
        for consumer in &mut consumers {
            consumer
                .subscription_data_set
                .sort_by(|a, b| a.topic.cmp(&b.topic));
        }
        consumers.sort_by(|a, b| a.group_name.cmp(&b.group_name));
        let mut producer_groups: Vec<String> = producers.map(|data| data.group_name).collect();
        producer_groups.sort();
        let client_id = heartbeat.client_id;
        Client {
            client_id,
            address,
            language,
            version,
            producer_groups,
            consumers,
        }
    }

    /// Takes over the subscriptions that a heartbeat left out.
    fn keep_subscriptions_of(&mut self, before: &Client) {
        for consumer in &mut self.consumers {
            let known = before
                .consumers
                .iter()
                .find(|b| b.group_name == consumer.group_name);
            if let Some(known) = known {
                consumer.subscription_data_set = known.subscription_data_set.clone();
            }
        }
    }

    fn groups(&self) -> impl Iterator<Item = String> {
        self.consumers
            .iter()
            .map(|consumer| consumer.group_name.clone())
    }

    fn consumes_for(&self, group: &str) -> bool {
        self.consumers
            .iter()
            .any(|consumer| consumer.group_name == group)
    }

    fn produces_for(&self, group: &str) -> bool {
        self.producer_groups.iter().any(|name| name == group)
    }

    fn is_nowhere(&self) -> bool {
        self.producer_groups.is_empty() && self.consumers.is_empty()
    }

    /// Whether both say the same, maybe on different connections.
    fn says_the_same_as(&self, other: &Client) -> bool {
        let Client {
            client_id,
            address: _,
            language,
            version,
            producer_groups,
            consumers,
        } = self;
        (client_id, language, version) == (&other.client_id, &other.language, &other.version)
            && (producer_groups, consumers) == (&other.producer_groups, &other.consumers)
    }

    fn connection(&self) -> Connection {
        Connection {
            client_addr: self.address.clone(),
            client_id: self.client_id.clone(),
            language: self.language.clone(),
            version: self.version,
        }
    }
}

impl View {
    fn add(&mut self, client_id: &str, consumer: &ConsumerData) {
        self.members.insert(client_id.to_string());
        self.consume_type = consumer.consume_type;
        self.message_model = consumer.message_model;
        self.consume_from_where = consumer.consume_from_where;
        for subscription in &consumer.subscription_data_set {
            let known = self.subscriptions.get(&subscription.topic);
            if known.is_none_or(|known| known.sub_version < subscription.sub_version) {
                let newer = Arc::new(subscription.clone());
                self.subscriptions.insert(subscription.topic.clone(), newer);
            }
        }
    }

    /// Whether members have nothing to do: the same members, the same topics.
    fn is_same(before: Option<&View>, after: Option<&View>) -> bool {
        match (before, after) {
            (None, None) => true,
            (Some(before), Some(after)) => {
                before.members == after.members
                    && before.subscriptions.keys().eq(after.subscriptions.keys())
            }
            _ => false,
        }
    }
}

/// Consumer groups that a client was or is a member of.
fn affected_groups(before: Option<&Client>, after: Option<&Client>) -> BTreeSet<String> {
    before
        .into_iter()
        .chain(after)
        .flat_map(Client::groups)
        .collect()
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
