//! Properties of a message without its body, for filters that look at them.

use bytes::Bytes;

use crate::consume_queue::Unit;
use crate::error::ReadError;
use crate::message::{self, BODY_PREFIX_BYTES};
use crate::position::PhysicalOffset;

/// A message up to this size is read at once: two reads would cost more than the body. Bytes.
const WHOLE_BYTES: usize = 8 << 10;

/// The properties text of the message at `unit`, with bytes of the log from `read`; `None` if it was
/// retired, or if there is no message.
pub(super) fn properties_at(
    unit: &Unit,
    mut read: impl FnMut((PhysicalOffset, usize)) -> Result<Bytes, ReadError>,
) -> Result<Option<Bytes>, ReadError> {
    let mut bytes_of = |at: usize, len: usize| match read((unit.offset.plus(at as u64), len)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ReadError::Purged { .. }) => Ok(None),
        Err(error) => Err(error),
    };
    let size = unit.size as usize;
    let head = if size <= WHOLE_BYTES {
        size
    } else {
        BODY_PREFIX_BYTES
    };
    let Some(prefix) = bytes_of(0, head)? else {
        return Ok(None);
    };
    let Ok(body_end) = message::body_end_of_prefix(&prefix) else {
        return Ok(None);
    };
    let texts = if size == head {
        prefix.get(body_end..).map(|texts| prefix.slice_ref(texts))
    } else {
        bytes_of(body_end, size.saturating_sub(body_end))?
    };
    Ok(texts.and_then(|texts| {
        let properties = message::properties_behind_body(&prefix, &texts).ok()?;
        Some(texts.slice_ref(properties))
    }))
}
