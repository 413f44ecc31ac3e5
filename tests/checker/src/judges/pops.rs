//! Popped messages: invisible for their time, gone once acked (I11).

use std::collections::HashMap;

use super::Judge;
use crate::checker::{Bounds, Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Cursor, Popped, Request};

/// The last delivery of a message to a group.
struct Delivery {
    begun: u64,
    begun_at: u64,
    ended: u64,
    /// Clock time before which it cannot be visible again.
    hidden_until: u64,
    attempt: u32,
    acked: Option<u64>,
}

/// All deliveries, by group and queue, and by offset.
pub(super) struct Pops {
    skew_ns: u64,
    deliveries: HashMap<Cursor, HashMap<u64, Delivery>>,
}

impl Pops {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            skew_ns: bounds.skew_ns,
            deliveries: HashMap::new(),
        }
    }

    fn popped(&mut self, moment: Moment, call: &Call, one: &Popped, report: &mut Report) {
        let Request::Pop {
            group,
            invisible_ms,
            ..
        } = &call.request
        else {
            return;
        };
        let cursor = Cursor {
            group: group.clone(),
            queue: one.queue.clone(),
        };
        let hidden_until = call
            .at
            .saturating_add(invisible_ms.saturating_mul(1_000_000));
        let delivery = Delivery {
            begun: call.number,
            begun_at: call.at,
            ended: moment.number,
            hidden_until,
            attempt: one.attempt,
            acked: None,
        };
        report.judged(Invariant::I11);
        let offset = one.message.offset;
        let known = self.deliveries.entry(cursor).or_default();
        let Some(before) = known.get_mut(&offset) else {
            known.insert(offset, delivery);
            return;
        };
        let mut complain = |first: u64, what: &str| {
            let text = format!("{group} is given {} {offset} {what}", one.queue);
            report.broken(Invariant::I11, &[first, moment.number], text);
        };
        if let Some(acked) = before.acked.filter(|acked| *acked < delivery.begun) {
            complain(acked, "after its ack");
        }
        let follows = before.ended < delivery.begun;
        // Two that overlap may have happened either way round.
        let hidden_until = if follows {
            before.hidden_until
        } else {
            before.hidden_until.min(hidden_until)
        };
        if moment.at.saturating_add(self.skew_ns) < hidden_until {
            complain(before.ended, "while it is invisible");
        }
        if follows && delivery.attempt <= before.attempt {
            complain(before.ended, "without counting the attempt");
        }
        if follows || delivery.begun_at > before.begun_at {
            let acked = before.acked;
            *before = Delivery { acked, ..delivery };
        }
    }

    fn delivery(&mut self, call: &Call) -> Option<&mut Delivery> {
        match &call.request {
            Request::Ack { cursor, offset } | Request::Renew { cursor, offset, .. } => {
                self.deliveries.get_mut(cursor)?.get_mut(offset)
            }
            _ => None,
        }
    }
}

/// Clock time until which a renewal hides a message at least.
fn renewed_until(call: &Call) -> Option<u64> {
    match call.request {
        Request::Renew { invisible_ms, .. } => Some(
            call.at
                .saturating_add(invisible_ms.saturating_mul(1_000_000)),
        ),
        _ => None,
    }
}

impl Judge for Pops {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Begun(call) => {
                if let (Some(until), Some(delivery)) = (renewed_until(call), self.delivery(call)) {
                    delivery.hidden_until = delivery.hidden_until.min(until);
                }
            }
            Step::Ended {
                call,
                outcome: Outcome::Ok(answer),
            } => {
                if let Answer::Popped(popped) = answer {
                    for one in popped {
                        self.popped(moment, call, one, report);
                    }
                } else if let Some(delivery) = self.delivery(call) {
                    match renewed_until(call) {
                        Some(until) => delivery.hidden_until = until,
                        None => delivery.acked = delivery.acked.or(Some(moment.number)),
                    }
                }
            }
            _ => {}
        }
    }
}
