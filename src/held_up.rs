//! What waits in a broker group, as this replica has applied it.

use std::collections::{BTreeMap, BTreeSet};

use gantry_protocol::topic as names;
use gantry_storage::QueueKey;
use serde_json::{Value, json};

use crate::group::Group;

/// Messages of a consumer group that did not go through at once.
struct Held {
    consumer_group: String,
    in_flight: usize,
    /// Queues of its retry topics, and from where on it has not read them; none: it never did.
    retries: BTreeMap<QueueKey, Option<u64>>,
    dead_letters: Vec<QueueKey>,
}

/// Timers, half messages and leases, and what each consumer group that has any holds up: messages in flight
/// (POP), in its retry topics and not read yet, and in its dead letter topic.
pub(crate) fn waiting(group: &Group) -> Value {
    let tables = group.store.tables();
    let parked = tables.parked();
    let (timers, halves) = (parked.timers().len(), parked.halves().len());
    let leases = tables.leases().count();
    drop(tables);
    let consumers = held(group).into_iter().filter_map(|held| {
        let bounds = |key: QueueKey| group.store.queue_bounds(key).unwrap_or_default();
        let unread = held.retries.iter().map(|(key, offset)| {
            let bounds = bounds(*key);
            let from = offset.map_or(bounds.min.get(), |offset| offset.max(bounds.min.get()));
            bounds.next.get().saturating_sub(from)
        });
        let retries: u64 = unread.sum();
        let dead = held.dead_letters.iter().map(|key| {
            let bounds = bounds(*key);
            bounds.next.get() - bounds.min.get()
        });
        let dead_letters: u64 = dead.sum();
        let holds_any = held.in_flight > 0 || retries > 0 || dead_letters > 0;
        holds_any.then(|| {
            json!({
                "group": held.consumer_group,
                "in_flight": held.in_flight,
                "retries": retries,
                "dead_letters": dead_letters,
            })
        })
    });
    json!({
        "timers": timers,
        "half_messages": halves,
        "leases": leases,
        "consumers": consumers.collect::<Vec<Value>>(),
    })
}

/// What to count for each consumer group. The queues themselves are asked later, without the tables' lock.
fn held(group: &Group) -> Vec<Held> {
    let tables = group.store.tables();
    let queues = |topic: &str| {
        let found = tables.topic(topic);
        let keys = found.into_iter().flat_map(|topic| {
            (0..topic.queues()).map(move |queue| QueueKey {
                topic_id: topic.id,
                queue,
            })
        });
        keys.collect::<Vec<QueueKey>>()
    };
    // Groups that nobody created may consume as well, and are in no table of their own.
    let created = tables.groups().map(|consumer| consumer.name.clone());
    let mut consumers: BTreeSet<String> = created.collect();
    consumers.extend(tables.leases().groups().map(str::to_owned));
    for topic in tables.topics() {
        let topic = &topic.config.name;
        consumers.extend(tables.groups_with_offsets_in(topic).map(str::to_owned));
        consumers.extend(
            topic
                .strip_prefix(names::DEAD_LETTER_PREFIX)
                .map(str::to_owned),
        );
    }
    let consumers = consumers.into_iter().map(|name| {
        let name = name.as_str();
        let own = names::retry_topic(name);
        let mut retries: BTreeMap<QueueKey, Option<u64>> =
            queues(&own).into_iter().map(|key| (key, None)).collect();
        for (topic, queue, offset) in tables.offsets_of(name) {
            let is_retry = names::group_of_retry_topic(topic).is_some();
            let Some(found) = is_retry.then(|| tables.topic(topic)).flatten() else {
                continue;
            };
            let key = QueueKey {
                topic_id: found.id,
                queue,
            };
            retries.insert(key, Some(offset.get()));
        }
        Held {
            in_flight: tables.leases().held_by(name),
            retries,
            dead_letters: queues(&names::dead_letter_topic(name)),
            consumer_group: name.to_owned(),
        }
    });
    consumers.collect()
}
