//! What a command does to the tables.

mod pop;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::command::{Command, CommandResult, OffsetCommit};
use super::{
    ConsumerOffsets, Groups, KeyValues, Leases, Locks, Parked, RecentSends, RequestModes,
    SubscriptionGroupConfig, Topic, Topics,
};
use crate::planted::{Bug, planted};
use crate::position::{PhysicalOffset, QueueOffset};

/// All tables as of one record of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tables {
    clock_ms: u64,
    topics: Topics,
    groups: Groups,
    offsets: ConsumerOffsets,
    locks: Locks,
    values: KeyValues,
    /// Stored by itself, behind everything else: see `checkpoint`.
    #[serde(skip)]
    parked: Parked,
    /// Encoded apart, like the next one: checkpoints of older versions end before them.
    #[serde(skip)]
    leases: Leases,
    #[serde(skip)]
    request_modes: RequestModes,
    /// Where groups were moved to and do not read from yet. Encoded apart, too.
    #[serde(skip)]
    resets: ConsumerOffsets,
    /// Encoded apart, too.
    #[serde(skip)]
    recent_sends: RecentSends,
}

impl Tables {
    /// The log's clock: the greatest store time applied so far; milliseconds since 1970.
    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.by_name(name).cloned()
    }

    /// A topic by id.
    pub fn topic_by_id(&self, id: u32) -> Option<Arc<Topic>> {
        self.topics.by_id(id).cloned()
    }

    /// All topics, ordered by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.iter()
    }

    /// A consumer group by name.
    pub fn group(&self, name: &str) -> Option<Arc<SubscriptionGroupConfig>> {
        self.groups.get(name).cloned()
    }

    /// All consumer groups with settings, ordered by name.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<SubscriptionGroupConfig>> {
        self.groups.iter()
    }

    /// Next offset that `group` wants to read.
    pub fn consumer_offset(&self, group: &str, topic: &str, queue: u16) -> Option<QueueOffset> {
        self.offsets.get(group, topic, queue)
    }

    /// Where `group` was moved to, as long as it does not read from there.
    pub fn pending_reset(&self, group: &str, topic: &str, queue: u16) -> Option<QueueOffset> {
        self.resets.get(group, topic, queue)
    }

    /// All positions of `group`: topic, queue, offset; ordered.
    pub fn offsets_of(&self, group: &str) -> impl Iterator<Item = (&str, u16, QueueOffset)> {
        self.offsets.of_group(group)
    }

    /// Names of the groups that have a position in `topic`; ordered.
    pub fn groups_with_offsets_in(&self, topic: &str) -> impl Iterator<Item = &str> {
        self.offsets.groups_of(topic)
    }

    /// A stored value.
    pub fn kv(&self, namespace: &str, key: &str) -> Option<&str> {
        self.values.get(namespace, key)
    }

    /// Keys and values of a namespace, ordered.
    pub fn kv_namespace(&self, namespace: &str) -> impl Iterator<Item = (&str, &str)> {
        self.values.of_namespace(namespace)
    }

    /// Messages that are handed out.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// How groups ask for messages.
    pub fn request_modes(&self) -> &RequestModes {
        &self.request_modes
    }

    /// The same tables with what was encoded apart.
    pub(crate) fn with_pops(mut self, leases: Leases, request_modes: RequestModes) -> Self {
        self.leases = leases;
        self.request_modes = request_modes;
        self
    }

    /// Who has a queue for itself, by the log's clock.
    pub fn lock_owner(&self, group: &str, topic: &str, queue: u16) -> Option<&str> {
        let lease = self.locks.get(group, topic, queue)?;
        (lease.expires_ms > self.clock_ms).then_some(lease.owner.as_str())
    }

    /// Whether a member of `group` has any queue for itself, by the log's clock.
    pub fn is_locked(&self, group: &str) -> bool {
        self.locks.has_unexpired(group, self.clock_ms)
    }

    /// What waits in the log.
    pub fn parked(&self) -> &Parked {
        &self.parked
    }

    /// For whoever applies messages and restores checkpoints.
    pub(crate) fn parked_mut(&mut self) -> &mut Parked {
        &mut self.parked
    }

    /// What was sent lately to topics that keep one copy of a message.
    pub fn recent_sends(&self) -> &RecentSends {
        &self.recent_sends
    }

    /// For whoever applies messages and restores checkpoints.
    pub(crate) fn recent_sends_mut(&mut self) -> &mut RecentSends {
        &mut self.recent_sends
    }

    /// Where groups were moved to and do not read from yet.
    pub(crate) fn resets(&self) -> &ConsumerOffsets {
        &self.resets
    }

    /// For whoever restores checkpoints.
    pub(crate) fn resets_mut(&mut self) -> &mut ConsumerOffsets {
        &mut self.resets
    }

    /// How many queues a topic has; `None` if there is no such topic.
    pub(crate) fn queues_of(&self, topic_id: u32) -> Option<u16> {
        self.topics.by_id(topic_id).map(|topic| topic.queues())
    }

    /// Moves the clock to `store_time_ms`, but never back.
    pub(crate) fn advance_clock(&mut self, store_time_ms: u64) {
        self.clock_ms = self.clock_ms.max(store_time_ms);
        self.recent_sends.expire(self.clock_ms);
    }

    /// Carries out one command. The second value is the id of a topic whose queues are gone now.
    pub(crate) fn apply(&mut self, command: Command) -> (CommandResult, Option<u32>) {
        let mut topic_gone = None;
        match command {
            Command::PutTopic { config } => {
                let put = self.topics.put(config);
                return (
                    put.map_or_else(CommandResult::Refused, CommandResult::TopicId),
                    None,
                );
            }
            Command::CreateTopic { config } => {
                let known = self.topics.by_name(&config.name).map(|topic| topic.id);
                let id = known.map_or_else(|| self.topics.put(config), Ok);
                let result = id.map_or_else(CommandResult::Refused, CommandResult::TopicId);
                return (result, None);
            }
            Command::CreateGroup { config } if self.group(&config.name).is_some() => {}
            Command::CreateGroup { config } | Command::PutGroup { config } => {
                if let Err(reason) = self.groups.put(config) {
                    return (CommandResult::Refused(reason), None);
                }
            }
            Command::LockQueues {
                group,
                client,
                queues,
            } => {
                let granted = self.locks.lock(group, &client, queues, self.clock_ms);
                return (CommandResult::Locked(granted), None);
            }
            Command::DeleteTopic { name } => topic_gone = self.delete_topic(&name),
            Command::DeleteGroup {
                name,
                clean_offsets,
            } => self.delete_group(&name, clean_offsets),
            Command::CommitOffsets {
                entries,
                advance_only,
            } => {
                self.commit_offsets(entries, advance_only);
            }
            Command::UnlockQueues {
                group,
                client,
                queues,
            } => {
                self.locks.unlock(&group, &client, &queues);
            }
            Command::PutKv {
                namespace,
                key,
                value,
            } => self.values.put(namespace, key, value),
            Command::DeleteKv { namespace, key } => self.values.remove(&namespace, &key),
            Command::TermStart => self.begin_term(),
            Command::Unpark { places } => return (self.unpark(places), None),
            Command::HalvesChecked { next } => {
                for (half, next_ms) in next {
                    self.parked.checked(half, next_ms);
                }
            }
            Command::ResetOffsets { entries } => self.reset_offsets(entries),
            Command::ConfirmReset { entry } => self.confirm_reset(&entry),
            Command::StoreOnce { .. } => {}
            popping => return (self.apply_pop(popping), None),
        }
        (CommandResult::Done, topic_gone)
    }

    fn begin_term(&mut self) {
        if planted(Bug::HalfVisible) {
            self.parked.deliver_halves();
        }
        if planted(Bug::LeasesEndWithTerm) {
            self.leases.end_all();
        }
        if planted(Bug::LocksForgotten) {
            self.locks = Locks::default();
        }
        if planted(Bug::CopyStored) {
            self.recent_sends = RecentSends::default();
        }
        self.locks.renew_all(self.clock_ms);
    }

    /// Messages that wait become nothing: sent again, they are new ones.
    fn unpark(&mut self, places: Vec<PhysicalOffset>) -> CommandResult {
        let mut resolved = 0;
        for place in places {
            self.recent_sends.forget(place);
            resolved += u64::from(self.parked.resolve(place));
        }
        CommandResult::Resolved(resolved)
    }

    fn commit_offsets(&mut self, entries: Vec<OffsetCommit>, advance_only: bool) {
        for entry in entries {
            let is_reset = self
                .pending_reset(&entry.group, &entry.topic, entry.queue)
                .is_some();
            if !is_reset && self.topics.by_name(&entry.topic).is_some() {
                self.offsets.commit(entry, advance_only);
            }
        }
    }

    fn reset_offsets(&mut self, entries: Vec<OffsetCommit>) {
        for entry in entries {
            if self.topics.by_name(&entry.topic).is_some() {
                self.resets.commit(entry.clone(), false);
                self.offsets.commit(entry, false);
            }
        }
    }

    fn confirm_reset(&mut self, entry: &OffsetCommit) {
        if self.pending_reset(&entry.group, &entry.topic, entry.queue) == Some(entry.offset) {
            self.resets.remove(&entry.group, &entry.topic, entry.queue);
        }
    }

    fn delete_topic(&mut self, name: &str) -> Option<u32> {
        let topic = self.topics.remove(name)?;
        self.offsets.remove_topic(name);
        self.resets.remove_topic(name);
        self.locks.remove_topic(name);
        self.leases.remove_topic(topic.id);
        self.request_modes.remove_topic(name);
        Some(topic.id)
    }

    fn delete_group(&mut self, name: &str, clean_offsets: bool) {
        self.groups.remove(name);
        self.locks.remove_group(name);
        self.leases.remove_group(name);
        self.request_modes.remove_group(name);
        self.resets.remove_group(name);
        if clean_offsets {
            self.offsets.remove_group(name);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{LOCK_LEASE_MS, SubscriptionGroupConfig, TopicConfig};
    use super::*;

    fn with_topic() -> Tables {
        let mut tables = Tables::default();
        tables.apply(Command::PutTopic {
            config: TopicConfig::new("T", 2),
        });
        tables
    }

    #[test]
    fn creating_what_exists_changes_nothing() {
        let mut tables = with_topic();
        let config = TopicConfig::new("T", 8);
        let created = tables.apply(Command::CreateTopic { config }).0;
        assert_eq!(created, CommandResult::TopicId(0));
        assert_eq!(tables.topic("T").unwrap().queues(), 2);
        let group = |retries| SubscriptionGroupConfig {
            retry_max_times: retries,
            ..SubscriptionGroupConfig::new("G")
        };
        for retries in [3, 9] {
            let config = group(retries);
            let done = tables.apply(Command::CreateGroup { config }).0;
            assert_eq!(done, CommandResult::Done);
        }
        assert_eq!(tables.group("G").unwrap().retry_max_times, 3);
    }

    fn commit(tables: &mut Tables, topic: &str, offset: u64, advance_only: bool) {
        let entry = OffsetCommit {
            group: "G".into(),
            topic: topic.into(),
            queue: 1,
            offset: QueueOffset::new(offset),
        };
        tables.apply(Command::CommitOffsets {
            entries: vec![entry],
            advance_only,
        });
    }

    fn lock(tables: &mut Tables, client: &str, queues: &[u16]) -> Vec<u16> {
        let queues = queues
            .iter()
            .map(|queue| ("T".to_owned(), *queue))
            .collect();
        let (group, client) = ("G".to_owned(), client.to_owned());
        match tables
            .apply(Command::LockQueues {
                group,
                client,
                queues,
            })
            .0
        {
            CommandResult::Locked(granted) => granted.into_iter().map(|(_, queue)| queue).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn offsets_overwrite_unless_told_to_advance_only() {
        let mut tables = with_topic();
        commit(&mut tables, "T", 9, true);
        commit(&mut tables, "T", 5, true);
        assert_eq!(
            tables.consumer_offset("G", "T", 1),
            Some(QueueOffset::new(9))
        );
        commit(&mut tables, "T", 5, false);
        assert_eq!(
            tables.consumer_offset("G", "T", 1),
            Some(QueueOffset::new(5))
        );
        assert_eq!(
            tables.groups_with_offsets_in("T").collect::<Vec<_>>(),
            ["G"]
        );
        commit(&mut tables, "unknown", 5, false);
        assert_eq!(
            tables.offsets_of("G").count(),
            1,
            "no offset for a topic that is not there"
        );
    }

    fn entry(queue: u16, offset: u64) -> OffsetCommit {
        OffsetCommit {
            group: "G".into(),
            topic: "T".into(),
            queue,
            offset: QueueOffset::new(offset),
        }
    }

    fn reset(tables: &mut Tables, offset: u64) {
        let entries = vec![entry(1, offset)];
        tables.apply(Command::ResetOffsets { entries });
    }

    #[test]
    fn a_reset_stands_against_commits_until_it_is_confirmed() {
        let mut tables = with_topic();
        commit(&mut tables, "T", 9, false);
        let before = tables.clone();
        reset(&mut tables, 2);
        commit(&mut tables, "T", 10, false);
        let offset = |tables: &Tables| tables.consumer_offset("G", "T", 1);
        assert_eq!(offset(&tables), Some(QueueOffset::new(2)), "10 is ignored");
        reset(&mut tables, 4);
        let (old, new) = (entry(1, 2), entry(1, 4));
        tables.apply(Command::ConfirmReset { entry: old });
        assert!(tables.pending_reset("G", "T", 1).is_some(), "moved since");
        tables.apply(Command::ConfirmReset { entry: new });
        commit(&mut tables, "T", 9, false);
        assert_eq!(tables, before, "no trace is left");
    }

    #[test]
    fn a_reset_goes_with_its_topic_and_its_group() {
        let mut tables = with_topic();
        reset(&mut tables, 2);
        tables.apply(Command::DeleteGroup {
            name: "G".into(),
            clean_offsets: true,
        });
        assert_eq!(tables, with_topic());
        reset(&mut tables, 2);
        tables.apply(Command::DeleteTopic { name: "T".into() });
        assert_eq!(tables.pending_reset("G", "T", 1), None);
        reset(&mut tables, 2);
        let pending = tables.pending_reset("G", "T", 1);
        assert_eq!(pending, None, "there is no such topic");
    }

    #[test]
    fn deleting_a_topic_takes_offsets_and_locks_with_it() {
        let mut tables = with_topic();
        let clean = tables.clone();
        commit(&mut tables, "T", 9, false);
        lock(&mut tables, "c", &[0]);
        let id = tables.topic("T").unwrap().id;
        let (_, gone) = tables.apply(Command::DeleteTopic { name: "T".into() });
        assert_eq!(gone, Some(id));
        assert_eq!(
            (&tables.offsets, &tables.locks),
            (&clean.offsets, &clean.locks)
        );
        assert!(tables.topic_by_id(id).is_none());
    }

    #[test]
    fn a_group_may_be_deleted_with_or_without_its_offsets() {
        let mut tables = with_topic();
        tables.apply(Command::PutGroup {
            config: SubscriptionGroupConfig::new("G"),
        });
        commit(&mut tables, "T", 9, false);
        tables.apply(Command::DeleteGroup {
            name: "G".into(),
            clean_offsets: false,
        });
        assert!(tables.group("G").is_none());
        assert!(tables.consumer_offset("G", "T", 1).is_some());
        tables.apply(Command::DeleteGroup {
            name: "G".into(),
            clean_offsets: true,
        });
        assert!(tables.consumer_offset("G", "T", 1).is_none());
    }

    #[test]
    fn a_lock_excludes_others_until_it_expires_or_is_given_up() {
        let mut tables = with_topic();
        tables.advance_clock(1_000);
        assert_eq!(lock(&mut tables, "a", &[0, 1]), [0, 1]);
        assert_eq!(lock(&mut tables, "b", &[0]), [0; 0]);
        assert_eq!(lock(&mut tables, "a", &[0]), [0], "renewed");
        let (group, client) = ("G".to_owned(), "b".to_owned());
        let queues = vec![("T".to_owned(), 0)];
        tables.apply(Command::UnlockQueues {
            group,
            client,
            queues,
        });
        assert_eq!(
            tables.lock_owner("G", "T", 0),
            Some("a"),
            "not b's to give up"
        );
        tables.advance_clock(1_000 + LOCK_LEASE_MS);
        tables.advance_clock(5);
        assert_eq!(
            tables.lock_owner("G", "T", 0),
            None,
            "the clock never goes back"
        );
        assert_eq!(lock(&mut tables, "b", &[0]), [0]);
    }

    #[test]
    fn a_new_term_renews_the_locks() {
        let mut tables = with_topic();
        lock(&mut tables, "a", &[0]);
        tables.advance_clock(10 * LOCK_LEASE_MS);
        tables.apply(Command::TermStart);
        assert_eq!(lock(&mut tables, "b", &[0]), [0; 0]);
        assert_eq!(tables.lock_owner("G", "T", 0), Some("a"));
    }

    #[test]
    fn values_are_put_and_deleted() {
        let mut tables = Tables::default();
        let (namespace, key) = ("N".to_owned(), "k".to_owned());
        let (ns, k, value) = (namespace.clone(), key.clone(), "v".to_owned());
        tables.apply(Command::PutKv {
            namespace: ns,
            key: k,
            value,
        });
        assert_eq!(tables.kv("N", "k"), Some("v"));
        assert_eq!(tables.kv_namespace("N").count(), 1);
        tables.apply(Command::DeleteKv { namespace, key });
        assert_eq!(tables, Tables::default());
    }
}
