//! Messages that wait, as they are in the log.

use bytes::Bytes;

use super::Store;
use crate::error::ReadError;
use crate::message::{MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN};
use crate::position::PhysicalOffset;

impl Store {
    /// The message at a place that the tables have as parked, as it is in the log: queue offset, physical
    /// offset and store host are zero. `None` if it is not there any more.
    ///
    /// Cheaper than [`message_at`](Self::message_at), which does not trust its caller.
    ///
    /// # Errors
    /// The disk refuses, or that part of the log is damaged.
    pub fn parked_message(&self, place: PhysicalOffset) -> Result<Option<Bytes>, ReadError> {
        let Some(prefix) = self.bytes_at(place, 4)? else {
            return Ok(None);
        };
        let size = prefix.first_chunk().map(|size| u32::from_be_bytes(*size));
        let size = size.unwrap_or_default() as usize;
        if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&size) {
            return Ok(None);
        }
        self.bytes_at(place, size)
    }
}
