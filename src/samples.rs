//! The state of a node as its gauges show it, taken when someone scrapes.

use std::collections::BTreeMap;

use gantry_protocol::topic as names;
use gantry_storage::QueueKey;
use gantry_storage::fs::{FileSystem, RealFs};

use crate::broker::Broker;
use crate::catalog;
use crate::group::Group;
use crate::metrics::{ConsumerLag, GroupSample};
use crate::node::Parts;
use crate::status::disk_bytes;

/// Brings all gauges up to date.
pub(crate) fn take(parts: &Parts, broker: &Broker) {
    for group in &broker.groups {
        group.metrics.sample(&sample(broker, group));
        let live = group.store.tables();
        let parked = live.parked();
        let (timers, halves) = (parked.timers().len(), parked.halves().len());
        group.metrics.parked.sample(timers, halves);
        group.metrics.idempotent.sample(live.recent_sends().len());
        let pulls =
            |name: &str| live.group(name).is_some() || live.offsets_of(name).next().is_some();
        group
            .metrics
            .retain(|topic| live.topic(topic).is_some(), pulls);
    }
    let used = RealFs.space(&parts.config.data).map_or(0.0, |space| {
        let total = space.total.max(1) as f64;
        space.total.saturating_sub(space.free) as f64 / total
    });
    parts.metrics.sample_process(resident_bytes(), used);
    let (producers, consumers) = broker.sessions.connected_here();
    parts.metrics.sample_clients(&producers, &consumers);
}

fn sample(broker: &Broker, group: &Group) -> GroupSample {
    let status = group.replica.status();
    let last = status.last.unwrap_or(0);
    let lag = status.matched.iter();
    let lag = lag.map(|(node, matched)| (*node, last.saturating_sub(matched.unwrap_or(0))));
    let is_leader = group.leads();
    let tables = group.store.tables();
    let (topics, consumer_groups) = (tables.topics().count(), tables.groups().count());
    let leases = tables.leases().count() as u64;
    drop(tables);
    GroupSample {
        term: status.leadership.term,
        is_leader,
        last,
        committed: status.committed.unwrap_or(0),
        applied: status.applied.unwrap_or(0),
        lag: lag.collect(),
        storage_bytes: disk_bytes(group),
        topics: topics as u64,
        consumer_groups: consumer_groups as u64,
        consumer_lag: if is_leader {
            consumer_lag(broker, group)
        } else {
            Vec::new()
        },
        elections: group.replica.elections(),
        damage: group.log.damage(),
        leases,
    }
}

fn consumer_lag(broker: &Broker, group: &Group) -> Vec<ConsumerLag> {
    let mut offsets: BTreeMap<(String, String), Vec<(QueueKey, u64)>> = BTreeMap::new();
    let mut in_flight: BTreeMap<(String, String), u64> = BTreeMap::new();
    let tables = group.store.tables();
    for consumer in tables.groups() {
        for (topic, queue, offset) in tables.offsets_of(&consumer.name) {
            let Some(found) = tables.topic(topic) else {
                continue;
            };
            let key = QueueKey {
                topic_id: found.id,
                queue,
            };
            let names = (topic.to_string(), consumer.name.clone());
            let popped = tables.leases().in_flight(&consumer.name, key) as u64;
            *in_flight.entry(names.clone()).or_default() += popped;
            offsets.entry(names).or_default().push((key, offset.get()));
        }
    }
    drop(tables);
    let behind = |key: QueueKey, offset: u64| {
        let next = group
            .store
            .queue_bounds(key)
            .map_or(0, |bounds| bounds.next.get());
        next.saturating_sub(offset)
    };
    let lag = offsets
        .into_iter()
        .map(|((topic, consumer_group), queues)| ConsumerLag {
            is_system: catalog::is_system_topic(&broker.config, &topic)
                || names::SYSTEM_GROUPS.contains(&consumer_group.as_str()),
            is_retry: names::group_of_retry_topic(&topic).is_some(),
            messages: queues
                .into_iter()
                .map(|(key, offset)| behind(key, offset))
                .sum(),
            in_flight: in_flight
                .remove(&(topic.clone(), consumer_group.clone()))
                .unwrap_or(0),
            topic,
            consumer_group,
        });
    lag.collect()
}

/// Resident memory of this process in bytes; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
