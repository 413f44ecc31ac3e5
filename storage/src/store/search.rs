//! Messages by position, by key and by time.

use std::net::SocketAddrV4;

use bytes::{Bytes, BytesMut};

use super::Store;
use crate::error::ReadError;
use crate::message::{
    self, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, MessageView, STORE_TIME_PREFIX_BYTES,
};
use crate::position::{PhysicalOffset, QueueOffset};
use crate::queue_offsets::{QueueBounds, QueueKey};

/// Which of the offsets around a time is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeBoundary {
    /// The first message stored at that time or later; the next offset to be given if there is none. Default.
    #[default]
    Lower,
    /// The last message stored at that time or earlier; 0 if there is none.
    Upper,
}

/// What to look for by key.
#[derive(Debug, Clone, Copy)]
pub struct KeyQuery<'a> {
    /// Topic by name.
    pub topic: &'a str,
    /// A word of the message's keys, or its producer's id.
    pub key: &'a str,
    /// Most messages to return.
    pub max_messages: usize,
    /// Earliest store time; milliseconds since 1970.
    pub begin_ms: u64,
    /// Latest store time; milliseconds since 1970.
    pub end_ms: u64,
    /// Address that the messages name as the one to ask for them.
    pub store_host: SocketAddrV4,
}

impl Store {
    /// The message that begins at `offset`, as clients receive it.
    ///
    /// The offset is not trusted: it must be one that a queue points at. `None` if it is not, if the message
    /// was retired, or if its topic was deleted.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn message_at(
        &self,
        offset: PhysicalOffset,
        store_host: SocketAddrV4,
    ) -> Result<Option<Bytes>, ReadError> {
        let Some(prefix) = self.bytes_at(offset, 8)? else {
            return Ok(None);
        };
        let size = prefix
            .first_chunk()
            .map_or(0, |size| u32::from_be_bytes(*size)) as usize;
        if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&size) {
            return Ok(None);
        }
        let Some(bytes) = self.bytes_at(offset, size)? else {
            return Ok(None);
        };
        let Ok(view) = MessageView::parse(&bytes) else {
            return Ok(None);
        };
        let Some(queue_offset) = self.find_unit(&view, offset)? else {
            return Ok(None);
        };
        let mut patched = BytesMut::from(&bytes[..]);
        let done = message::patch(&mut patched, queue_offset, offset, store_host);
        Ok(done.ok().map(|()| patched.freeze()))
    }

    /// Messages with a key, newest first.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn query_keys(&self, query: &KeyQuery<'_>) -> Result<Vec<Bytes>, ReadError> {
        let hash = message::key_hash(query.topic, query.key);
        // Memory first: what moves to the files meanwhile is then seen twice, not missed.
        let mut places = self.state().keys.find(hash);
        places.extend(
            self.key_files
                .find(hash)
                .map_err(|error| self.key_error(error))?,
        );
        places.sort_unstable();
        places.dedup();
        let mut found = Vec::new();
        for offset in places.into_iter().rev() {
            if found.len() >= query.max_messages {
                break;
            }
            let Some(bytes) = self.message_at(offset, query.store_host)? else {
                continue;
            };
            if MessageView::parse(&bytes).is_ok_and(|view| matches(&view, query)) {
                found.push(bytes);
            }
        }
        Ok(found)
    }

    /// The offset around a store time (milliseconds since 1970); 0 for a queue that never had a message.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn offset_by_time(
        &self,
        key: QueueKey,
        timestamp_ms: u64,
        boundary: TimeBoundary,
    ) -> Result<QueueOffset, ReadError> {
        let bounds = self.queue_bounds(key).unwrap_or_default();
        let found = self.partition_point(bounds, |offset| {
            // Retired meanwhile: older than anything that is there.
            let time = self.store_time_at(key, offset)?.unwrap_or(0);
            Ok(match boundary {
                TimeBoundary::Lower => time < timestamp_ms,
                TimeBoundary::Upper => time <= timestamp_ms,
            })
        })?;
        Ok(match boundary {
            TimeBoundary::Lower => found,
            TimeBoundary::Upper if found > bounds.min => QueueOffset::new(found.get() - 1),
            TimeBoundary::Upper => QueueOffset::ZERO,
        })
    }

    /// When a message was stored, milliseconds since 1970; `None` if the queue does not have it (any more).
    ///
    /// # Errors
    /// The disk refuses.
    pub fn store_time_at(
        &self,
        key: QueueKey,
        offset: QueueOffset,
    ) -> Result<Option<u64>, ReadError> {
        let Some(unit) = self.unit(key, offset)? else {
            return Ok(None);
        };
        let len = STORE_TIME_PREFIX_BYTES.min(unit.size as usize);
        let Some(prefix) = self.bytes_at(unit.offset, len)? else {
            return Ok(None);
        };
        Ok(message::store_time_of_prefix(&prefix).ok())
    }

    /// Where in its queue the message at `offset` of the log is.
    fn find_unit(
        &self,
        view: &MessageView<'_>,
        offset: PhysicalOffset,
    ) -> Result<Option<QueueOffset>, ReadError> {
        let Some(topic) = self.tables().topic(view.topic()) else {
            return Ok(None);
        };
        let Ok(queue) = u16::try_from(view.queue_id()) else {
            return Ok(None);
        };
        let key = QueueKey {
            topic_id: topic.id,
            queue,
        };
        let Some(bounds) = self.queue_bounds(key) else {
            return Ok(None);
        };
        let found = self.partition_point(bounds, |queue_offset| {
            let unit = self.unit(key, queue_offset)?;
            Ok(unit.is_none_or(|unit| unit.offset < offset))
        })?;
        let unit = if found < bounds.next {
            self.unit(key, found)?
        } else {
            None
        };
        let same = |unit: &crate::consume_queue::Unit| {
            unit.offset == offset && unit.size as usize == view.bytes().len()
        };
        Ok(unit.filter(same).map(|_| found))
    }

    /// The first offset in `bounds` for which `before` is false; it must be true up to there.
    fn partition_point(
        &self,
        bounds: QueueBounds,
        before: impl Fn(QueueOffset) -> Result<bool, ReadError>,
    ) -> Result<QueueOffset, ReadError> {
        let (mut low, mut high) = (bounds.min.get(), bounds.next.get());
        while low < high {
            let middle = low + (high - low) / 2;
            if before(QueueOffset::new(middle))? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(QueueOffset::new(low))
    }

    /// Bytes of the log; `None` if they are not there.
    pub(super) fn bytes_at(
        &self,
        offset: PhysicalOffset,
        len: usize,
    ) -> Result<Option<Bytes>, ReadError> {
        match self.log.read_bytes(offset, len, true) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ReadError::Purged { .. } | ReadError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn key_error(&self, error: std::io::Error) -> ReadError {
        let path = self.dir.join(super::open::KEYS_DIR);
        ReadError::Io {
            path,
            source: std::sync::Arc::new(error),
        }
    }
}

fn matches(view: &MessageView<'_>, query: &KeyQuery<'_>) -> bool {
    let time = view.store_timestamp();
    view.topic() == query.topic
        && (query.begin_ms..=query.end_ms).contains(&time)
        && message::keys(view.properties()).any(|key| key == query.key)
}
