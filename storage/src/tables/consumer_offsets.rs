//! Where consumer groups are in the queues that they read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::command::OffsetCommit;
use crate::position::QueueOffset;

type ByQueue = BTreeMap<u16, QueueOffset>;

/// Next offset to read per group, topic and queue.
///
/// Invariant: no empty map inside, so that equal contents have equal bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConsumerOffsets {
    groups: BTreeMap<String, BTreeMap<String, ByQueue>>,
}

impl ConsumerOffsets {
    /// Stores a position; with `advance_only` not one that lies further back.
    pub(super) fn commit(&mut self, entry: OffsetCommit, advance_only: bool) {
        let topics = self.groups.entry(entry.group).or_default();
        let queues = topics.entry(entry.topic).or_default();
        let stored = queues.entry(entry.queue).or_insert(entry.offset);
        if !advance_only || entry.offset > *stored {
            *stored = entry.offset;
        }
    }

    pub(super) fn get(&self, group: &str, topic: &str, queue: u16) -> Option<QueueOffset> {
        self.groups.get(group)?.get(topic)?.get(&queue).copied()
    }

    /// Positions of one group: topic, queue, offset; ordered.
    pub(super) fn of_group(&self, group: &str) -> impl Iterator<Item = (&str, u16, QueueOffset)> {
        self.groups
            .get(group)
            .into_iter()
            .flatten()
            .flat_map(|(topic, queues)| {
                queues
                    .iter()
                    .map(move |(queue, offset)| (topic.as_str(), *queue, *offset))
            })
    }

    /// Names of the groups that have a position in `topic`; ordered.
    pub(super) fn groups_of(&self, topic: &str) -> impl Iterator<Item = &str> {
        let reading = self
            .groups
            .iter()
            .filter(move |(_, topics)| topics.contains_key(topic));
        reading.map(|(group, _)| group.as_str())
    }

    /// Forgets one position.
    pub(super) fn remove(&mut self, group: &str, topic: &str, queue: u16) {
        let Some(topics) = self.groups.get_mut(group) else {
            return;
        };
        if let Some(queues) = topics.get_mut(topic) {
            queues.remove(&queue);
            if queues.is_empty() {
                topics.remove(topic);
            }
        }
        if topics.is_empty() {
            self.groups.remove(group);
        }
    }

    pub(super) fn remove_group(&mut self, group: &str) {
        self.groups.remove(group);
    }

    pub(super) fn remove_topic(&mut self, topic: &str) {
        self.groups.retain(|_, topics| {
            topics.remove(topic);
            !topics.is_empty()
        });
    }
}
