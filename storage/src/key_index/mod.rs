//! Message key -> where in the log the messages with that key are, one index per segment of the log.
//!
//! Derived from the log: the files may be deleted and come back. Entries are hash and position only; whoever
//! looks something up checks the key on the message itself. `pending` has what was applied and is not in a
//! full run yet, `files` the sorted runs on disk.

mod files;
mod format;
pub(crate) mod formats;
mod pending;

pub(crate) use files::KeyFiles;
pub(crate) use format::KeyEntry;
pub(crate) use pending::{KeyBatch, PendingKeys};
