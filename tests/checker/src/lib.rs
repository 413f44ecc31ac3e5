//! Judges a history: what clients asked and were told, what was done to the cluster, and what its replicas
//! held in the end.
//!
//! [`Writer`] appends events to a file while a cluster is under load; [`Merged`] reads such files in the
//! order of time; [`Checker`] goes over them once and names every promise that was broken, with the events
//! that show it. The format of a line is in `tests/checker/README.md`, the judges and what they do not
//! cover are in [`judges`].
//!
//! Real time is the order of the events: an operation that ended before another began precedes it, and two
//! that overlap may have happened either way round. Nothing is concluded from an operation whose outcome is
//! unknown except that it may have happened, at any time after its beginning.

pub mod checker;
pub mod event;
pub mod judges;
pub mod reader;
pub mod verdict;
pub mod writer;

pub use checker::{Bounds, Checker, Invariant, Report, Violation};
pub use event::{Answer, Event, Note, Queue, Request, What};
pub use reader::{Entry, Merged, ReadError};
pub use writer::Writer;
