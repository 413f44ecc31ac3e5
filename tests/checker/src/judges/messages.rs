//! Messages by what they are known by: sent before they are read, and no more often there than sent (I4, I5,
//! I13).

use std::collections::HashMap;

use super::{Judge, each_read, holds_copies};
use crate::checker::{Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Message, Queue, Request, Send};

/// A queue's short name here.
type QueueNumber = u32;

struct Sending {
    crc: u32,
    once: bool,
    /// Event of the first send.
    first: u64,
    /// Attempts that may have had their effect: all but those that certainly had none.
    tries: u32,
    /// Where it was seen, with the event.
    places: Vec<(QueueNumber, u64, u64)>,
    /// The first read of it.
    read: Option<u64>,
}

/// All messages ever sent.
#[derive(Default)]
pub(super) struct Messages {
    sendings: HashMap<u64, Sending>,
    queues: HashMap<Queue, QueueNumber>,
}

impl Messages {
    fn begun(&mut self, call: &Call, send: &Send, report: &mut Report) {
        let fresh = Sending {
            crc: send.crc,
            once: send.once,
            first: call.number,
            tries: 0,
            places: Vec::new(),
            read: None,
        };
        let sending = self.sendings.entry(send.id).or_insert(fresh);
        if sending.crc != send.crc || sending.once != send.once {
            let text = format!("message {} is sent again as another message", send.id);
            report.broken(Invariant::History, &[sending.first, call.number], text);
        }
        sending.tries += send.tries;
    }

    fn read(&mut self, queue: &Queue, message: &Message, number: u64, report: &mut Report) {
        let short = self.short(queue);
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
            report.broken(Invariant::I4, &[sending.first, number], text);
        }
        sending.read.get_or_insert(number);
        if !holds_copies(&queue.topic) {
            sending.seen(short, message.offset, number);
        }
    }

    fn answered(&mut self, number: u64, call: &Call, answer: &Answer, report: &mut Report) {
        match (&call.request, answer) {
            (Request::Send(send), Answer::Sent(sent)) if send.is_plain() => {
                let short = self.short(&sent.queue);
                if let Some(sending) = self.sendings.get_mut(&send.id) {
                    sending.seen(short, sent.offset, number);
                }
            }
            _ => each_read(call, answer, |queue, message| {
                self.read(queue, message, number, report);
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
                self.answered(moment.number, call, answer, report);
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
    fn seen(&mut self, queue: QueueNumber, offset: u64, number: u64) {
        let is_known = self
            .places
            .iter()
            .any(|place| (place.0, place.1) == (queue, offset));
        if !is_known {
            self.places.push((queue, offset, number));
        }
    }

    fn judge(&self, id: u64, report: &mut Report) {
        let mut events = vec![self.first];
        events.extend(self.places.iter().map(|place| place.2));
        let copies = self.places.len();
        if let Some(read) = self.read
            && self.tries == 0
        {
            let text = format!("message {id} is read although every send of it failed");
            report.broken(Invariant::I4, &[self.first, read], text);
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
        if self.once {
            report.judged(Invariant::I13);
            if copies > 1 {
                let text = format!("message {id} is at {copies} places in spite of its key");
                report.broken(Invariant::I13, &events, text);
            }
        }
    }
}
