//! Work that may wait for the disk, away from the tasks that serve sockets and timers.

use std::cell::Cell;

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
    tokio::task::spawn_blocking(move || {
        step_back();
        work()
    })
    .await
}

/// Lets the threads that serve clients and write logs go first where processors are scarce: a consumer that
/// reads what is long past must not slow down producers. Nothing waits for a thread of this kind but who
/// asked for its work.
fn step_back() {
    const NICENESS: i32 = 5;
    thread_local! {
        static IS_BACK: Cell<bool> = const { Cell::new(false) };
    }
    if IS_BACK.get() {
        return;
    }
    IS_BACK.set(true);
    // On Linux this is of the calling thread, elsewhere of the process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "a thread beside the others keeps its priority");
    }
}
