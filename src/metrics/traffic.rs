//! Messages and bytes that went in and out of a group, by topic and consumer group.
//!
//! Every send and every pull counts here, so the handles of a topic's series are kept: counting takes
//! a shared lock and one or two lookups, and allocates only for the first message.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec};
use tokio::time::Instant;

use super::families::Families;
use super::windows::{History, Reading, Recent, Span};

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
    totals: [Total; WAYS],
    group: String,
}

/// What is counted for a group as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Accepted messages.
    In,
    /// Delivered messages.
    Out,
    /// Pulls that found something; they have no bytes.
    Found,
    /// Pulls that found nothing.
    Missed,
}

const WAYS: usize = 4;

/// A count of all topics together.
struct Total {
    messages: AtomicU64,
    bytes: AtomicU64,
    calls: AtomicU64,
    histories: Mutex<(History, Recent)>,
}

impl Total {
    fn new(now: Instant) -> Self {
        Total {
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            histories: Mutex::new((History::new(now), Recent::new(now))),
        }
    }

    fn count(&self, messages: u64, bytes: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn reading(&self, at: Instant) -> Reading {
        Reading {
            at,
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
        }
    }
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
    calls: AtomicU64,
    history: Mutex<History>,
    labels: Vec<String>,
}

impl Flow {
    fn count(&self, messages: u64, bytes: u64) {
        self.messages.inc_by(messages);
        self.bytes.inc_by(bytes);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn reading(&self, at: Instant) -> Reading {
        Reading {
            at,
            messages: self.messages.get(),
            bytes: self.bytes.get(),
            calls: self.calls.load(Ordering::Relaxed),
        }
    }

    fn spans(&self) -> [Span; 3] {
        let history = self.history.lock().expect(UNPOISONED);
        history.spans(&self.reading(Instant::now()))
    }

    fn read(&self, now: Instant) {
        let mut history = self.history.lock().expect(UNPOISONED);
        history.push(self.reading(now));
    }
}

impl Pair {
    fn open(&self, labels: &[&str]) -> Flow {
        Flow {
            messages: self.messages.with_label_values(labels),
            bytes: self.bytes.with_label_values(labels),
            calls: AtomicU64::new(0),
            history: Mutex::new(History::new(Instant::now())),
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
            totals: std::array::from_fn(|_| Total::new(Instant::now())),
            group: group.to_string(),
        }
    }

    /// Takes a reading of every counter, for its windows.
    pub fn read(&self) {
        let now = Instant::now();
        for flow in self.inward.read().expect(UNPOISONED).values() {
            flow.read(now);
        }
        let outward = self.outward.read().expect(UNPOISONED);
        for flow in outward.values().flat_map(HashMap::values) {
            flow.read(now);
        }
        for total in &self.totals {
            let mut histories = total.histories.lock().expect(UNPOISONED);
            let reading = total.reading(now);
            histories.0.push(reading);
            histories.1.push(reading);
        }
    }

    /// What was accepted for a topic in the last minute, hour and day; none if nothing ever was.
    pub fn accepted(&self, topic: &str) -> Option<[Span; 3]> {
        let inward = self.inward.read().expect(UNPOISONED);
        inward.get(topic).map(Flow::spans)
    }

    /// What a consumer group was given of a topic in the last minute, hour and day; none if nothing ever was.
    pub fn delivered(&self, topic: &str, consumer_group: &str) -> Option<[Span; 3]> {
        let outward = self.outward.read().expect(UNPOISONED);
        let flow = outward.get(topic)?.get(consumer_group)?;
        Some(flow.spans())
    }

    /// All topics together in the last minute, hour and day.
    pub fn all(&self, way: Way) -> [Span; 3] {
        let total = &self.totals[way as usize];
        let histories = total.histories.lock().expect(UNPOISONED);
        histories.0.spans(&total.reading(Instant::now()))
    }

    /// All topics together in about the last `time`, ten minutes at most.
    pub fn lately(&self, way: Way, time: Duration) -> Span {
        let total = &self.totals[way as usize];
        let histories = total.histories.lock().expect(UNPOISONED);
        histories.1.span(&total.reading(Instant::now()), time)
    }

    /// Messages and bytes since the process began.
    pub fn since_start(&self, way: Way) -> (u64, u64) {
        let total = self.totals[way as usize].reading(Instant::now());
        (total.messages, total.bytes)
    }

    /// Counts a pull.
    pub fn count_pull(&self, found: bool) {
        let way = if found { Way::Found } else { Way::Missed };
        self.totals[way as usize].count(1, 0);
    }

    /// Counts accepted messages.
    pub fn count_in(&self, topic: &str, is_system: bool, messages: u64, bytes: u64) {
        self.totals[Way::In as usize].count(messages, bytes);
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
        self.totals[Way::Out as usize].count(messages, bytes);
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
