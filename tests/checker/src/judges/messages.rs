//! Messages by what they are known by: sent before they are read, and no more often there than sent (I4, I5,
//! I13).

use std::collections::HashMap;

use super::clocks::Clocks;
use super::{Judge, each_read, holds_copies};
use crate::checker::{Bounds, Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Message, Queue, Request, Send};

const MS: u64 = 1_000_000;

/// A queue's short name here.
type QueueNumber = u32;

/// Where a message was seen.
struct Place {
    queue: QueueNumber,
    offset: u64,
    /// The event.
    number: u64,
    /// It came there within the window that began with the first send, for certain.
    is_within: bool,
}

struct Sending {
    crc: u32,
    /// For how long one copy is promised.
    once_ms: Option<u64>,
    /// The first send.
    first: Moment,
    /// Attempts that may have had their effect: all but those that certainly had none.
    tries: u32,
    places: Vec<Place>,
    /// The first read of it.
    read: Option<u64>,
}

/// All messages ever sent.
pub(super) struct Messages {
    clocks: Clocks,
    sendings: HashMap<u64, Sending>,
    queues: HashMap<Queue, QueueNumber>,
}

impl Messages {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            clocks: Clocks::new(bounds),
            sendings: HashMap::new(),
            queues: HashMap::new(),
        }
    }

    fn begun(&mut self, call: &Call, send: &Send, report: &mut Report) {
        let fresh = Sending {
            crc: send.crc,
            once_ms: send.once_ms,
            first: Moment {
                number: call.number,
                at: call.at,
            },
            tries: 0,
            places: Vec::new(),
            read: None,
        };
        let sending = self.sendings.entry(send.id).or_insert(fresh);
        if sending.crc != send.crc || sending.once_ms != send.once_ms {
            let text = format!("message {} is sent again as another message", send.id);
            let events = [sending.first.number, call.number];
            report.broken(Invariant::History, &events, text);
        }
        sending.tries += send.tries;
    }

    fn read(&mut self, queue: &Queue, message: &Message, moment: Moment, report: &mut Report) {
        let (short, number) = (self.short(queue), moment.number);
        report.judged(Invariant::I4);
        let Some(sending) = self.sendings.get_mut(&message.id) else {
            let text = format!(
                "{queue} {} holds message {}, which nobody has sent",
                message.offset, message.id
            );
            report.broken(Invariant::I4, &[number], text);
            return;
        };
        if sending.crc != message.crc {
            let text = format!(
                "message {} was sent with crc {:08x} and is read with {:08x}",
                message.id, sending.crc, message.crc
            );
            report.broken(Invariant::I4, &[sending.first.number, number], text);
        }
        sending.read.get_or_insert(number);
        if !holds_copies(&queue.topic) {
            sending.seen((short, message.offset), moment, &self.clocks);
        }
    }

    fn answered(&mut self, moment: Moment, call: &Call, answer: &Answer, report: &mut Report) {
        match (&call.request, answer) {
            (Request::Send(send), Answer::Sent(sent)) if send.is_plain() => {
                let short = self.short(&sent.queue);
                if let Some(sending) = self.sendings.get_mut(&send.id) {
                    sending.seen((short, sent.offset), moment, &self.clocks);
                }
            }
            _ => each_read(call, answer, |queue, message| {
                self.read(queue, message, moment, report);
            }),
        }
    }

    fn short(&mut self, queue: &Queue) -> QueueNumber {
        if let Some(short) = self.queues.get(queue) {
            return *short;
        }
        let short = u32::try_from(self.queues.len()).expect("a history has fewer than 2^32 queues");
        self.queues.insert(queue.clone(), short);
        short
    }
}

impl Judge for Messages {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Begun(call) => {
                if let Request::Send(send) = &call.request {
                    self.begun(call, send, report);
                }
            }
            Step::Ended {
                call,
                outcome: Outcome::Ok(answer),
            } => {
                self.answered(moment, call, answer, report);
            }
            Step::Ended {
                call,
                outcome: Outcome::Fail,
            } => {
                if let Request::Send(send) = &call.request
                    && let Some(sending) = self.sendings.get_mut(&send.id)
                {
                    sending.tries -= send.tries;
                }
            }
            Step::Noted(note) => self.clocks.noted(moment, note),
            _ => {}
        }
    }

    fn finish(&mut self, _moment: Moment, report: &mut Report) {
        for (id, sending) in &self.sendings {
            sending.judge(*id, report);
        }
    }
}

impl Sending {
    fn seen(&mut self, (queue, offset): (QueueNumber, u64), moment: Moment, clocks: &Clocks) {
        let mut places = self.places.iter();
        if places.any(|place| (place.queue, place.offset) == (queue, offset)) {
            return;
        }
        self.places.push(Place {
            queue,
            offset,
            number: moment.number,
            is_within: self.is_within(moment, clocks),
        });
    }

    /// Whether what is seen now came there within the window that began with the first send: a second one
    /// within it is one too many, whichever of the sends has stored it.
    fn is_within(&self, moment: Moment, clocks: &Clocks) -> bool {
        let Some(window_ms) = self.once_ms else {
            return false;
        };
        let window_ns = window_ms.saturating_mul(MS);
        let surely_ns = window_ns.saturating_sub(clocks.skew_at(moment.at));
        clocks.hold_since(self.first.number) && moment.at - self.first.at < surely_ns
    }

    fn judge(&self, id: u64, report: &mut Report) {
        let mut events = vec![self.first.number];
        events.extend(self.places.iter().map(|place| place.number));
        let copies = self.places.len();
        if let Some(read) = self.read
            && self.tries == 0
        {
            let text = format!("message {id} is read although every send of it failed");
            report.broken(Invariant::I4, &[self.first.number, read], text);
            return;
        }
        report.judged(Invariant::I5);
        if copies > self.tries as usize {
            let text = format!(
                "message {id} is at {copies} places after {} sends",
                self.tries
            );
            report.broken(Invariant::I5, &events, text);
        }
        let within = self.places.iter().filter(|place| place.is_within).count();
        if within > 0 {
            report.judged(Invariant::I13);
        }
        if within > 1 {
            let text = format!("message {id} is at {within} places in spite of its key");
            report.broken(Invariant::I13, &events, text);
        }
    }
}
