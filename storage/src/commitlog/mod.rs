//! The log of one group: records in segment files, written by one thread, read by all.
//!
//! ```text
//!  append ──> View (memory: positions, tail) ──> readers
//!        └──> queue ──> Writer (thread) ──> segment files, mark, vote ──> callbacks
//! ```
//!
//! Physical space is cut into segments of a fixed size. Which record goes where is a function of the log
//! alone, so that physical offsets are equal on all replicas. `format` has the bytes, `recovery` says what
//! survives a crash, `mark` why a torn tail and damage are told apart, `damage` what is done about damage.

mod blocks;
mod budget;
mod cold;
mod cursor;
mod damage;
mod format;
pub(crate) mod formats;
mod group;
mod hard_state;
mod holes;
mod log;
mod mark;
mod mend;
mod reader;
mod recovery;
mod segment;
mod shared;
mod sidecar;
mod spares;
mod sparse;
mod tail;
mod view;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

pub use budget::MemoryBudget;
pub use damage::{DamageObserver, DamageStats, MendDone, Scrubbed, Withheld};
pub use format::{
    LeaderTag, Located, RECORD_ALIGN, RECORD_HEADER_BYTES, Record, RecordKind, encoded_len,
};
pub use holes::Hole;
pub use log::{Bounds, CommitLog, Done, FlushObserver, FlushedGroup, LogStats, SegmentInfo};
pub use mend::MendError;
pub use reader::ReadAhead;
pub use recovery::Recovered;
pub use view::LogStart;
pub use writer::{Turn, Writer};

pub(crate) use format::segment_base;
pub(crate) use mark::durable_range;
