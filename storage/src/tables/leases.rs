//! Messages that were handed out to a consumer group and are not acknowledged yet.
//!
//! A group that pops has, for each queue, its ordinary consumer offset, which is the next offset to be
//! handed out, and leases on offsets below it. A lease ends when it is acknowledged or when the message
//! has become another one of the retry topic, by a command each: what has ended never ends again, whoever
//! leads.
//!
//! ```text
//!        leases (in any order)        consumer offset
//!   done   L   done   L   L   done  |  not handed out yet ...
//! ```
//!
//! A group that consumes in order has one [`OrderBatch`] per queue instead, and its consumer offset stays
//! at the first message of it that is not acknowledged.
//!
//! Bounded: [`LEASES_PER_QUEUE_MAX`] for a group in a queue, [`LEASES_MAX`] in all; who is at the bound
//! gets nothing more until something is acknowledged.

mod order;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::position::QueueOffset;
use crate::queue_offsets::QueueKey;

pub use order::{OrderBatch, OrderEntry};

/// Most leases that a consumer group has in one queue.
pub const LEASES_PER_QUEUE_MAX: usize = 10_000;
/// Most leases of a group of brokers. Each takes 24 bytes of a checkpoint and about 150 of memory.
pub const LEASES_MAX: usize = 400_000;

/// A message that was handed out. Times are the log's, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// When it was handed out or its time was changed: tells this lease from earlier ones of the same
    /// message.
    pub pop_ms: u64,
    /// From when on it is handed out again.
    pub visible_ms: u64,
}

/// One lease, as whoever has it names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseName {
    /// The queue.
    pub key: QueueKey,
    /// The message in it.
    pub offset: QueueOffset,
    /// When it was handed out.
    pub pop_ms: u64,
}

/// A lease whose time has passed, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueLease {
    /// Who had the message.
    pub group: Arc<str>,
    /// The lease.
    pub name: LeaseName,
    /// From when on the message is handed out again.
    pub visible_ms: u64,
}

/// Leases of a group in a queue.
///
/// Invariant: never empty where it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct QueueLeases {
    in_flight: BTreeMap<QueueOffset, Lease>,
    order: Option<OrderBatch>,
}

impl QueueLeases {
    fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.order.is_none()
    }
}

type Groups = BTreeMap<Arc<str>, BTreeMap<QueueKey, QueueLeases>>;
/// Ordered by time: from when on, whose, which.
type Due = (u64, Arc<str>, QueueKey, QueueOffset);

/// All leases.
///
/// Invariants: `due` holds each lease in `in_flight` of a queue, once, and nothing else; no map in
/// `groups` is empty, so that equal contents have equal bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leases {
    groups: Groups,
    due: BTreeSet<Due>,
}

impl Serialize for Leases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.groups.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Leases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let groups = Groups::deserialize(deserializer)?;
        let mut due = BTreeSet::new();
        for (group, queues) in &groups {
            for (key, leases) in queues {
                let of_queue = leases.in_flight.iter();
                due.extend(
                    of_queue.map(|(at, lease)| (lease.visible_ms, group.clone(), *key, *at)),
                );
            }
        }
        Ok(Self { groups, due })
    }
}

impl Leases {
    /// How many messages are handed out, not counting those of groups that consume in order.
    pub fn count(&self) -> usize {
        self.due.len()
    }

    /// How many messages of a queue a group has.
    pub fn in_flight(&self, group: &str, key: QueueKey) -> usize {
        let Some(leases) = self.of_queue(group, key) else {
            return 0;
        };
        let ordered = leases.order.as_ref().map_or(0, OrderBatch::open_count);
        leases.in_flight.len() + ordered
    }

    /// Names of the groups that have messages; ordered.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(|group| &**group)
    }

    /// How many messages a group has, over all queues.
    pub fn held_by(&self, group: &str) -> usize {
        let queues = self.groups.get(group).into_iter().flat_map(BTreeMap::keys);
        queues.map(|key| self.in_flight(group, *key)).sum()
    }

    /// From where to where messages of a queue are handed out to a group that is at `position`: the first
    /// one that is not acknowledged, and the next one that nobody has.
    pub fn span(
        &self,
        group: &str,
        key: QueueKey,
        position: QueueOffset,
    ) -> (QueueOffset, QueueOffset) {
        let leases = self.of_queue(group, key);
        let first = leases.and_then(|leases| leases.in_flight.keys().next().copied());
        let ordered = leases.and_then(|leases| leases.order.as_ref());
        let ordered = ordered.filter(|batch| batch.position() == position);
        let next = ordered.map_or(position, |batch| batch.next);
        (first.map_or(position, |first| first.min(position)), next)
    }

    /// How many more messages of a queue may be handed out to a group.
    pub fn room(&self, group: &str, key: QueueKey) -> usize {
        let own = self.of_queue(group, key);
        let own = own.map_or(0, |leases| leases.in_flight.len());
        let in_queue = LEASES_PER_QUEUE_MAX.saturating_sub(own);
        in_queue.min(LEASES_MAX.saturating_sub(self.count()))
    }

    /// The lease on a message.
    pub fn get(&self, group: &str, key: QueueKey, offset: QueueOffset) -> Option<Lease> {
        self.of_queue(group, key)?.in_flight.get(&offset).copied()
    }

    /// What a group that consumes in order has of a queue.
    pub fn order(&self, group: &str, key: QueueKey) -> Option<&OrderBatch> {
        self.of_queue(group, key)?.order.as_ref()
    }

    /// When the first lease ends; milliseconds of the log's clock.
    pub fn first_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(visible_ms, ..)| *visible_ms)
    }

    /// Leases in the order in which they end.
    pub fn due(&self) -> impl Iterator<Item = DueLease> {
        self.due.iter().map(|(visible_ms, group, key, offset)| {
            let lease = self.get(group, *key, *offset);
            let pop_ms = lease.expect("what is due is in flight").pop_ms;
            let (key, offset) = (*key, *offset);
            DueLease {
                group: group.clone(),
                name: LeaseName {
                    key,
                    offset,
                    pop_ms,
                },
                visible_ms: *visible_ms,
            }
        })
    }

    /// Hands messages out, in place of earlier leases on them.
    pub(super) fn grant(
        &mut self,
        group: &str,
        key: QueueKey,
        offsets: &[QueueOffset],
        lease: Lease,
    ) {
        if offsets.is_empty() {
            return;
        }
        let (group, leases) = self.entry(group, key);
        let mut replaced = Vec::new();
        for offset in offsets {
            let before = leases.in_flight.insert(*offset, lease);
            replaced.extend(before.map(|lease| (lease.visible_ms, *offset)));
        }
        for (visible_ms, offset) in replaced {
            self.due.remove(&(visible_ms, group.clone(), key, offset));
        }
        let new = |offset: &QueueOffset| (lease.visible_ms, group.clone(), key, *offset);
        self.due.extend(offsets.iter().map(new));
    }

    /// Ends a lease; false if there is none of that name.
    pub(super) fn end(&mut self, group: &str, name: LeaseName) -> bool {
        let Some((stored, queues)) = find(&mut self.groups, group) else {
            return false;
        };
        let Some(leases) = queues.get_mut(&name.key) else {
            return false;
        };
        let found = leases.in_flight.get(&name.offset).copied();
        let Some(lease) = found.filter(|lease| lease.pop_ms == name.pop_ms) else {
            return false;
        };
        leases.in_flight.remove(&name.offset);
        let due = (lease.visible_ms, stored, name.key, name.offset);
        assert!(self.due.remove(&due), "{due:?} is in flight and not due");
        self.drop_if_empty(group, name.key);
        true
    }

    /// Gives a lease another time, and another name; false if there is none of the old name.
    pub(super) fn change(&mut self, group: &str, name: LeaseName, lease: Lease) -> bool {
        let is_known = self.end(group, name);
        if is_known {
            self.grant(group, name.key, &[name.offset], lease);
        }
        is_known
    }

    /// The messages of a queue that are handed out in order; replaces those that were.
    pub(super) fn set_order(&mut self, group: &str, key: QueueKey, batch: Option<OrderBatch>) {
        if batch.is_some() || self.of_queue(group, key).is_some() {
            self.entry(group, key).1.order = batch;
            self.drop_if_empty(group, key);
        }
    }

    /// The time of all leases is over. Nothing right does this (`planted`).
    pub(super) fn end_all(&mut self) {
        let due: Vec<DueLease> = self.due().collect();
        for DueLease { group, name, .. } in due {
            let lease = Lease {
                pop_ms: name.pop_ms,
                visible_ms: 0,
            };
            self.change(&group, name, lease);
        }
    }

    pub(super) fn order_mut(&mut self, group: &str, key: QueueKey) -> Option<&mut OrderBatch> {
        self.groups.get_mut(group)?.get_mut(&key)?.order.as_mut()
    }

    pub(super) fn remove_group(&mut self, group: &str) {
        self.groups.remove(group);
        self.due.retain(|(_, of, ..)| **of != *group);
    }

    pub(super) fn remove_topic(&mut self, topic_id: u32) {
        for queues in self.groups.values_mut() {
            queues.retain(|key, _| key.topic_id != topic_id);
        }
        self.groups.retain(|_, queues| !queues.is_empty());
        self.due.retain(|(_, _, key, _)| key.topic_id != topic_id);
    }

    fn of_queue(&self, group: &str, key: QueueKey) -> Option<&QueueLeases> {
        self.groups.get(group)?.get(&key)
    }

    fn entry(&mut self, group: &str, key: QueueKey) -> (Arc<str>, &mut QueueLeases) {
        let known = self.groups.get_key_value(group);
        let name = known.map_or_else(|| Arc::from(group), |(name, _)| name.clone());
        let queues = self.groups.entry(name.clone()).or_default();
        (name, queues.entry(key).or_default())
    }

    fn drop_if_empty(&mut self, group: &str, key: QueueKey) {
        let Some(queues) = self.groups.get_mut(group) else {
            return;
        };
        if queues.get(&key).is_some_and(QueueLeases::is_empty) {
            queues.remove(&key);
        }
        if queues.is_empty() {
            self.groups.remove(group);
        }
    }
}

/// A group's queues with the stored name of the group.
fn find<'a>(
    groups: &'a mut Groups,
    group: &str,
) -> Option<(Arc<str>, &'a mut BTreeMap<QueueKey, QueueLeases>)> {
    let stored = groups.get_key_value(group)?.0.clone();
    let queues = groups.get_mut(group)?;
    Some((stored, queues))
}
