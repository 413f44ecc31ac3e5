//! The metrics of one group on this node.

use std::collections::HashMap;
use std::sync::Mutex;

use gantry_protocol::ResponseCode;
use gantry_storage::commitlog::DamageStats;
use prometheus::core::{AtomicU64, GenericGauge};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::families::Families;
use super::idempotent::IdempotentMetrics;
use super::parked::ParkedMetrics;
use super::sampled::Sampled;
use super::traffic::{Traffic, flag};
use crate::error::Failure;

/// What a group counts while it works, and what it shows of itself at a scrape.
pub struct GroupMetrics {
    /// From proposing a batch until it is agreed and applied, in seconds.
    pub commit_seconds: Histogram,
    /// Applying what was agreed in one go, in seconds.
    pub apply_seconds: Histogram,
    /// One write and its sync, in seconds.
    pub flush_seconds: Histogram,
    /// Requests that this node passed on to the leader.
    pub forwarded: IntCounter,
    /// When the log was last looked at for rot; seconds since 1970.
    pub scrub_completed: Count,
    /// Messages that wait.
    pub parked: ParkedMetrics,
    /// Copies of messages that were sent before.
    pub idempotent: IdempotentMetrics,
    batch_bytes: Histogram,
    batch_messages: Histogram,
    held: IntGauge,
    held_total: IntCounter,
    refused: IntCounterVec,
    pop_acked: IntCounter,
    pop_redelivered: IntCounter,
    /// Messages in and out.
    pub traffic: Traffic,
    gauges: Gauges,
    replica_lag: Sampled,
    consumer_lag: Sampled,
    consumer_inflight: Sampled,
    elections: Followed,
    holes_found: Followed,
    holes_mended: Followed,
    scrubbed_bytes: Followed,
    group: String,
}

struct Gauges {
    term: Count,
    is_leader: Count,
    last_index: Count,
    committed_index: Count,
    applied_index: Count,
    storage_bytes: Count,
    topics: Count,
    consumer_groups: Count,
    holes: Count,
    leases: Count,
}

/// A gauge of a count.
pub type Count = GenericGauge<AtomicU64>;

/// A counter that follows one that is kept elsewhere. Locked while it is moved.
struct Followed(Mutex<IntCounter>);

impl Followed {
    fn follow(&self, value: u64) {
        let counter = self.0.lock().expect("nobody panics while counting");
        counter.inc_by(value.saturating_sub(counter.get()));
    }
}

/// The state of a group's replica at a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSample {
    /// Current term.
    pub term: u64,
    /// Whether this node leads.
    pub is_leader: bool,
    /// Index of the last record in the local log.
    pub last: u64,
    /// Index of the last record known to be agreed.
    pub committed: u64,
    /// Index of the last record applied.
    pub applied: u64,
    /// Per peer, the records that it does not have yet. Shown only while this node leads.
    pub lag: Vec<(u16, u64)>,
    /// Bytes on disk of this replica.
    pub storage_bytes: u64,
    /// Number of topics.
    pub topics: u64,
    /// Number of consumer groups.
    pub consumer_groups: u64,
    /// Consumers' lag, one item per topic and consumer group. Shown only while this node leads.
    pub consumer_lag: Vec<ConsumerLag>,
    /// Elections that this node started since the process runs.
    pub elections: u64,
    /// What is known of damage.
    pub damage: DamageStats,
    /// Messages that are handed out.
    pub leases: u64,
}

/// How far a consumer group is behind in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerLag {
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub consumer_group: String,
    /// Whether either is one of RocketMQ's own.
    pub is_system: bool,
    /// Whether the topic is the group's retry topic.
    pub is_retry: bool,
    /// Messages behind the committed offsets, over all queues of the topic in this broker group.
    pub messages: u64,
    /// Messages that are handed out by POP and not acknowledged.
    pub in_flight: u64,
}

/// A request that waits for a leader, for as long as this lives.
#[must_use = "the request counts as held until this is dropped"]
pub struct HoldGuard(IntGauge);

impl Drop for HoldGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl GroupMetrics {
    pub(super) fn new(families: &Families, group: &str) -> Self {
        let of = &families.group;
        let label = &[group];
        GroupMetrics {
            commit_seconds: of.commit_seconds.with_label_values(label),
            apply_seconds: of.apply_seconds.with_label_values(label),
            flush_seconds: of.flush_seconds.with_label_values(label),
            forwarded: of.forwarded.with_label_values(label),
            parked: ParkedMetrics::new(&families.parked, group),
            idempotent: IdempotentMetrics::new(&families.idempotent, group),
            batch_bytes: of.batch_bytes.with_label_values(label),
            batch_messages: of.batch_messages.with_label_values(label),
            held: of.held.with_label_values(label),
            held_total: of.held_total.with_label_values(label),
            refused: families.refused.clone(),
            traffic: Traffic::new(families, group),
            pop_acked: families.pops.acked.with_label_values(label),
            pop_redelivered: families.pops.redelivered.with_label_values(label),
            gauges: Gauges {
                term: of.term.with_label_values(label),
                is_leader: of.is_leader.with_label_values(label),
                last_index: of.last_index.with_label_values(label),
                committed_index: of.committed_index.with_label_values(label),
                applied_index: of.applied_index.with_label_values(label),
                storage_bytes: of.storage_bytes.with_label_values(label),
                topics: of.topics.with_label_values(label),
                consumer_groups: of.consumer_groups.with_label_values(label),
                holes: of.holes.with_label_values(label),
                leases: families.pops.leases.with_label_values(label),
            },
            replica_lag: Sampled::new(&of.replica_lag),
            consumer_lag: Sampled::new(&families.consumer_lag),
            consumer_inflight: Sampled::new(&families.consumer_inflight),
            elections: Followed(Mutex::new(of.elections.with_label_values(label))),
            holes_found: Followed(Mutex::new(of.holes_found.with_label_values(label))),
            holes_mended: Followed(Mutex::new(of.holes_mended.with_label_values(label))),
            scrubbed_bytes: Followed(Mutex::new(of.scrubbed_bytes.with_label_values(label))),
            scrub_completed: of.scrub_completed.with_label_values(label),
            group: group.to_string(),
        }
    }

    /// Counts a proposed batch. One without messages (offsets, topics) would only blur the sizes of
    /// those with, and is left out.
    pub fn batch(&self, messages: usize, bytes: usize) {
        if messages > 0 {
            self.batch_messages.observe(messages as f64);
            self.batch_bytes.observe(bytes as f64);
        }
    }

    /// Counts a request that has to wait for a leader, until the guard is dropped.
    pub fn hold(&self) -> HoldGuard {
        self.held_total.inc();
        self.held.inc();
        HoldGuard(self.held.clone())
    }

    /// Counts a request that was refused.
    pub fn refused(&self, failure: &Failure) {
        self.refused.with_label_values(&[cause(failure)]).inc();
    }

    /// Counts acknowledged messages and their bytes as stored.
    pub fn messages_in(&self, topic: &str, is_system: bool, messages: u64, bytes: u64) {
        self.traffic.count_in(topic, is_system, messages, bytes);
    }

    /// Counts messages given to a consumer. `names` are topic and consumer group, `flags` are
    /// `is_system` and `is_retry`; the flags of the first call for these names stay.
    pub fn messages_out(
        &self,
        names: (&str, &str),
        flags: (bool, bool),
        messages: u64,
        bytes: u64,
    ) {
        self.traffic.count_out(names, flags, messages, bytes);
    }

    /// Counts messages that were acknowledged in time.
    pub fn pop_acked(&self, messages: u64) {
        self.pop_acked.inc_by(messages);
    }

    /// Counts messages that come again.
    pub fn pop_redelivered(&self, messages: u64) {
        self.pop_redelivered.inc_by(messages);
    }

    /// Ends the counters of topics and consumer groups that are gone. A group that pulls without
    /// being in the table has to count as alive, or its counter begins again at every scrape.
    /// Counting waits for this: the closures answer from memory and count nothing themselves.
    pub fn retain(
        &self,
        topic_lives: impl Fn(&str) -> bool,
        consumer_group_lives: impl Fn(&str) -> bool,
    ) {
        self.traffic.retain(topic_lives, consumer_group_lives);
    }

    /// Shows this state. Lags that are not in it disappear.
    pub fn sample(&self, sample: &GroupSample) {
        let gauges = &self.gauges;
        gauges.term.set(sample.term);
        gauges.is_leader.set(u64::from(sample.is_leader));
        gauges.last_index.set(sample.last);
        gauges.committed_index.set(sample.committed);
        gauges.applied_index.set(sample.applied);
        gauges.storage_bytes.set(sample.storage_bytes);
        gauges.topics.set(sample.topics);
        gauges.consumer_groups.set(sample.consumer_groups);
        self.show_lags(sample);

        gauges.holes.set(sample.damage.holes.len() as u64);
        gauges.leases.set(sample.leases);
        self.elections.follow(sample.elections);
        self.holes_found.follow(sample.damage.found);
        self.holes_mended.follow(sample.damage.mended);
        self.scrubbed_bytes.follow(sample.damage.scrubbed_bytes);
    }

    /// Only the leader knows lags; those of a former leader would stand still for ever.
    fn show_lags(&self, sample: &GroupSample) {
        let mut replicas = HashMap::new();
        let mut consumers = HashMap::new();
        let mut in_flight = HashMap::new();
        if sample.is_leader {
            for (peer, entries) in &sample.lag {
                replicas.insert(vec![self.group.clone(), peer.to_string()], *entries);
            }
            for lag in &sample.consumer_lag {
                consumers.insert(self.lag_labels(lag), lag.messages);
                if lag.in_flight > 0 {
                    in_flight.insert(self.lag_labels(lag), lag.in_flight);
                }
            }
        }
        self.replica_lag.replace(replicas);
        self.consumer_lag.replace(consumers);
        self.consumer_inflight.replace(in_flight);
    }

    fn lag_labels(&self, lag: &ConsumerLag) -> Vec<String> {
        vec![
            self.group.clone(),
            lag.topic.clone(),
            lag.consumer_group.clone(),
            flag(lag.is_system).to_string(),
            flag(lag.is_retry).to_string(),
        ]
    }
}

/// The label of a refusal. Texts stay out: a label that clients can choose is a series per request.
fn cause(failure: &Failure) -> &'static str {
    match failure {
        Failure::NotLeader => "not_leader",
        Failure::Unsettled => "unsettled",
        Failure::NoLeader => "no_leader",
        Failure::Stopped => "stopping",
        Failure::Code(code, _) => match *code {
            ResponseCode::SYSTEM_BUSY | ResponseCode::FLOW_CONTROL => "busy",
            ResponseCode::SERVICE_NOT_AVAILABLE => "unavailable",
            ResponseCode::MESSAGE_ILLEGAL => "illegal_message",
            ResponseCode::NO_PERMISSION => "no_permission",
            ResponseCode::TOPIC_NOT_EXIST => "unknown_topic",
            ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST => "unknown_consumer_group",
            ResponseCode::REQUEST_CODE_NOT_SUPPORTED | ResponseCode::VERSION_NOT_SUPPORTED => {
                "unsupported"
            }
            ResponseCode::INVALID_PARAMETER | ResponseCode::SUBSCRIPTION_PARSE_FAILED => {
                "invalid_request"
            }
            ResponseCode::SYSTEM_ERROR => "system_error",
            _ => "other",
        },
    }
}
