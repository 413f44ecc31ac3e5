//! For each queue of each topic: where in the log its messages are.
//!
//! Derived from the log: a queue's files may be deleted and come back. `tails` has what was applied and not
//! written yet, `files` the rest; a queue offset is in one of them, the border only moves up.

mod files;
mod format;
mod handles;
mod tails;

pub(crate) use files::QueueFiles;
pub(crate) use format::Unit;
pub(crate) use tails::{Due, PendingUnits, Tails};
