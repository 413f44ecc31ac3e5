//! Delayed messages: not before they are due, and there once they are (I10).

use std::collections::{HashMap, HashSet};

use super::{Judge, each_read};
use crate::checker::{Bounds, Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Note, Queue, Request, Send};

struct Timer {
    sent: u64,
    /// Clock time before which it cannot be due.
    due_at: u64,
    /// How many copies there may be.
    tries: u32,
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
    skew_ns: u64,
    late_ns: u64,
    timers: HashMap<u64, Timer>,
    acked: HashMap<Queue, Vec<Due>>,
    faults: HashSet<String>,
    /// When the last fault ended.
    healed_at: u64,
}

impl Timers {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            skew_ns: bounds.skew_ns,
            late_ns: bounds.late_ns,
            timers: HashMap::new(),
            acked: HashMap::new(),
            faults: HashSet::new(),
            healed_at: 0,
        }
    }

    fn begun(&mut self, call: &Call, send: &Send, delay_ms: u64) {
        let due_at = call.at.saturating_add(delay_ms.saturating_mul(1_000_000));
        let fresh = Timer {
            sent: call.number,
            due_at,
            tries: 0,
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
        let skew_ns = self.skew_ns;
        each_read(call, answer, |queue, message| {
            if let Some(timer) = self.timers.get_mut(&message.id) {
                timer.seen(
                    message.id,
                    (queue, message.offset),
                    (moment, skew_ns),
                    report,
                );
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

    /// Whether a full read of a queue has all that is due there for long enough.
    fn late(&self, queue: &Queue, call: &Call, there: &HashSet<u64>, report: &mut Report) {
        if !self.faults.is_empty() {
            return;
        }
        let patience_ns = self.late_ns.saturating_add(self.skew_ns);
        for due in self.acked.get(queue).map_or(&[][..], Vec::as_slice) {
            if due.at.max(self.healed_at).saturating_add(patience_ns) > call.at {
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
        (moment, skew_ns): (Moment, u64),
        report: &mut Report,
    ) {
        let (queue, offset) = place;
        report.judged(Invariant::I10);
        let early_ns = self
            .due_at
            .saturating_sub(moment.at.saturating_add(skew_ns));
        if early_ns > 0 {
            let text = format!("message {id} is delivered {early_ns} ns before it is due");
            report.broken(Invariant::I10, &[self.sent, moment.number], text);
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
            }
            Step::Ended {
                call,
                outcome: Outcome::Ok(answer),
            } => {
                self.answered(moment, call, answer, report);
            }
            Step::Noted(Note::Fault { name, .. }) => {
                self.faults.insert(name.clone());
            }
            Step::Noted(Note::Heal { name }) => {
                self.faults.remove(name);
                self.healed_at = moment.at;
            }
            _ => {}
        }
    }
}
