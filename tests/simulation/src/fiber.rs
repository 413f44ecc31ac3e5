//! Threads of which one runs at a time: what production does on a thread of its own, a simulation does on
//! one that goes on only when it is told to and stops wherever the disk would make it wait.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Why a fiber has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// It wants to go on after this time.
    Sleep(Duration),
    /// It has nothing to do; it wants to go on when that changes, or after this time at the latest.
    Idle(Option<Duration>),
    /// It has ended.
    Ended,
}

thread_local! {
    static OWN: RefCell<Option<Inside>> = const { RefCell::new(None) };
}

/// A fiber's own side.
struct Inside {
    go_on: Receiver<()>,
    stopped: SyncSender<Pause>,
}

/// A thread that runs only while [`resume`](Fiber::resume) waits for it. One that is dropped never goes on:
/// its thread stays where it is until the process ends, as a killed process never gets another instruction.
pub struct Fiber {
    go_on: SyncSender<()>,
    stopped: Receiver<Pause>,
}

impl Fiber {
    /// A fiber that will do `work`, and has not begun.
    ///
    /// # Panics
    /// When the system has no thread to give.
    pub fn new(name: &str, work: impl FnOnce() + Send + 'static) -> Self {
        let (go_on, told) = sync_channel(1);
        let (tell, stopped) = sync_channel(1);
        let inside = Inside {
            go_on: told,
            stopped: tell,
        };
        let spawned = thread::Builder::new()
            .name(name.to_string())
            .stack_size(512 << 10)
            .spawn(move || {
                inside.wait();
                OWN.set(Some(inside));
                work();
            });
        spawned.expect("the system has a thread for a fiber");
        Fiber { go_on, stopped }
    }

    /// Lets it run until it stops; says why it did.
    pub fn resume(&self) -> Pause {
        if self.go_on.send(()).is_err() {
            return Pause::Ended;
        }
        self.stopped.recv().unwrap_or(Pause::Ended)
    }
}

impl Inside {
    fn wait(&self) {
        if self.go_on.recv().is_err() {
            // Nobody will ever let it go on.
            loop {
                thread::park();
            }
        }
    }
}

/// Whether the caller is a fiber.
pub fn is_fiber() -> bool {
    OWN.with_borrow(Option::is_some)
}

/// Stops the fiber that calls this until it is resumed; elsewhere it does nothing.
pub fn pause(why: Pause) {
    OWN.with_borrow(|own| {
        if let Some(inside) = own {
            if inside.stopped.send(why).is_ok() {
                inside.wait();
            } else {
                thread::park();
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_fiber_runs_only_when_it_is_resumed() {
        let done = Arc::new(AtomicU32::new(0));
        let seen = done.clone();
        let fiber = Fiber::new("counts", move || {
            for _ in 0..2 {
                seen.fetch_add(1, Ordering::Relaxed);
                assert!(is_fiber());
                pause(Pause::Idle(None));
            }
        });
        assert_eq!(done.load(Ordering::Relaxed), 0);
        assert_eq!(fiber.resume(), Pause::Idle(None));
        assert_eq!(done.load(Ordering::Relaxed), 1);
        assert_eq!(fiber.resume(), Pause::Idle(None));
        assert_eq!(fiber.resume(), Pause::Ended);
        assert_eq!(fiber.resume(), Pause::Ended);
        assert_eq!(done.load(Ordering::Relaxed), 2);
        assert!(!is_fiber());
    }
}
