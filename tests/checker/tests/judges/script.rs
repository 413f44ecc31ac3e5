//! Histories, written down event by event.

use gantry_checker::event::{Cursor, Locks, Message, Popped, Send, Sent};
use gantry_checker::{Answer, Bounds, Checker, Event, Note, Queue, Report, Request, What};

pub const MS: u64 = 1_000_000;

/// A history in the making; each event is a millisecond after the last.
#[derive(Default)]
pub struct Script {
    pub events: Vec<Event>,
    pub at: u64,
    calls: u64,
}

impl Script {
    /// What follows a history.
    pub fn after(events: &[Event]) -> Self {
        let at = events.last().map_or(0, |event| event.at);
        Self {
            at,
            ..Self::default()
        }
    }

    pub fn wait(&mut self, ms: u64) {
        self.at += ms * MS;
    }

    fn push(&mut self, by: &str, what: What) {
        self.at += MS;
        let event = Event {
            at: self.at,
            by: by.to_string(),
            what,
        };
        self.events.push(event);
    }

    pub fn invoke(&mut self, by: &str, request: Request) -> u64 {
        self.calls += 1;
        let call = self.calls;
        self.push(by, What::Invoke { call, request });
        call
    }

    pub fn ok(&mut self, by: &str, call: u64, answer: Answer) {
        self.push(by, What::Ok { call, answer });
    }

    pub fn fail(&mut self, by: &str, call: u64) {
        self.push(by, What::Fail { call, code: 1 });
    }

    pub fn info(&mut self, by: &str, call: u64) {
        self.push(by, What::Info { call, code: None });
    }

    pub fn note(&mut self, note: Note) {
        self.push("harness", What::Note(note));
    }

    /// An operation that nothing overlaps.
    pub fn call(&mut self, by: &str, request: Request, answer: Answer) {
        let call = self.invoke(by, request);
        self.ok(by, call, answer);
    }

    /// A message that is sent and acked.
    pub fn send(&mut self, by: &str, id: u64, offset: u64) {
        self.call(by, plain(id), sent(&queue(0), offset));
    }

    /// A full read of queue 0 that finds these ids from offset 0 on.
    pub fn dump(&mut self, node: &str, ids: &[u64]) {
        let messages: Vec<Message> = (0..)
            .zip(ids)
            .map(|(offset, id)| message(&queue(0), offset, *id))
            .collect();
        let next = messages.len() as u64;
        let request = Request::Dump {
            node: node.to_string(),
            queue: queue(0),
        };
        self.call(
            "harness",
            request,
            Answer::Dumped {
                min: 0,
                next,
                messages,
            },
        );
    }
}

pub fn judge(events: &[Event], bounds: &Bounds) -> Report {
    let mut checker = Checker::new(bounds);
    for event in events {
        checker.see(event.clone());
    }
    checker.finish()
}

pub fn queue(number: u16) -> Queue {
    Queue {
        broker: "a".to_string(),
        topic: "t".to_string(),
        queue: number,
    }
}

pub fn crc(id: u64) -> u32 {
    (id as u32).wrapping_mul(2_654_435_761)
}

/// A message that is visible at once.
pub fn message_to_send(id: u64) -> Send {
    Send {
        topic: "t".to_string(),
        id,
        crc: crc(id),
        tries: 1,
        half: false,
        delay_ms: None,
        once_ms: None,
    }
}

pub fn plain(id: u64) -> Request {
    Request::Send(message_to_send(id))
}

fn physical(queue: &Queue, offset: u64) -> Option<u64> {
    Some(u64::from(queue.queue) * 1_000_000_000 + offset * 100)
}

pub fn sent(queue: &Queue, offset: u64) -> Answer {
    sent_by("n1", queue, offset)
}

pub fn sent_by(node: &str, queue: &Queue, offset: u64) -> Answer {
    Answer::Sent(Sent {
        queue: queue.clone(),
        offset,
        physical: physical(queue, offset),
        message_id: format!("{queue}-{offset}"),
        node: Some(node.to_string()),
    })
}

pub fn message(queue: &Queue, offset: u64, id: u64) -> Message {
    Message {
        offset,
        physical: physical(queue, offset),
        id,
        crc: crc(id),
        times: 0,
    }
}

pub fn popped(queue: &Queue, offset: u64, id: u64, attempt: u32) -> Popped {
    Popped {
        queue: queue.clone(),
        message: message(queue, offset, id),
        attempt,
    }
}

pub fn cursor(group: &str, number: u16) -> Cursor {
    Cursor {
        group: group.to_string(),
        queue: queue(number),
    }
}

pub fn locks(owner: &str) -> Locks {
    Locks {
        group: "g".to_string(),
        owner: owner.to_string(),
        queues: vec![queue(0)],
    }
}
