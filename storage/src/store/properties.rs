//! Properties of a message without its body, for filters that look at them.

use bytes::Bytes;

use super::Store;
use crate::consume_queue::Unit;
use crate::error::ReadError;
use crate::message::{self, BODY_PREFIX_BYTES};

/// A message up to this size is read at once: two reads would cost more than the body. Bytes.
const WHOLE_BYTES: usize = 8 << 10;

impl Store {
    /// The properties text of the message at `unit`; `None` if it was retired, or if there is no message.
    pub(super) fn properties_at(
        &self,
        unit: &Unit,
        may_wait: bool,
    ) -> Result<Option<Bytes>, ReadError> {
        let size = unit.size as usize;
        let head = if size <= WHOLE_BYTES {
            size
        } else {
            BODY_PREFIX_BYTES
        };
        let Some(prefix) = self.bytes_of(unit, 0, head, may_wait)? else {
            return Ok(None);
        };
        let Ok(body_end) = message::body_end_of_prefix(&prefix) else {
            return Ok(None);
        };
        let texts = if size == head {
            prefix.get(body_end..).map(|texts| prefix.slice_ref(texts))
        } else {
            let len = size.saturating_sub(body_end);
            self.bytes_of(unit, body_end, len, may_wait)?
        };
        Ok(texts.and_then(|texts| {
            let properties = message::properties_behind_body(&prefix, &texts).ok()?;
            Some(texts.slice_ref(properties))
        }))
    }

    /// `len` bytes of a message from its byte `at` on.
    fn bytes_of(
        &self,
        unit: &Unit,
        at: usize,
        len: usize,
        may_wait: bool,
    ) -> Result<Option<Bytes>, ReadError> {
        match self
            .log
            .read_bytes(unit.offset.plus(at as u64), len, may_wait)
        {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ReadError::Purged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
