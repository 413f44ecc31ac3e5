//! Bytes on disk and deterministic state of one broker group; no raft, no wire, no async.

pub mod batch;
mod checkpoint;
mod codec;
pub mod commitlog;
pub mod config;
mod consume_queue;
pub mod error;
pub mod fs;
mod key_index;
pub mod message;
#[doc(hidden)]
pub mod planted;
pub mod position;
pub mod queue_offsets;
pub mod retention;
pub mod store;
pub mod table_copy;
pub mod tables;
#[doc(hidden)]
pub mod testing;

pub use config::{Clock, FlushMode, LogConfig};
pub use position::{LogIndex, PhysicalOffset, QueueOffset};
pub use queue_offsets::{QueueBounds, QueueKey};
pub use retention::{DiskPressure, RetentionConfig};
pub use store::{
    Applied, AppliedRow, QueueRead, ReadRequest, ReadStatus, RowResult, Snapshot, Store,
    StoreConfig, StoreError,
};
