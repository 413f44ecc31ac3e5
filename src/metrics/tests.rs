//! Names against `docs/metrics.md`, the text format, and what each call does to the series.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_protocol::ResponseCode;
use gantry_storage::commitlog::DamageStats;

use super::*;
use crate::error::Failure;

const DOCUMENT: &str = include_str!("../../docs/metrics.md");

/// A metric as the document has it, or as it is rendered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Described {
    kind: String,
    labels: BTreeSet<String>,
}

/// The tables of the document; and the names that are exported from the start.
fn documented() -> (BTreeMap<String, Described>, BTreeSet<String>) {
    let mut metrics = BTreeMap::new();
    let mut from_the_start = BTreeSet::new();
    for line in DOCUMENT.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, from, _] = cells[..] else {
            continue;
        };
        if !name.starts_with('`') {
            continue;
        }
        let name = name.trim_matches('`').to_string();
        let labels = match labels.strip_prefix("as ") {
            Some(other) => {
                let other: &Described = &metrics[other.trim_matches('`')];
                other.labels.clone()
            }
            None => {
                let labels = labels.split('(').next().unwrap();
                labels
                    .split('`')
                    .skip(1)
                    .step_by(2)
                    .map(str::to_string)
                    .collect()
            }
        };
        if !from.contains("when") {
            from_the_start.insert(name.clone());
        }
        metrics.insert(
            name,
            Described {
                kind: kind.to_string(),
                labels,
            },
        );
    }
    (metrics, from_the_start)
}

/// One sample of a rendered text.
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads `name{label="value",...} number`, with the format's three escapes.
fn parse_sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, mut rest) = series.split_once('{').unwrap_or((series, "}"));
    let mut labels = BTreeMap::new();
    while rest != "}" {
        let (label, quoted) = rest.split_once("=\"").unwrap();
        let mut text = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => text.push('\n'),
                    c if c == '\\' || c == '"' => text.push(c),
                    c => panic!("escape of {c} in {line}"),
                },
                (at, '"') => break at,
                (_, c) => text.push(c),
            }
        };
        assert!(
            labels.insert(label.to_string(), text).is_none(),
            "label twice: {line}"
        );
        rest = quoted[end + 1..].trim_start_matches(',');
    }
    assert!(
        name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
        "{line}"
    );
    Sample {
        name: name.to_string(),
        labels,
        value: value.parse().unwrap(),
    }
}

/// Checks the format and gives what is there: every family has its help and type once, before its
/// samples; every series is there once; buckets of histograms never fall and end at the count.
fn check(text: &str) -> BTreeMap<String, Described> {
    let mut families: BTreeMap<String, Described> = BTreeMap::new();
    let mut series = BTreeSet::new();
    let mut current = String::new();
    let mut bucket = 0.0;
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(help.len() > 5, "no help: {line}");
            assert!(
                families
                    .insert(name.to_string(), Described::default())
                    .is_none(),
                "{line}"
            );
            current = name.to_string();
            continue;
        }
        let family = families.get_mut(&current).unwrap();
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(
                (name, family.kind.as_str()),
                (current.as_str(), ""),
                "{line}"
            );
            family.kind = kind.to_string();
            continue;
        }
        let mut sample = parse_sample(line);
        let part = sample.name.strip_prefix(current.as_str()).unwrap();
        assert!(
            series.insert((sample.name.clone(), sample.labels.clone())),
            "twice: {line}"
        );
        match (family.kind.as_str(), part) {
            ("counter" | "gauge", "") | ("histogram", "_sum") => {}
            ("histogram", "_bucket") => {
                assert!(sample.value >= bucket, "a bucket falls: {line}");
                let last = sample.labels.remove("le").unwrap() == "+Inf";
                bucket = sample.value;
                assert!(last || bucket.is_finite());
            }
            ("histogram", "_count") => assert_eq!(std::mem::take(&mut bucket), sample.value),
            _ => panic!("{} in a {} at {line}", sample.name, family.kind),
        }
        assert!(sample.value >= 0.0, "{line}");
        let labels: BTreeSet<String> = sample.labels.into_keys().collect();
        if family.labels.is_empty() {
            family.labels = labels;
        } else {
            assert_eq!(family.labels, labels, "{line}");
        }
    }
    families
}

/// The value of a series, `None` when it is not there.
fn value(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let text = metrics.render();
    let samples = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(parse_sample);
    let wanted = |sample: &Sample| {
        let has = |(label, value): &(&str, &str)| sample.labels.get(*label).unwrap() == value;
        sample.name == name && labels.iter().all(has)
    };
    let found: Vec<Sample> = samples.filter(wanted).collect();
    assert!(found.len() < 2, "{name} {labels:?} is not one series");
    found.first().map(|sample| sample.value)
}

fn node() -> (Arc<Metrics>, Arc<GroupMetrics>) {
    let metrics = Metrics::new("test \"cluster\" \\ 1", 2);
    let group = metrics.group("broker-a");
    (metrics, group)
}

fn leading() -> GroupSample {
    let lag = |topic: &str, consumer_group: &str, is_retry| ConsumerLag {
        topic: topic.to_string(),
        consumer_group: consumer_group.to_string(),
        is_system: false,
        is_retry,
        messages: 12,
        in_flight: u64::from(is_retry) * 3,
    };
    GroupSample {
        leases: 7,
        term: 3,
        is_leader: true,
        last: 103,
        committed: 102,
        applied: 101,
        lag: vec![(1, 4), (3, 0)],
        storage_bytes: 1 << 40,
        topics: 5,
        consumer_groups: 6,
        consumer_lag: vec![
            lag("orders", "billing", false),
            lag("%RETRY%billing", "billing", true),
        ],
        elections: 2,
        damage: DamageStats {
            holes: Vec::new(),
            found: 3,
            mended: 2,
            scrubbed_bytes: 1 << 20,
        },
    }
}

fn producer(version: &str) -> ProducerConnection {
    ProducerConnection {
        language: "java".to_string(),
        version: version.to_string(),
        protocol_type: "remoting",
    }
}

fn consumer(consumer_group: &str) -> ConsumerConnection {
    ConsumerConnection {
        language: "cpp".to_string(),
        version: "v4_9_4".to_string(),
        protocol_type: "remoting",
        consumer_group: consumer_group.to_string(),
        consume_mode: "push",
        is_system: false,
    }
}

#[test]
fn code_and_document_agree_on_names_types_and_labels() {
    let (metrics, group) = node();
    let (documented, from_the_start) = documented();
    assert!(
        documented.len() > 25,
        "the tables of the document were not found"
    );

    let at_start: BTreeSet<String> = check(&metrics.render()).into_keys().collect();
    let missing: Vec<_> = from_the_start.difference(&at_start).collect();
    assert!(
        missing.is_empty(),
        "not exported from the start: {missing:?}"
    );

    group.batch(3, 2000);
    group.commit_seconds.observe(0.002);
    group.messages_in("orders", false, 1, 300);
    group.messages_out(("orders", "billing"), (false, false), 1, 300);
    group.refused(&Failure::NoLeader);
    group.sample(&leading());
    metrics.sample_clients(&[producer("v5_3_0")], &[consumer("billing")]);
    assert_eq!(check(&metrics.render()), documented);
}

#[test]
fn two_nodes_and_two_groups_in_one_process_do_not_mix() {
    let (first, group) = node();
    let (second, _) = node();
    let other = first.group("broker-b");
    group.forwarded.inc();
    other.sample(&leading());
    let forwarded = "gantry_forwarded_requests_total";
    assert_eq!(
        value(&first, forwarded, &[("group", "broker-a")]),
        Some(1.0)
    );
    assert_eq!(
        value(&first, forwarded, &[("group", "broker-b")]),
        Some(0.0)
    );
    assert_eq!(value(&second, forwarded, &[]), Some(0.0));
    // What one group no longer shows stays when it is another's.
    group.sample(&GroupSample::default());
    let lag = "gantry_replica_lag_entries";
    assert_eq!(
        value(&first, lag, &[("group", "broker-b"), ("peer", "1")]),
        Some(4.0)
    );
}

#[test]
fn a_sample_sets_its_gauges_and_former_leaders_show_no_lag() {
    let (metrics, group) = node();
    let mut sample = leading();
    group.sample(&sample);
    for (name, expected) in [
        ("gantry_raft_term", 3.0),
        ("gantry_raft_is_leader", 1.0),
        ("gantry_raft_last_index", 103.0),
        ("gantry_raft_committed_index", 102.0),
        ("gantry_raft_applied_index", 101.0),
        ("gantry_elections_total", 2.0),
        ("gantry_log_holes", 0.0),
        ("gantry_pop_leases", 7.0),
        ("gantry_log_holes_found_total", 3.0),
        ("gantry_log_holes_mended_total", 2.0),
        ("gantry_scrubbed_bytes_total", 1048576.0),
        ("rocketmq_storage_size", (1u64 << 40) as f64),
        ("rocketmq_topic_number", 5.0),
        ("rocketmq_consumer_group_number", 6.0),
    ] {
        assert_eq!(value(&metrics, name, &[]), Some(expected), "{name}");
    }
    let retry = [("is_retry", "true"), ("topic", "%RETRY%billing")];
    assert_eq!(
        value(&metrics, "rocketmq_consumer_lag_messages", &retry),
        Some(12.0)
    );
    let in_flight =
        |labels: &[(&str, &str)]| value(&metrics, "rocketmq_consumer_inflight_messages", labels);
    assert_eq!(in_flight(&retry), Some(3.0));
    assert_eq!(in_flight(&[("topic", "orders")]), None, "that one pulls");
    assert_eq!(
        value(&metrics, "gantry_replica_lag_entries", &[("peer", "3")]),
        Some(0.0)
    );

    sample.consumer_lag.pop();
    sample.elections = 5;
    group.sample(&sample);
    assert_eq!(
        value(&metrics, "rocketmq_consumer_lag_messages", &retry),
        None
    );
    assert_eq!(
        value(&metrics, "rocketmq_consumer_lag_messages", &[]),
        Some(12.0)
    );
    assert_eq!(value(&metrics, "gantry_elections_total", &[]), Some(5.0));

    sample.is_leader = false;
    group.sample(&sample);
    assert_eq!(value(&metrics, "rocketmq_consumer_lag_messages", &[]), None);
    assert_eq!(value(&metrics, "gantry_replica_lag_entries", &[]), None);
    assert_eq!(value(&metrics, "gantry_raft_is_leader", &[]), Some(0.0));
}

#[test]
fn counters_of_deleted_topics_and_consumer_groups_disappear() {
    let (metrics, group) = node();
    for _ in 0..2 {
        group.messages_in("orders", false, 2, 500);
        group.messages_in("gone", false, 1, 100);
        group.messages_out(("orders", "billing"), (false, false), 3, 700);
        group.messages_out(("orders", "left"), (false, false), 1, 100);
        group.messages_out(("gone", "billing"), (false, false), 1, 100);
    }
    group.retain(
        |topic| topic != "gone",
        |consumer_group| consumer_group != "left",
    );
    assert_eq!(
        value(&metrics, "rocketmq_messages_in_total", &[]),
        Some(4.0)
    );
    assert_eq!(
        value(&metrics, "rocketmq_throughput_in_total", &[]),
        Some(1000.0)
    );
    assert_eq!(
        value(&metrics, "rocketmq_messages_out_total", &[]),
        Some(6.0)
    );
    assert_eq!(
        value(&metrics, "rocketmq_throughput_out_total", &[]),
        Some(1400.0)
    );

    group.messages_in("gone", false, 1, 100);
    group.messages_out(("orders", "left"), (false, false), 1, 100);
    let back = [("topic", "gone")];
    assert_eq!(
        value(&metrics, "rocketmq_messages_in_total", &back),
        Some(1.0)
    );
    let back = [("consumer_group", "left")];
    assert_eq!(
        value(&metrics, "rocketmq_messages_out_total", &back),
        Some(1.0)
    );
}

#[test]
fn connections_are_counted_by_their_labels_and_disappear() {
    let (metrics, _) = node();
    let producers = [producer("v5_3_0"), producer("v4_9_4"), producer("v5_3_0")];
    metrics.sample_clients(&producers, &[consumer("billing")]);
    let version = [("version", "v5_3_0")];
    assert_eq!(
        value(&metrics, "rocketmq_producer_connections", &version),
        Some(2.0)
    );
    assert_eq!(
        value(&metrics, "rocketmq_consumer_connections", &[]),
        Some(1.0)
    );
    metrics.sample_clients(&producers[1..2], &[]);
    assert_eq!(
        value(&metrics, "rocketmq_producer_connections", &[]),
        Some(1.0)
    );
    assert_eq!(value(&metrics, "rocketmq_consumer_connections", &[]), None);

    metrics.connections.inc();
    metrics.peer_connections.inc();
    metrics.peer_connections.dec();
    assert_eq!(
        value(&metrics, "gantry_connections", &[("kind", "client")]),
        Some(1.0)
    );
    assert_eq!(
        value(&metrics, "gantry_connections", &[("kind", "peer")]),
        Some(0.0)
    );
}

#[test]
fn a_held_request_counts_until_its_guard_is_dropped() {
    let (metrics, group) = node();
    let first = group.hold();
    let second = group.hold();
    assert_eq!(value(&metrics, "gantry_held_requests", &[]), Some(2.0));
    drop((first, second));
    assert_eq!(value(&metrics, "gantry_held_requests", &[]), Some(0.0));
    assert_eq!(
        value(&metrics, "gantry_held_requests_total", &[]),
        Some(2.0)
    );
}

#[test]
fn a_refusal_is_counted_by_its_cause_and_not_by_its_text() {
    let (metrics, group) = node();
    for text in ["topic a does not exist", "topic b does not exist"] {
        group.refused(&Failure::Code(
            ResponseCode::TOPIC_NOT_EXIST,
            text.to_string(),
        ));
    }
    group.refused(&Failure::Code(ResponseCode(31_999), "odd".to_string()));
    metrics.refused("connections");
    let refused = |cause| {
        value(
            &metrics,
            "gantry_refused_requests_total",
            &[("cause", cause)],
        )
    };
    assert_eq!(refused("unknown_topic"), Some(2.0));
    assert_eq!(refused("other"), Some(1.0));
    assert_eq!(refused("connections"), Some(1.0));
}

#[test]
fn batches_are_measured_by_messages_and_bytes_unless_they_have_no_messages() {
    let (metrics, group) = node();
    group.batch(0, 90);
    group.batch(4096, 4 << 20);
    let bucket = |name, le| value(&metrics, name, &[("le", le)]);
    assert_eq!(bucket("gantry_batch_messages_bucket", "2048"), Some(0.0));
    assert_eq!(bucket("gantry_batch_messages_bucket", "4096"), Some(1.0));
    assert_eq!(bucket("gantry_batch_bytes_bucket", "2097152"), Some(0.0));
    assert_eq!(bucket("gantry_batch_bytes_bucket", "4194304"), Some(1.0));
    assert_eq!(bucket("gantry_batch_bytes_bucket", "1024"), Some(0.0));
    assert_eq!(bucket("gantry_flush_seconds_bucket", "0.0001"), Some(0.0));
    assert_eq!(bucket("gantry_flush_seconds_bucket", "10"), Some(0.0));
}

#[test]
fn the_process_is_described() {
    let (metrics, _) = node();
    metrics.sample_process(40 << 20, 0.25);
    let resident = value(&metrics, "gantry_process_resident_bytes", &[]);
    assert_eq!(resident, Some(f64::from(40 << 20)));
    assert_eq!(value(&metrics, "gantry_disk_used_ratio", &[]), Some(0.25));
    let info = [("cluster", "test \"cluster\" \\ 1"), ("node", "2")];
    assert_eq!(value(&metrics, "gantry_build_info", &info), Some(1.0));
}
