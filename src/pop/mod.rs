//! Handing messages out one by one (POP): who gets which, who waits, what the handles say, and what becomes
//! of messages that nobody acknowledged. The state itself is replicated: `gantry_storage::tables::Leases`.

mod expiry;
mod handle;
mod source;
mod take;
mod waiters;

pub use expiry::run as run_expiry;
pub use handle::{Handle, IN_ORDER, INVISIBLE_MS_MAX, RetryKind};
pub use source::{Source, sources, topic_of_redelivery};
pub use take::{Pops, Start, Taken, TakenQueue, Taking};
pub use waiters::{Full, Waiter, Waiters};
