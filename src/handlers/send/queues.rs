//! Which queue of its topic a message goes to.

use gantry_protocol::ResponseCode;
use gantry_storage::tables::{PERM_WRITE, Topic};

use crate::error::Failure;

/// The queue asked for, or one at random for a negative number.
pub(super) fn choose_queue(topic: &Topic, wanted: i32) -> Result<u16, Failure> {
    let config = &topic.config;
    if config.perm & PERM_WRITE == 0 {
        let reason = format!("topic {} may not be written", config.name);
        return Err(Failure::code(ResponseCode::NO_PERMISSION, reason));
    }
    let queues = config.write_queues.max(config.read_queues);
    if wanted < 0 {
        let any = std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .subsec_nanos();
        return Ok((any % u32::from(config.write_queues.max(1))) as u16);
    }
    match u16::try_from(wanted) {
        Ok(queue) if queue < queues => Ok(queue),
        _ => {
            let reason = format!(
                "topic {} has {queues} queues, not a queue {wanted}",
                config.name
            );
            Err(Failure::code(ResponseCode::INVALID_PARAMETER, reason))
        }
    }
}
