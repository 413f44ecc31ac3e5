//! Delayed messages: not before they are due, there once they are, and never once they were recalled (I10).

use std::collections::{HashMap, HashSet};

use super::clocks::Clocks;
use super::{Judge, each_read, holds_copies};
use crate::checker::{Bounds, Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Queue, Request, Send};

struct Timer {
    sent: u64,
    /// Clock time before which it cannot be due.
    due_at: u64,
    /// How many copies there may be.
    tries: u32,
    /// Somebody asked for it to be recalled.
    may_be_recalled: bool,
    /// It was, by this event.
    recalled: Option<u64>,
    /// Where it was seen.
    places: HashSet<(Queue, u64)>,
}

/// An acked message: when it is due at the latest, the message, the ack.
struct Due {
    at: u64,
    id: u64,
    acked: u64,
}

/// All delayed messages.
pub(super) struct Timers {
    clocks: Clocks,
    timers: HashMap<u64, Timer>,
    acked: HashMap<Queue, Vec<Due>>,
}

impl Timers {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            clocks: Clocks::new(bounds),
            timers: HashMap::new(),
            acked: HashMap::new(),
        }
    }

    fn begun(&mut self, call: &Call, send: &Send, delay_ms: u64) {
        let due_at = call.at.saturating_add(delay_ms.saturating_mul(1_000_000));
        let fresh = Timer {
            sent: call.number,
            due_at,
            tries: 0,
            may_be_recalled: false,
            recalled: None,
            places: HashSet::new(),
        };
        let timer = self.timers.entry(send.id).or_insert(fresh);
        timer.due_at = timer.due_at.min(due_at);
        timer.tries += send.tries;
    }

    fn answered(&mut self, moment: Moment, call: &Call, answer: &Answer, report: &mut Report) {
        if let (Request::Send(send), Answer::Sent(sent)) = (&call.request, answer) {
            if let Some(delay_ms) = send.delay_ms {
                let at = moment.at.saturating_add(delay_ms.saturating_mul(1_000_000));
                let due = Due {
                    at,
                    id: send.id,
                    acked: moment.number,
                };
                self.acked.entry(sent.queue.clone()).or_default().push(due);
            }
            return;
        }
        if let Request::Recall { id } = call.request {
            self.recalled(id, moment.number, report);
        }
        let clocks = &self.clocks;
        each_read(call, answer, |queue, message| {
            let timer = self.timers.get_mut(&message.id);
            if let Some(timer) = timer.filter(|_| !holds_copies(&queue.topic)) {
                let place = (queue, message.offset);
                timer.seen(message.id, place, (moment, clocks), report);
            }
        });
        if let (
            Request::Dump { queue, .. },
            Answer::Dumped {
                min: 0, messages, ..
            },
        ) = (&call.request, answer)
        {
            let there: HashSet<u64> = messages.iter().map(|message| message.id).collect();
            self.late(queue, call, &there, report);
        }
    }

    fn recalled(&mut self, id: u64, number: u64, report: &mut Report) {
        let Some(timer) = self.timers.get_mut(&id) else {
            return;
        };
        report.judged(Invariant::I10);
        timer.recalled.get_or_insert(number);
        if !timer.places.is_empty() && timer.tries == 1 {
            let text = format!("message {id} is recalled although it was delivered");
            report.broken(Invariant::I10, &[timer.sent, number], text);
        }
    }

    /// Whether a full read of a queue has all that is due there for long enough.
    fn late(&self, queue: &Queue, call: &Call, there: &HashSet<u64>, report: &mut Report) {
        for due in self.acked.get(queue).map_or(&[][..], Vec::as_slice) {
            let recalls = self
                .timers
                .get(&due.id)
                .is_some_and(|timer| timer.may_be_recalled);
            if recalls || !self.clocks.is_late(due.at, call.at) {
                continue;
            }
            report.judged(Invariant::I10);
            if !there.contains(&due.id) {
                let text = format!("{queue} does not have message {}, which is overdue", due.id);
                report.broken(Invariant::I10, &[due.acked, call.number], text);
            }
        }
    }
}

impl Timer {
    fn seen(
        &mut self,
        id: u64,
        place: (&Queue, u64),
        (moment, clocks): (Moment, &Clocks),
        report: &mut Report,
    ) {
        let (queue, offset) = place;
        report.judged(Invariant::I10);
        let latest_at = moment.at.saturating_add(clocks.skew_at(moment.at));
        let early_ns = self.due_at.saturating_sub(latest_at);
        if early_ns > 0 && clocks.hold_always() {
            let text = format!("message {id} is delivered {early_ns} ns before it is due");
            report.broken(Invariant::I10, &[self.sent, moment.number], text);
        }
        if let Some(recalled) = self.recalled.filter(|_| self.tries == 1) {
            let text = format!("message {id} is delivered although it was recalled");
            report.broken(Invariant::I10, &[recalled, moment.number], text);
        }
        self.places.insert((queue.clone(), offset));
        if self.places.len() > self.tries as usize {
            let text = format!("message {id} is delivered again, at {queue} {offset}");
            report.broken(Invariant::I10, &[self.sent, moment.number], text);
        }
    }
}

impl Judge for Timers {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Begun(call) => {
                if let Request::Send(send) = &call.request
                    && let Some(delay_ms) = send.delay_ms
                {
                    self.begun(call, send, delay_ms);
                }
                if let Request::Recall { id } = &call.request
                    && let Some(timer) = self.timers.get_mut(id)
                {
                    timer.may_be_recalled = true;
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
                // It is as if nobody had asked.
                if let Request::Recall { id } = &call.request
                    && let Some(timer) = self.timers.get_mut(id)
                {
                    timer.may_be_recalled = timer.recalled.is_some();
                }
            }
            Step::Noted(note) => self.clocks.noted(moment, note),
            Step::Ended { .. } => {}
        }
    }
}
