//! Connected clients and the members of consumer groups: what this node hears in heartbeats and what
//! the other nodes tell it. Not replicated: it comes back with the next heartbeats.
//!
//! Every node sends its table of clients to every other one when it changes, and a sign of life with
//! the table's version when it does not. A client that is connected anywhere is a member everywhere.

mod census;
mod registry;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use gantry_protocol::bodies::{
    AllProducers, ConsumerConnection, Heartbeat, ProducerConnection, Subscription,
};
use gantry_protocol::headers::NotifyConsumersRequest;
use gantry_protocol::{Language, RemotingCommand, RequestCode, json};
use gantry_raft::{CallError, GroupId, NodeNumber, Peers};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::group::Group;
use crate::metrics;
use crate::peer_calls::Method;
use crate::remoting::Channel;
use registry::{Client, News, Registry};

pub use registry::{Member, Whom};

/// How long changes are gathered before the table is sent.
const GATHER: Duration = Duration::from_millis(50);

/// A node lets the others hear from it at least this often.
const REFRESH: Duration = Duration::from_secs(5);

/// How soon a table that did not arrive is sent again.
const RETRY: Duration = Duration::from_millis(250);

const PUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// How often clients and nodes that have gone silent are looked for.
const SCAN: Duration = Duration::from_secs(5);

/// Notices of changed members are at least this far apart: the C++ client can lock itself up for good
/// when a second one reaches it while it works on the first.
const NOTICE_GAP: Duration = Duration::from_millis(500);

/// Members are told of a change this long after it: whichever node they ask then has heard of it, too.
const NOTICE_DELAY: Duration = Duration::from_millis(100);

/// How long a client that asks for the members of its group waits for its own heartbeat to come to this node.
const ASKER_WAIT: Duration = Duration::from_millis(300);

/// After this time a node that has just started speaks for the cluster even if it has not heard from
/// every other node.
const LEARNING: Duration = Duration::from_secs(1);

/// A table above this size is not sent: a peer would not take it.
const TABLE_BYTES_MAX: usize = 16 << 20;

const WITHOUT_TABLE: u8 = 0;
const WITH_TABLE: u8 = 1;
const REPLY_UNKNOWN: &[u8] = &[0];
const REPLY_KNOWN: &[u8] = &[1];

/// Clients of this node and, as far as they told, of the others.
pub struct Sessions {
    registry: Mutex<Registry>,
    started: Instant,
    /// The other nodes, once [`Sessions::run`] runs.
    others: OnceLock<Vec<NodeNumber>>,
    /// Counts reasons to send the table.
    to_send: watch::Sender<u64>,
    /// Some group's members must be told.
    to_notify: Notify,
}

impl Sessions {
    /// Sessions of `node`, none yet. [`Sessions::run`] must run for them.
    pub fn new(node: NodeNumber) -> Self {
        Sessions {
            registry: Mutex::new(Registry::new(node)),
            started: Instant::now(),
            others: OnceLock::new(),
            to_send: watch::Sender::new(0),
            to_notify: Notify::new(),
        }
    }

    /// Notes what a client says about itself. True if its next heartbeat must carry its
    /// subscriptions even if they have not changed.
    pub fn heartbeat(
        &self,
        channel: &Arc<Channel>,
        (language, version): (Language, i32),
        heartbeat: Heartbeat,
    ) -> bool {
        let mut registry = self.lock();
        let wants_subscriptions = registry.heartbeat(
            channel,
            (language.name(), version),
            heartbeat,
            Instant::now(),
        );
        self.spread(registry.take_news());
        wants_subscriptions
    }

    /// A client leaves groups, on all of its connections to this node.
    pub fn unregister(
        &self,
        client_id: &str,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) {
        let mut registry = self.lock();
        registry.unregister(client_id, producer_group, consumer_group);
        self.spread(registry.take_news());
    }

    /// A client's connection has ended.
    pub fn disconnected(&self, channel_id: u64) {
        let mut registry = self.lock();
        registry.disconnected(channel_id);
        self.spread(registry.take_news());
    }

    /// Ids of a consumer group's members, ordered, each once. None while this node has only just
    /// started and does not know the clients of the others: a partial list would make its reader take
    /// queues that belong to others.
    pub fn members(&self, group: &str) -> Option<Vec<String>> {
        let registry = self.lock();
        self.knows_all(&registry, Instant::now())
            .then(|| registry.members(group))
    }

    /// Waits until the client of a connection has said here that it is a member of a group, or for a moment.
    ///
    /// A client tells one node after the other when it starts, and the first one's notice makes it ask any of
    /// them. A list without itself, or an error, would leave it without queues until it asks again: 20 s.
    pub async fn until_member(&self, channel: &Channel, group: &str) {
        let mut changes = self.to_send.subscribe();
        let heard = async {
            while !self.lock().is_member(channel.id, group) && changes.changed().await.is_ok() {}
        };
        // Who sends heartbeats to other nodes only is answered all the same.
        drop(timeout(ASKER_WAIT, heard).await);
    }

    /// What a consumer group subscribed to in a topic.
    pub fn subscription(&self, group: &str, topic: &str) -> Option<Arc<Subscription>> {
        self.lock().subscription(group, topic)
    }

    /// Consumer groups that subscribe to a topic, ordered.
    pub fn groups_of(&self, topic: &str) -> Vec<String> {
        self.lock().groups_of(topic)
    }

    /// The members of a consumer group as tools see them; none if nobody is online.
    pub fn consumers(&self, group: &str) -> Option<ConsumerConnection> {
        self.lock().consumers(group)
    }

    /// The members of a producer group as tools see them.
    pub fn producers(&self, group: &str) -> ProducerConnection {
        self.lock().producers(group)
    }

    /// A connection of this node to a member of a producer group: one that came in on the port of the broker
    /// group if there is one, because what the producer says then comes in there, too.
    pub fn producer_channel(&self, producer: &str, group: GroupId) -> Option<Arc<Channel>> {
        self.lock().producer_channel(producer, group)
    }

    /// The other nodes that members of a producer group are connected to.
    pub fn nodes_of_producer(&self, producer: &str) -> Vec<NodeNumber> {
        self.lock().nodes_of_producer(producer)
    }

    /// All producers by group; `now_ms` is the time of day.
    pub fn all_producers(&self, now_ms: u64) -> AllProducers {
        self.lock().all_producers(Instant::now(), now_ms)
    }

    /// The members of a consumer group and their languages, each once.
    pub fn members_with_language(&self, group: &str) -> BTreeSet<Member> {
        self.lock().members_with_language(group)
    }

    /// A client's newest connection to this node.
    pub fn channel_of(&self, whom: &Whom) -> Option<Arc<Channel>> {
        self.lock().channel_of(whom)
    }

    /// The other nodes that a client is connected to, as far as they told.
    pub fn nodes_with(&self, whom: &Whom) -> Vec<NodeNumber> {
        self.lock().nodes_with(whom)
    }

    /// The clients that are connected to this node, for the metrics.
    pub fn connected_here(
        &self,
    ) -> (
        Vec<metrics::ProducerConnection>,
        Vec<metrics::ConsumerConnection>,
    ) {
        census::take(&self.lock())
    }

    /// How long this node has been up.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes what another node sent; gives the reply to it, or what is wrong with it.
    pub fn merge(&self, node: NodeNumber, body: &[u8]) -> Result<Vec<Bytes>, String> {
        let (boot, version, table) = decode(body)?;
        let mut registry = self.lock();
        let known = registry.merge(node, (boot, version), table, Instant::now());
        self.spread(registry.take_news());
        Ok(vec![Bytes::from_static(if known {
            REPLY_KNOWN
        } else {
            REPLY_UNKNOWN
        })])
    }

    /// Tells the other nodes and the members of groups what changes, until the task is ended. Members
    /// are told where a group's settings in `groups` say so.
    pub async fn run(self: Arc<Self>, peers: Arc<Peers>, groups: Vec<Arc<Group>>) {
        let others = self.others.get_or_init(|| peers.others().collect());
        let mut sending = JoinSet::new();
        for other in others {
            sending.spawn(self.clone().send_to(*other, peers.clone()));
        }
        let mut scan = interval(SCAN);
        loop {
            tokio::select! {
                () = self.to_notify.notified() => sleep(NOTICE_DELAY).await,
                _ = scan.tick() => self.expire(),
            }
            if self.notify_members(|group| wants_notice(&groups, group)) {
                // What changes meanwhile is told together.
                sleep(NOTICE_GAP).await;
            }
        }
    }

    /// Keeps `peer` informed.
    async fn send_to(self: Arc<Self>, peer: NodeNumber, peers: Arc<Peers>) {
        let boot = peers.identity().boot;
        let mut to_send = self.to_send.subscribe();
        let mut known = None;
        loop {
            to_send.borrow_and_update();
            let (version, body) = self.message(boot, known);
            let method = (0, Method::Sessions as u8);
            let reply = peers
                .call(peer, method, vec![body], Instant::now() + PUSH_TIMEOUT)
                .await;
            let pause = match reply {
                Ok(reply) if reply == REPLY_KNOWN => {
                    known = Some(version);
                    REFRESH
                }
                Ok(_) if known.take().is_some() => continue,
                Ok(_) => RETRY,
                Err(error) => {
                    known = None;
                    pause_after(peer, &error)
                }
            };
            if timeout(pause, to_send.changed()).await.is_ok() {
                sleep(GATHER).await;
            }
        }
    }

    /// The message for a peer that has the version `known` of this node's table, and its version.
    fn message(&self, boot: u64, known: Option<u64>) -> (u64, Bytes) {
        let (version, table) = {
            let registry = self.lock();
            let version = registry.version();
            (version, (known != Some(version)).then(|| registry.table()))
        };
        let mut body = BytesMut::new();
        body.put_u64_le(boot);
        body.put_u64_le(version);
        match table.map(|table| json::to_vec(&table)) {
            Some(table) if table.len() <= TABLE_BYTES_MAX => {
                body.put_u8(WITH_TABLE);
                body.extend_from_slice(&table);
            }
            Some(table) => {
                let bytes = table.len();
                tracing::error!(
                    bytes,
                    "the table of clients is too large to tell other nodes of"
                );
                body.put_u8(WITHOUT_TABLE);
            }
            None => body.put_u8(WITHOUT_TABLE),
        }
        (version, body.freeze())
    }

    fn expire(&self) {
        let mut registry = self.lock();
        registry.expire(Instant::now());
        self.spread(registry.take_news());
    }

    /// Tells the members of groups that changed; whether there was anybody to tell.
    fn notify_members(&self, wants_notice: impl Fn(&str) -> bool) -> bool {
        let mut told = false;
        let changed = self.lock().take_changed();
        for group in changed.iter().filter(|group| wants_notice(group)) {
            let channels = self.lock().channels_to_notify(group, Instant::now());
            for channel in channels {
                let mut notice =
                    RemotingCommand::request(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED, 0);
                NotifyConsumersRequest {
                    consumer_group: group,
                }
                .write(&mut notice.fields);
                channel.notify(notice);
                told = true;
            }
        }
        told
    }

    fn knows_all(&self, registry: &Registry, now: Instant) -> bool {
        let heard = |others: &Vec<NodeNumber>| others.iter().all(|node| registry.has_heard(*node));
        now >= self.started + LEARNING || self.others.get().is_some_and(heard)
    }

    fn spread(&self, news: News) {
        if news.to_send {
            self.to_send.send_modify(|reasons| *reasons += 1);
        }
        if news.to_notify {
            self.to_notify.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether members of a group want to hear of each other; they do unless its settings deny it.
fn wants_notice(groups: &[Arc<Group>], name: &str) -> bool {
    let settings = groups
        .iter()
        .find_map(|group| group.store.tables().group(name));
    settings.is_none_or(|settings| settings.notify_consumer_ids_changed_enable)
}

fn pause_after(peer: NodeNumber, error: &CallError) -> Duration {
    tracing::debug!(peer, %error, "a node was not told of this node's clients");
    match error {
        CallError::Unreachable(_) | CallError::Unanswered(_) => RETRY,
        CallError::Refused(..) => LEARNING / 2,
    }
}

type Message = (u64, u64, Option<Vec<Client>>);

fn decode(body: &[u8]) -> Result<Message, String> {
    let short = || "a table of clients is cut short".to_string();
    let (boot, rest) = body.split_first_chunk::<8>().ok_or_else(short)?;
    let (version, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (kind, table) = rest.split_first().ok_or_else(short)?;
    let table = match *kind {
        WITHOUT_TABLE => None,
        WITH_TABLE => Some(serde_json::from_slice(table).map_err(|error| error.to_string())?),
        other => return Err(format!("a table of clients of unknown kind {other}")),
    };
    Ok((
        u64::from_le_bytes(*boot),
        u64::from_le_bytes(*version),
        table,
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gantry_protocol::bodies::ConsumerData;

    use super::*;

    fn channel(id: u64) -> Arc<Channel> {
        Arc::new(Channel::new(id, "10.0.0.9:4000".parse().unwrap()))
    }

    fn consumer(client_id: &str, topic: &str) -> Heartbeat {
        let subscription = Subscription {
            topic: topic.into(),
            ..Subscription::default()
        };
        let consumer = ConsumerData {
            group_name: "g".into(),
            subscription_data_set: vec![subscription],
            ..ConsumerData::default()
        };
        Heartbeat {
            client_id: client_id.into(),
            consumer_data_set: vec![consumer],
            ..Heartbeat::default()
        }
    }

    /// One message from a node to another; whether that one now has the table.
    fn tell(from: (NodeNumber, &Sessions), to: &Sessions, known: Option<u64>) -> bool {
        let (_, body) = from.1.message(7, known);
        to.merge(from.0, &body).unwrap() == vec![Bytes::from_static(REPLY_KNOWN)]
    }

    #[test]
    fn a_node_that_has_just_started_does_not_give_partial_lists() {
        let (first, second) = (Sessions::new(1), Sessions::new(2));
        first.heartbeat(&channel(1), (Language::Java, 479), consumer("a", "t"));
        assert_eq!(first.members("g"), None, "nobody is known yet");
        first.others.set(vec![2]).unwrap();
        assert_eq!(first.members("g"), None, "node 2 was not heard yet");
        second.heartbeat(&channel(1), (Language::Cpp, 333), consumer("b", "t"));
        assert!(tell((2, &second), &first, None));
        assert_eq!(
            first.members("g"),
            Some(vec!["a".to_string(), "b".to_string()])
        );
        second.others.set(vec![1]).unwrap();
        assert_eq!(second.members("g"), None);
        let learned = second.started + LEARNING;
        assert!(!second.knows_all(&second.lock(), learned - Duration::from_millis(1)));
        assert!(
            second.knows_all(&second.lock(), learned),
            "it waited long enough"
        );
    }

    #[test]
    fn a_sign_of_life_is_enough_for_who_has_the_table() {
        let (first, second) = (Sessions::new(1), Sessions::new(2));
        second.heartbeat(&channel(1), (Language::Java, 479), consumer("b", "t"));
        let version = second.message(7, None).0;
        assert!(
            !tell((2, &second), &first, Some(version)),
            "it does not have the table"
        );
        assert!(tell((2, &second), &first, None));
        assert!(tell((2, &second), &first, Some(version)));
        assert_eq!(first.subscription("g", "t").unwrap().topic, "t");
        assert_eq!(first.subscription("g", "other"), None);
    }

    #[test]
    fn damaged_messages_are_refused() {
        let sessions = Sessions::new(1);
        let (_, body) = sessions.message(7, None);
        for length in 0..body.len() {
            assert!(
                sessions.merge(2, &body[..length]).is_err(),
                "{length} bytes"
            );
        }
        let mut unknown_kind = body.to_vec();
        unknown_kind[16] = 9;
        assert!(sessions.merge(2, &unknown_kind).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_too_early_is_answered_when_its_heartbeat_has_come() {
        let sessions = Sessions::new(1);
        let (member, stranger) = (channel(1), channel(2));
        let (began, moment) = (Instant::now(), Duration::from_millis(50));
        let hearing = async {
            sleep(moment).await;
            sessions.heartbeat(&member, (Language::Java, 479), consumer("a", "t"));
        };
        tokio::join!(sessions.until_member(&member, "g"), hearing);
        assert_eq!(began.elapsed(), moment);
        sessions.until_member(&member, "g").await;
        assert_eq!(began.elapsed(), moment, "it is known");
        sessions.until_member(&stranger, "g").await;
        assert_eq!(began.elapsed(), moment + ASKER_WAIT);
    }

    #[test]
    fn members_are_told_once_of_a_change() {
        let sessions = Sessions::new(1);
        let member = channel(1);
        sessions.heartbeat(&member, (Language::Java, 479), consumer("a", "t"));
        let channels = sessions.lock().channels_to_notify("g", Instant::now());
        assert_eq!(channels.len(), 1);
        let asked = std::cell::Cell::new(0);
        for _ in 0..2 {
            sessions.notify_members(|group| {
                asked.set(asked.get() + 1);
                group == "g"
            });
        }
        assert_eq!(asked.get(), 1);
    }
}
