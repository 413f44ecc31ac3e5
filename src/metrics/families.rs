//! Every metric by name, with its help and its labels: the code's side of `docs/metrics.md`.

use prometheus::core::{AtomicU64, Collector, GenericGaugeVec};
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use super::idempotent::IdempotentFamilies;
use super::parked::ParkedFamilies;

/// A gauge of a count or a size.
pub type CountGaugeVec = GenericGaugeVec<AtomicU64>;

pub(super) const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Labels of what producers send. `node_id` is the group, as in RocketMQ the broker's name.
const IN: &[&str] = &["node_id", "topic", "message_type", "is_system"];

/// Labels of what consumers receive.
const OUT: &[&str] = &[
    "node_id",
    "topic",
    "consumer_group",
    "is_system",
    "is_retry",
];

const PRODUCER: &[&str] = &["language", "version", "protocol_type"];

const CONSUMER: &[&str] = &[
    "language",
    "version",
    "protocol_type",
    "consumer_group",
    "consume_mode",
    "is_system",
];

/// The families of one process. Fields are named after the metrics.
pub struct Families {
    pub messages_in: IntCounterVec,
    pub throughput_in: IntCounterVec,
    pub messages_out: IntCounterVec,
    pub throughput_out: IntCounterVec,
    pub consumer_lag: CountGaugeVec,
    pub consumer_inflight: CountGaugeVec,
    pub producer_connections: CountGaugeVec,
    pub consumer_connections: CountGaugeVec,
    pub connections: IntGaugeVec,
    pub refused: IntCounterVec,
    pub process: ProcessFamilies,
    pub group: GroupFamilies,
    pub parked: ParkedFamilies,
    pub idempotent: IdempotentFamilies,
    pub pops: PopFamilies,
}

/// What the process as a whole reports.
pub struct ProcessFamilies {
    pub disk_used_ratio: Gauge,
    pub resident_bytes: Gauge,
}

/// What becomes of messages that are handed out one by one.
pub struct PopFamilies {
    pub leases: CountGaugeVec,
    pub acked: IntCounterVec,
    pub redelivered: IntCounterVec,
}

/// What each group's replica reports about itself.
pub struct GroupFamilies {
    pub topics: CountGaugeVec,
    pub consumer_groups: CountGaugeVec,
    pub storage_bytes: CountGaugeVec,
    pub forwarded: IntCounterVec,
    pub held: IntGaugeVec,
    pub held_total: IntCounterVec,
    pub flush_seconds: HistogramVec,
    pub batch_bytes: HistogramVec,
    pub batch_messages: HistogramVec,
    pub term: CountGaugeVec,
    pub is_leader: CountGaugeVec,
    pub last_index: CountGaugeVec,
    pub committed_index: CountGaugeVec,
    pub applied_index: CountGaugeVec,
    pub replica_lag: CountGaugeVec,
    pub elections: IntCounterVec,
    pub holes: CountGaugeVec,
    pub holes_found: IntCounterVec,
    pub holes_mended: IntCounterVec,
    pub scrubbed_bytes: IntCounterVec,
    pub scrub_completed: CountGaugeVec,
    pub commit_seconds: HistogramVec,
    pub apply_seconds: HistogramVec,
}

impl Families {
    /// Registers everything.
    pub fn new(registry: &Registry, cluster: &str, node: u16) -> Self {
        let new = Maker { registry, cluster };
        new.build_info(node);
        Families {
            messages_in: new.counter(
                "rocketmq_messages_in_total",
                "Messages accepted, counted when acknowledged",
                IN,
            ),
            throughput_in: new.counter(
                "rocketmq_throughput_in_total",
                "Bytes of accepted messages as stored",
                IN,
            ),
            messages_out: new.counter(
                "rocketmq_messages_out_total",
                "Messages given to consumers; redelivered ones count again",
                OUT,
            ),
            throughput_out: new.counter(
                "rocketmq_throughput_out_total",
                "Bytes of messages given to consumers",
                OUT,
            ),
            consumer_lag: new.gauge(
                "rocketmq_consumer_lag_messages",
                "Messages behind the committed offset, over all queues of the topic in this group",
                OUT,
            ),
            consumer_inflight: new.gauge(
                "rocketmq_consumer_inflight_messages",
                "Messages that are handed out by POP and not acknowledged",
                OUT,
            ),
            producer_connections: new.gauge(
                "rocketmq_producer_connections",
                "Producers that send heartbeats to this node",
                PRODUCER,
            ),
            consumer_connections: new.gauge(
                "rocketmq_consumer_connections",
                "Consumers that send heartbeats to this node",
                CONSUMER,
            ),
            connections: new.up_down("gantry_connections", "Open connections", "kind"),
            refused: new.counter(
                "gantry_refused_requests_total",
                "Requests that were refused, by the reason that the client was given",
                &["cause"],
            ),
            process: ProcessFamilies::new(&new),
            group: GroupFamilies::new(&new),
            parked: ParkedFamilies::new(&new),
            idempotent: IdempotentFamilies::new(&new),
            pops: PopFamilies::new(&new),
        }
    }
}

impl ProcessFamilies {
    fn new(new: &Maker<'_>) -> Self {
        ProcessFamilies {
            disk_used_ratio: new.plain(
                "gantry_disk_used_ratio",
                "Used part of the file system that holds the data; sends are refused at 0.90",
            ),
            resident_bytes: new.plain("gantry_process_resident_bytes", "Resident memory"),
        }
    }
}

impl PopFamilies {
    fn new(new: &Maker<'_>) -> Self {
        let group: &[&str] = &["group"];
        let leases = "Messages that are handed out and not acknowledged, but for ordered groups";
        let acked = "Messages that were acknowledged in time";
        let redelivered = "Messages that nobody acknowledged in time and that come again";
        PopFamilies {
            leases: new.gauge("gantry_pop_leases", leases, group),
            acked: new.counter("gantry_pop_acked_total", acked, group),
            redelivered: new.counter("gantry_pop_redelivered_total", redelivered, group),
        }
    }
}

impl GroupFamilies {
    fn new(new: &Maker<'_>) -> Self {
        let node_id: &[&str] = &["node_id"];
        let group: &[&str] = &["group"];
        let term = "Current term";
        let is_leader = "1 where this node leads the group, else 0";
        let last_index = "Last record of the local log";
        let committed = "Last record known to be agreed";
        let applied = "Last record applied";
        let storage = "Bytes on disk of this replica";
        let forwarded = "Requests that this node passed on to the leader";
        let held = "Requests that wait for a leader now; long polls are not counted";
        let held_total = "Requests that had to wait for a leader";
        let lag = "Records that the peer does not have yet";
        let elections = "Elections that this node started";
        let holes = "Damaged parts of the log that are not mended yet";
        let found = "Damaged parts of the log that were found";
        let mended = "Damaged parts of the log that were mended from another node";
        let scrubbed = "Bytes of log that were read again to find rot";
        let completed =
            "When the whole log was last read again, in seconds since 1970; 0 = not yet";
        let flush = "One write and its sync";
        let commit = "From proposing a batch until it is agreed and applied";
        let apply = "Applying what was agreed in one go";
        let batch_bytes = "Bytes of one proposed batch";
        let batch_messages = "Messages of one proposed batch";
        // 1 KiB to 4 MiB, and 1 to 4096.
        let bytes: Vec<f64> = (10..=22).map(|power| f64::from(1 << power)).collect();
        let messages: Vec<f64> = (0..=12).map(|power| f64::from(1 << power)).collect();
        GroupFamilies {
            topics: new.gauge("rocketmq_topic_number", "Topics", node_id),
            consumer_groups: new.gauge(
                "rocketmq_consumer_group_number",
                "Consumer groups",
                node_id,
            ),
            storage_bytes: new.gauge("rocketmq_storage_size", storage, node_id),
            forwarded: new.counter("gantry_forwarded_requests_total", forwarded, group),
            held: new.up_down("gantry_held_requests", held, "group"),
            held_total: new.counter("gantry_held_requests_total", held_total, group),
            flush_seconds: new.histogram("gantry_flush_seconds", flush, SECONDS),
            batch_bytes: new.histogram("gantry_batch_bytes", batch_bytes, &bytes),
            batch_messages: new.histogram("gantry_batch_messages", batch_messages, &messages),
            term: new.gauge("gantry_raft_term", term, group),
            is_leader: new.gauge("gantry_raft_is_leader", is_leader, group),
            last_index: new.gauge("gantry_raft_last_index", last_index, group),
            committed_index: new.gauge("gantry_raft_committed_index", committed, group),
            applied_index: new.gauge("gantry_raft_applied_index", applied, group),
            replica_lag: new.gauge("gantry_replica_lag_entries", lag, &["group", "peer"]),
            elections: new.counter("gantry_elections_total", elections, group),
            holes: new.gauge("gantry_log_holes", holes, group),
            holes_found: new.counter("gantry_log_holes_found_total", found, group),
            holes_mended: new.counter("gantry_log_holes_mended_total", mended, group),
            scrubbed_bytes: new.counter("gantry_scrubbed_bytes_total", scrubbed, group),
            scrub_completed: new.gauge("gantry_scrub_completed_seconds", completed, group),
            commit_seconds: new.histogram("gantry_commit_seconds", commit, SECONDS),
            apply_seconds: new.histogram("gantry_apply_seconds", apply, SECONDS),
        }
    }
}

/// Makes families and registers them.
pub(super) struct Maker<'a> {
    registry: &'a Registry,
    cluster: &'a str,
}

impl Maker<'_> {
    /// RocketMQ's metrics say on every series which cluster they come from; ours leave that to
    /// Prometheus, which labels what it scrapes.
    fn opts(&self, name: &str, help: &str) -> Opts {
        let opts = Opts::new(name, help);
        if !name.starts_with("rocketmq_") {
            return opts;
        }
        opts.const_label("cluster", self.cluster)
            .const_label("node_type", "broker")
    }

    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let family = made.expect("names, labels and buckets are valid constants");
        let registered = self.registry.register(Box::new(family.clone()));
        registered.expect("each name is made once");
        family
    }

    pub(super) fn counter(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(self.opts(name, help), labels))
    }

    pub(super) fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> CountGaugeVec {
        self.register(CountGaugeVec::new(self.opts(name, help), labels))
    }

    /// A gauge that is moved where things happen, not set at the scrape.
    fn up_down(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        self.register(IntGaugeVec::new(self.opts(name, help), &[label]))
    }

    fn plain(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::with_opts(self.opts(name, help)))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, &["group"]))
    }

    fn build_info(&self, node: u16) {
        let opts = self.opts("gantry_build_info", "Always 1; the labels say what runs");
        let family = self.register(GaugeVec::new(opts, &["cluster", "node", "version"]));
        let node = node.to_string();
        family
            .with_label_values(&[self.cluster, &node, env!("CARGO_PKG_VERSION")])
            .set(1.0);
    }
}
