//! Messages that wait, as they are in the log.

use bytes::Bytes;

use super::Store;
use super::search::size_of;
use crate::error::ReadError;
use crate::fs::BLOCK_BYTES;
use crate::message;
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
        self.message_bytes(place, true)
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
