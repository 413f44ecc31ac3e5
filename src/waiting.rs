//! Where messages wait: the topic of the broker's own that holds them, and what they carry there to find
//! their way back.

use std::sync::Arc;

use gantry_protocol::properties::names;
use gantry_protocol::{ResponseCode, topic as topics};
use gantry_storage::batch::{RowHead, RowKind};
use gantry_storage::tables::Topic;

use crate::delays::When;
use crate::error::Failure;
use crate::group::Group;

/// The place of one message that waits.
#[derive(Clone, Debug)]
pub struct Waits {
    /// The topic that it waits in.
    pub topic: Arc<Topic>,
    /// The queue of that topic.
    pub queue: u16,
    kind: RowKind,
    time_ms: u64,
}

impl Waits {
    /// The place of a message that comes at `when`; none if that is now.
    ///
    /// # Errors
    /// Code 14: the group was just formed and does not have its own topics yet.
    pub fn until(group: &Group, when: When) -> Result<Option<Waits>, Failure> {
        let (name, queue, time_ms) = match when {
            When::Now => return Ok(None),
            When::Level { level, due_ms } => (topics::SCHEDULE_TOPIC, level - 1, due_ms),
            When::At { due_ms } => (topics::TIMER_TOPIC, 0, due_ms),
        };
        let topic = own_topic(group, name)?;
        // More levels than queues: levels were added since the topic was created.
        let queue = queue as u16 % topic.queues().max(1);
        Ok(Some(Waits {
            topic,
            queue,
            kind: RowKind::Timer,
            time_ms,
        }))
    }

    /// The place of the half message of a transaction whose producer is asked at `check_ms`.
    ///
    /// # Errors
    /// As [`until`](Self::until).
    pub fn half(group: &Group, check_ms: u64) -> Result<Waits, Failure> {
        Ok(Waits {
            topic: own_topic(group, topics::HALF_TOPIC)?,
            queue: 0,
            kind: RowKind::Half,
            time_ms: check_ms,
        })
    }

    /// Whether it is the half message of a transaction.
    pub fn is_half(&self) -> bool {
        self.kind == RowKind::Half
    }

    /// The row of the message.
    pub fn head(&self) -> RowHead {
        RowHead {
            topic_id: self.topic.id,
            kind: self.kind,
            origin: 0,
        }
    }

    /// What the row has in the place of a tag.
    pub fn tags_code(&self) -> i64 {
        self.time_ms as i64
    }

    /// When it comes if it waits for a time of its own, not for a level; milliseconds since 1970.
    pub fn timer_ms(&self) -> Option<u64> {
        (self.topic.config.name == topics::TIMER_TOPIC).then_some(self.time_ms)
    }

    /// Properties that a message for a queue of `topic` carries while it waits.
    pub fn properties(&self, topic: &str, queue: u16) -> Vec<(&'static str, String)> {
        let mut added = vec![
            (names::REAL_TOPIC, topic.to_string()),
            (names::REAL_QUEUE_ID, queue.to_string()),
        ];
        if let Some(due_ms) = self.timer_ms() {
            added.push((names::TIMER_OUT_MS, due_ms.to_string()));
        }
        added
    }
}

fn own_topic(group: &Group, name: &str) -> Result<Arc<Topic>, Failure> {
    group.store.tables().topic(name).ok_or_else(|| {
        let reason = format!("the group was just formed and does not have its topic {name} yet");
        Failure::code(ResponseCode::SERVICE_NOT_AVAILABLE, reason)
    })
}
