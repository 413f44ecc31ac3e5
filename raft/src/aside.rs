//! Work that may wait for the disk, away from the tasks that serve sockets and timers.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

/// Does `work` on a thread that may wait, and gives what comes of it.
///
/// A runtime of one thread has no other to go to, and who chose one wants everything on it, in an order
/// that can be repeated: there the work is a task like any other.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return tokio::spawn(async move { work() }).await;
    }
    tokio::task::spawn_blocking(work).await
}
