//! Messages that wait, as they are in the log.

use bytes::Bytes;

use super::Store;
use crate::error::ReadError;
use crate::fs::BLOCK_BYTES;
use crate::message::{self, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN};
use crate::position::PhysicalOffset;

impl Store {
    /// The message at a place that the tables have as parked, as it is in the log: queue offset, physical
    /// offset and store host are not filled in. `None` if it is not there any more.
    ///
    /// Cheaper than [`message_at`](Self::message_at), which does not trust its caller.
    ///
    /// # Errors
    /// The disk refuses, or that part of the log is damaged.
    pub fn parked_message(&self, place: PhysicalOffset) -> Result<Option<Bytes>, ReadError> {
        let Some(prefix) = self.bytes_at(place, 4)? else {
            return Ok(None);
        };
        match size_of(&prefix) {
            Some(size) => self.bytes_at(place, size),
            None => Ok(None),
        }
    }

    /// As [`parked_message`](Self::parked_message), for one whose neighbours nobody asks for: not the whole
    /// record is read from the disk, but only the message, which has a checksum of its own.
    ///
    /// # Errors
    /// As there.
    pub fn parked_message_alone(&self, place: PhysicalOffset) -> Result<Option<Bytes>, ReadError> {
        match self.log.read_bytes(place, 4, false) {
            Err(ReadError::NotInMemory) => {}
            _ => return self.parked_message(place),
        }
        // What has no checksum, because it is older, and what is damaged are read the other way.
        match self.intact_message(place) {
            Some(message) => Ok(Some(message)),
            None => self.parked_message(place),
        }
    }

    fn intact_message(&self, place: PhysicalOffset) -> Option<Bytes> {
        let in_block = (place.get() % BLOCK_BYTES) as usize;
        let mut bytes = self
            .log
            .read_unchecked(place, 2 * BLOCK_BYTES as usize - in_block)?;
        let size = size_of(&bytes)?;
        if size > bytes.len() {
            bytes = self.log.read_unchecked(place, size)?;
        }
        bytes.truncate(size);
        message::is_intact(&bytes).then_some(bytes)
    }
}

/// The size that a message says it has, if a message may have it.
fn size_of(prefix: &[u8]) -> Option<usize> {
    let size = u32::from_be_bytes(*prefix.first_chunk()?) as usize;
    (MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX)
        .contains(&size)
        .then_some(size)
}
