//! A disk in memory that fails on purpose and shows what a power cut may leave behind. For tests only, here
//! and in the crates above.
//!
//! [`FaultyFs`] records every operation that changes something. [`FaultyFs::crash_image`] builds a disk from
//! the first `n` of them: what was synced among those is there for certain; of the rest, each write may be
//! there, be missing, or be there in part (some of its pages, or torn at any byte), and each creation,
//! renaming and removal may be there or not. This is more than real file systems do to us, on purpose.

mod disk;
mod faulty_fs;
mod formats;
mod live;
mod promised;

pub use disk::Operation;
pub use faulty_fs::{Fault, FaultyFs};
pub use formats::Format;
pub use live::{Access, AccessKind, Choose, Gate};
pub use promised::durable_log;
