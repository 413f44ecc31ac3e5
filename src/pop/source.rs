//! The queues that a pop looks at.

use std::sync::Arc;

use gantry_protocol::topic as names;
use gantry_storage::tables::Topic;
use gantry_storage::{QueueBounds, QueueKey, QueueOffset};

use crate::group::Group;

/// One of so many pops looks at messages that come again first; the others look at them last.
const RETRY_TURNS: u32 = 5;

/// A queue to take from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its topic.
    pub topic: Arc<Topic>,
    /// The queue.
    pub key: QueueKey,
    /// Whether it holds messages that nobody acknowledged in time.
    pub is_retry: bool,
}

impl Source {
    fn new(topic: &Arc<Topic>, queue: u16, is_retry: bool) -> Self {
        Source {
            topic: topic.clone(),
            key: QueueKey {
                topic_id: topic.id,
                queue,
            },
            is_retry,
        }
    }

    /// Where a consumer group is in it.
    pub fn position(&self, group: &Group, consumer: &str) -> Option<QueueOffset> {
        let (topic, queue) = (&self.topic.config.name, self.key.queue);
        group.store.tables().consumer_offset(consumer, topic, queue)
    }

    /// What it holds.
    pub fn bounds(&self, group: &Group) -> QueueBounds {
        group.store.queue_bounds(self.key).unwrap_or_default()
    }

    /// How many messages a consumer group has not been given of it.
    pub fn waiting(&self, group: &Group, consumer: &str) -> u64 {
        let bounds = self.bounds(group);
        let position = self.position(group, consumer).unwrap_or(bounds.min);
        let next = bounds.next.get();
        next.saturating_sub(position.max(bounds.min).get())
    }
}

/// The topic in which messages of `topic` come again for a consumer group, if any did.
pub fn topic_of_redelivery(group: &Group, topic: &Topic, consumer: &str) -> Option<Arc<Topic>> {
    let name = &topic.config.name;
    if name.starts_with(names::RETRY_PREFIX) {
        return None;
    }
    let retry = names::pop_retry_topic(consumer, name);
    group.store.tables().topic(&retry)
}

/// The queue, or all queues of a topic, in turns; and those in which messages come again for `again_for`.
pub fn sources(
    group: &Group,
    topic: &Arc<Topic>,
    queue: Option<u16>,
    again_for: Option<&str>,
) -> Vec<Source> {
    let turn = group.pops.turn();
    let mut sources: Vec<Source> = match queue {
        Some(queue) => vec![Source::new(topic, queue, false)],
        None => {
            let queues = u32::from(topic.config.read_queues.max(1));
            let turned = (0..queues).map(|at| ((at + turn % queues) % queues) as u16);
            turned
                .map(|queue| Source::new(topic, queue, false))
                .collect()
        }
    };
    let retry = again_for.and_then(|consumer| topic_of_redelivery(group, topic, consumer));
    if let Some(retry) = retry {
        let again = 0..retry.config.read_queues;
        let again = again.map(|queue| Source::new(&retry, queue, true));
        let is_first = turn.is_multiple_of(RETRY_TURNS);
        let at = if is_first { 0 } else { sources.len() };
        sources.splice(at..at, again);
    }
    sources
}
