//! The metrics of one process, and their text.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::{IntGauge, Registry, TextEncoder};

use super::families::Families;
use super::group::GroupMetrics;
use super::sampled::Sampled;
use super::traffic::flag;

/// Everything that one node reports.
pub struct Metrics {
    /// Open connections of clients.
    pub connections: IntGauge,
    /// Open connections of other nodes to this one.
    pub peer_connections: IntGauge,
    producers: Sampled,
    consumers: Sampled,
    families: Families,
    registry: Registry,
}

/// A producer that sends heartbeats to this node, one item per client and producer group.
///
/// The texts become labels: they come from fixed sets (names of languages, versions as the
/// protocol numbers them), never from what a client wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerConnection {
    /// Language of the client in small letters, as `java`.
    pub language: String,
    /// Version of the client, as `v5_3_0`.
    pub version: String,
    /// How the client speaks, as `remoting`.
    pub protocol_type: &'static str,
}

/// A consumer that sends heartbeats to this node, one item per client and consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerConnection {
    /// Language of the client, as of a producer.
    pub language: String,
    /// Version of the client, as of a producer.
    pub version: String,
    /// How the client speaks, as `remoting`.
    pub protocol_type: &'static str,
    /// The consumer group.
    pub consumer_group: String,
    /// `push` or `pull`.
    pub consume_mode: &'static str,
    /// Whether the group is one of RocketMQ's own.
    pub is_system: bool,
}

impl Metrics {
    /// The metrics of node `node`. Each call makes a registry of its own.
    pub fn new(cluster: &str, node: u16) -> Arc<Metrics> {
        let registry = Registry::new();
        let families = Families::new(&registry, cluster, node);
        Arc::new(Metrics {
            connections: families.connections.with_label_values(&["client"]),
            peer_connections: families.connections.with_label_values(&["peer"]),
            producers: Sampled::new(&families.producer_connections),
            consumers: Sampled::new(&families.consumer_connections),
            families,
            registry,
        })
    }

    /// The metrics of a group that this node has a replica of. Asked for once per group: only the
    /// group's owner counts in it.
    pub fn group(&self, name: &str) -> Arc<GroupMetrics> {
        Arc::new(GroupMetrics::new(&self.families, name))
    }

    /// Counts a request or a connection that was refused before it reached a group.
    pub fn refused(&self, cause: &'static str) {
        self.families.refused.with_label_values(&[cause]).inc();
    }

    /// Shows the memory of the process, in bytes, and the used part of the data's file system, from
    /// 0 to 1.
    pub fn sample_process(&self, resident_bytes: u64, disk_used_ratio: f64) {
        self.families
            .process
            .resident_bytes
            .set(resident_bytes as f64);
        self.families.process.disk_used_ratio.set(disk_used_ratio);
    }

    /// Shows who is connected: equal items are counted. What is not in the lists disappears.
    pub fn sample_clients(
        &self,
        producers: &[ProducerConnection],
        consumers: &[ConsumerConnection],
    ) {
        let mut series = HashMap::new();
        for producer in producers {
            let protocol = producer.protocol_type.to_string();
            let labels = vec![
                producer.language.clone(),
                producer.version.clone(),
                protocol,
            ];
            *series.entry(labels).or_default() += 1;
        }
        self.producers.replace(series);
        let mut series = HashMap::new();
        for consumer in consumers {
            let labels = vec![
                consumer.language.clone(),
                consumer.version.clone(),
                consumer.protocol_type.to_string(),
                consumer.consumer_group.clone(),
                consumer.consume_mode.to_string(),
                flag(consumer.is_system).to_string(),
            ];
            *series.entry(labels).or_default() += 1;
        }
        self.consumers.replace(series);
    }

    /// Everything in Prometheus' text format. Sample first what is sampled.
    pub fn render(&self) -> String {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        text.expect("gathered families have names and series")
    }
}
