//! Appends events to a history file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

use crate::event::{Answer, Event, Note, Request, What};

/// A history file; shared by all threads of a process.
///
/// Times are taken while the file is held, so lines are in the order of time. Each line is one `write`: what
/// was recorded outlives the process, though not the machine.
pub struct Writer {
    file: Mutex<File>,
    next_call: AtomicU64,
}

impl Writer {
    /// Opens a history file, creating it if there is none; a file is written by one process at a time.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            file: Mutex::new(file),
            // A process that goes on with the file of a former one must not use its numbers again.
            next_call: AtomicU64::new(now_ns()),
        })
    }

    /// Records that `by` is about to ask something; gives the number of the operation.
    ///
    /// # Errors
    /// When the line cannot be written: the request must not be sent then.
    pub fn invoke(&self, by: &str, request: Request) -> io::Result<u64> {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        self.append(by, What::Invoke { call, request })?;
        Ok(call)
    }

    /// Records that an operation succeeded.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn ok(&self, by: &str, call: u64, answer: Answer) -> io::Result<()> {
        self.append(by, What::Ok { call, answer })
    }

    /// Records that an operation had no effect and never will.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn fail(&self, by: &str, call: u64, code: i32) -> io::Result<()> {
        self.append(by, What::Fail { call, code })
    }

    /// Records that the outcome of an operation is unknown.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn info(&self, by: &str, call: u64, code: Option<i32>) -> io::Result<()> {
        self.append(by, What::Info { call, code })
    }

    /// Records a fact about the cluster.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn note(&self, by: &str, note: Note) -> io::Result<()> {
        self.append(by, What::Note(note))
    }

    fn append(&self, by: &str, what: What) -> io::Result<()> {
        let mut event = Event {
            at: 0,
            by: by.to_string(),
            what,
        };
        let mut file = self
            .file
            .lock()
            .expect("nothing panics while the file is held");
        event.at = now_ns();
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        file.write_all(&line)
    }
}

/// Nanoseconds since the machine started: the same clock in all of its processes.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).expect("the monotonic clock is never negative");
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}
