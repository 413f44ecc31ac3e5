//! The history that the checker judges, written as it happens.

use std::sync::{Arc, Mutex, MutexGuard};

use gantry_checker::{Answer, Event, Note, Request, What};

use crate::time::Time;
use crate::trace::Trace;

/// A run's history. Clones write to the same.
#[derive(Clone)]
pub struct History {
    time: Time,
    trace: Trace,
    written: Arc<Mutex<Written>>,
}

#[derive(Default)]
struct Written {
    events: Vec<Event>,
    calls: u64,
    acked: u64,
}

impl History {
    /// An empty one.
    pub fn new(time: Time, trace: Trace) -> Self {
        History {
            time,
            trace,
            written: Arc::default(),
        }
    }

    /// `by` is about to ask something; gives the number of the operation.
    pub fn invoke(&self, by: &str, request: Request) -> u64 {
        let call = {
            let mut written = self.lock();
            written.calls += 1;
            written.calls
        };
        self.push(by, What::Invoke { call, request });
        call
    }

    /// An operation succeeded.
    pub fn ok(&self, by: &str, call: u64, answer: Answer) {
        self.lock().acked += u64::from(matches!(answer, Answer::Sent(_)));
        self.push(by, What::Ok { call, answer });
    }

    /// How many sends were acked.
    pub fn acked(&self) -> u64 {
        self.lock().acked
    }

    /// An operation had no effect and never will.
    pub fn fail(&self, by: &str, call: u64, code: i32) {
        self.push(by, What::Fail { call, code });
    }

    /// Nobody knows what became of an operation.
    pub fn info(&self, by: &str, call: u64, code: Option<i32>) {
        self.push(by, What::Info { call, code });
    }

    /// A fact about the cluster.
    pub fn note(&self, note: Note) {
        self.push("world", What::Note(note));
    }

    /// A fact that a client has seen.
    pub fn note_by(&self, by: &str, note: Note) {
        self.push(by, What::Note(note));
    }

    /// All of it.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    fn push(&self, by: &str, what: What) {
        let text = serde_json::to_string(&what).expect("an event is plain data");
        self.trace.line(by, format_args!("{text}"));
        let at = self.time.now_ns();
        let by = by.to_string();
        self.lock().events.push(Event { at, by, what });
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written
            .lock()
            .expect("writing an event does not panic")
    }
}
