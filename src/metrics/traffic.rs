//! Messages and bytes that went in and out of a group, by topic and consumer group.
//!
//! Every send and every pull counts here, so the handles of a topic's series are kept: counting takes
//! a shared lock and one or two lookups, and allocates only for the first message.

use std::collections::HashMap;
use std::sync::RwLock;

use prometheus::{IntCounter, IntCounterVec};

use super::families::Families;

/// Every message is `normal`: topics have no types yet.
const MESSAGE_TYPE: &str = "normal";

/// The traffic of one group.
pub struct Traffic {
    /// By topic.
    inward: RwLock<HashMap<String, Flow>>,
    /// By topic, then by consumer group.
    outward: RwLock<HashMap<String, HashMap<String, Flow>>>,
    inward_families: Pair,
    outward_families: Pair,
    group: String,
}

/// A family of messages and one of bytes with the same labels.
struct Pair {
    messages: IntCounterVec,
    bytes: IntCounterVec,
}

/// The two series of one set of labels.
struct Flow {
    messages: IntCounter,
    bytes: IntCounter,
    labels: Vec<String>,
}

impl Flow {
    fn count(&self, messages: u64, bytes: u64) {
        self.messages.inc_by(messages);
        self.bytes.inc_by(bytes);
    }
}

impl Pair {
    fn open(&self, labels: &[&str]) -> Flow {
        Flow {
            messages: self.messages.with_label_values(labels),
            bytes: self.bytes.with_label_values(labels),
            labels: labels.iter().map(|label| (*label).to_string()).collect(),
        }
    }

    fn close(&self, flow: &Flow) {
        for family in [&self.messages, &self.bytes] {
            family
                .remove_label_values(&flow.labels)
                .expect("a counted series is in its family");
        }
    }
}

const UNPOISONED: &str = "nobody panics while counting";

impl Traffic {
    /// The traffic of `group`, nothing yet.
    pub fn new(families: &Families, group: &str) -> Self {
        Traffic {
            inward: RwLock::default(),
            outward: RwLock::default(),
            inward_families: Pair {
                messages: families.messages_in.clone(),
                bytes: families.throughput_in.clone(),
            },
            outward_families: Pair {
                messages: families.messages_out.clone(),
                bytes: families.throughput_out.clone(),
            },
            group: group.to_string(),
        }
    }

    /// Counts accepted messages.
    pub fn count_in(&self, topic: &str, is_system: bool, messages: u64, bytes: u64) {
        if let Some(flow) = self.inward.read().expect(UNPOISONED).get(topic) {
            return flow.count(messages, bytes);
        }
        let mut inward = self.inward.write().expect(UNPOISONED);
        let labels = [&self.group, topic, MESSAGE_TYPE, flag(is_system)];
        let flow = inward.entry(topic.to_string());
        flow.or_insert_with(|| self.inward_families.open(&labels))
            .count(messages, bytes);
    }

    /// Counts delivered messages. `names` are topic and consumer group, `flags` are `is_system` and
    /// `is_retry`.
    pub fn count_out(
        &self,
        (topic, consumer_group): (&str, &str),
        (is_system, is_retry): (bool, bool),
        messages: u64,
        bytes: u64,
    ) {
        let known = self.outward.read().expect(UNPOISONED);
        if let Some(flow) = known
            .get(topic)
            .and_then(|groups| groups.get(consumer_group))
        {
            return flow.count(messages, bytes);
        }
        drop(known);
        let mut outward = self.outward.write().expect(UNPOISONED);
        let labels = [
            &self.group,
            topic,
            consumer_group,
            flag(is_system),
            flag(is_retry),
        ];
        let groups = outward.entry(topic.to_string()).or_default();
        let flow = groups.entry(consumer_group.to_string());
        flow.or_insert_with(|| self.outward_families.open(&labels))
            .count(messages, bytes);
    }

    /// Ends the series of topics and consumer groups that are gone.
    pub fn retain(
        &self,
        topic_lives: impl Fn(&str) -> bool,
        consumer_group_lives: impl Fn(&str) -> bool,
    ) {
        // A series leaves its family under the same lock that opens it: one that comes back at once
        // is a new one, never a handle that nobody exports.
        self.inward
            .write()
            .expect(UNPOISONED)
            .retain(|topic, flow| {
                let lives = topic_lives(topic);
                if !lives {
                    self.inward_families.close(flow);
                }
                lives
            });
        self.outward
            .write()
            .expect(UNPOISONED)
            .retain(|topic, groups| {
                let topic_lives = topic_lives(topic);
                groups.retain(|group, flow| {
                    let lives = topic_lives && consumer_group_lives(group);
                    if !lives {
                        self.outward_families.close(flow);
                    }
                    lives
                });
                !groups.is_empty()
            });
    }
}

/// A flag as a label's value.
pub fn flag(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}
