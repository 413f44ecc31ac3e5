//! What was acked is found by its key from its ack on, wherever it is looked for, and nothing else is (I1).

use std::collections::HashMap;

use super::Judge;
use crate::checker::{Bounds, Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Found, Request};

/// All messages that were acked.
pub(super) struct Lookups {
    retention: bool,
    /// By the message: the event that acked it first.
    acked: HashMap<u64, u64>,
}

impl Lookups {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            retention: bounds.retention,
            acked: HashMap::new(),
        }
    }

    fn found(&self, number: u64, (call, id): (&Call, u64), found: &[Found], report: &mut Report) {
        report.judged(Invariant::I1);
        for other in found.iter().filter(|found| found.message.id != id) {
            let Found { queue, message } = other;
            let text = format!(
                "a lookup of message {id} gives {} at {} of {queue}",
                message.id, message.offset
            );
            report.broken(Invariant::I1, &[call.number, number], text);
        }
        let Some(acked) = self.acked.get(&id).filter(|acked| **acked < call.number) else {
            return;
        };
        if found.is_empty() && !self.retention {
            let text = format!("message {id} was acked and is not found by its key");
            report.broken(Invariant::I1, &[*acked, call.number, number], text);
        }
    }
}

impl Judge for Lookups {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        let Step::Ended {
            call,
            outcome: Outcome::Ok(answer),
        } = step
        else {
            return;
        };
        match (&call.request, answer) {
            (Request::Send(send), Answer::Sent(_)) if send.is_plain() => {
                self.acked.entry(send.id).or_insert(moment.number);
            }
            (Request::Lookup { id }, Answer::Found(found)) => {
                self.found(moment.number, (call, *id), found, report);
            }
            _ => {}
        }
    }
}
