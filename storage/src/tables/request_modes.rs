//! How groups ask for the messages of a topic, where somebody has decided that for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a group asks for the messages of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RequestMode {
    /// It pops; otherwise it pulls.
    pub pops: bool,
    /// How many queues each member pops, of those that are not its own by a fair share; 0 or less: any queue.
    pub share_queues: i32,
}

/// Modes by topic and group, both by name. Only what was set; everything else pulls.
///
/// Invariant: no empty map inside, so that equal contents have equal bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestModes {
    topics: BTreeMap<String, BTreeMap<String, RequestMode>>,
}

impl RequestModes {
    /// The mode of a group in a topic, if it was set.
    pub fn get(&self, topic: &str, group: &str) -> Option<RequestMode> {
        self.topics.get(topic)?.get(group).copied()
    }

    /// All that were set, ordered: topic, group, mode.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, RequestMode)> {
        self.topics.iter().flat_map(|(topic, groups)| {
            let of_topic = groups.iter();
            of_topic.map(move |(group, mode)| (topic.as_str(), group.as_str(), *mode))
        })
    }

    pub(super) fn set(&mut self, topic: String, group: String, mode: RequestMode) {
        self.topics.entry(topic).or_default().insert(group, mode);
    }

    pub(super) fn remove_group(&mut self, group: &str) {
        self.topics.retain(|_, groups| {
            groups.remove(group);
            !groups.is_empty()
        });
    }

    pub(super) fn remove_topic(&mut self, topic: &str) {
        self.topics.remove(topic);
    }
}
