//! Half messages: visible once their commit was asked for and not before, there once it is acked, and
//! never once a rollback is; producers are asked about those that stay open, and about no others (I9).

use std::collections::{HashMap, HashSet};

use super::clocks::Clocks;
use super::{Judge, each_read, holds_copies};
use crate::checker::{Bounds, Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Note, Queue, Request};

struct Half {
    sent: u64,
    /// Where it will be visible.
    queue: Option<Queue>,
    /// When a commit was first asked for.
    commit: Option<u64>,
    /// Whether a rollback was.
    may_be_rolled_back: bool,
    /// What was acked, with the event and its time: a commit, or a rollback.
    ended: Option<(bool, Moment)>,
    /// When it was acked, or its producer last asked.
    asked: Option<Moment>,
    /// Where it was seen, and the event.
    place: Option<(Queue, u64, u64)>,
}

/// All half messages.
pub(super) struct Transactions {
    clocks: Clocks,
    late_ns: u64,
    asked_ns: u64,
    halves: HashMap<u64, Half>,
    /// Messages whose commit was acked, with the event, by queue.
    committed: HashMap<Queue, Vec<(u64, u64)>>,
}

impl Transactions {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let asking = Bounds {
            late_ns: bounds.asked_ns,
            ..bounds.clone()
        };
        Self {
            clocks: Clocks::new(&asking),
            late_ns: bounds.late_ns,
            asked_ns: bounds.asked_ns,
            halves: HashMap::new(),
            committed: HashMap::new(),
        }
    }

    fn begun(&mut self, call: &Call) {
        match &call.request {
            Request::Send(send) if send.half => {
                let half = Half {
                    sent: call.number,
                    queue: None,
                    commit: None,
                    may_be_rolled_back: false,
                    ended: None,
                    asked: None,
                    place: None,
                };
                self.halves.entry(send.id).or_insert(half);
            }
            Request::EndTransaction { id, commit: true } => {
                if let Some(half) = self.halves.get_mut(id) {
                    half.commit.get_or_insert(call.number);
                }
            }
            Request::EndTransaction { id, commit: false } => {
                if let Some(half) = self.halves.get_mut(id) {
                    half.may_be_rolled_back = true;
                }
            }
            _ => {}
        }
    }

    fn answered(&mut self, moment: Moment, call: &Call, answer: &Answer, report: &mut Report) {
        let number = moment.number;
        if let Request::EndTransaction { id, commit } = call.request
            && let Some(half) = self.halves.get_mut(&id)
        {
            half.ends(id, commit, moment, report);
        }
        match (&call.request, answer) {
            (Request::Send(send), Answer::Sent(sent)) if send.half => {
                if let Some(half) = self.halves.get_mut(&send.id) {
                    half.queue = Some(sent.queue.clone());
                    half.asked.get_or_insert(moment);
                }
            }
            (Request::EndTransaction { id, commit: true }, _) => {
                if let Some(queue) = self.halves.get(id).and_then(|half| half.queue.clone()) {
                    self.committed.entry(queue).or_default().push((*id, number));
                }
            }
            _ => each_read(call, answer, |queue, message| {
                let half = self.halves.get_mut(&message.id);
                if let Some(half) = half.filter(|_| !holds_copies(&queue.topic)) {
                    half.seen(message.id, (queue, message.offset), number, report);
                }
            }),
        }
        if let (
            Request::Dump { queue, .. },
            Answer::Dumped {
                min: 0, messages, ..
            },
        ) = (&call.request, answer)
        {
            let there: HashSet<u64> = messages.iter().map(|message| message.id).collect();
            let committed = self.committed.get(queue).map_or(&[][..], Vec::as_slice);
            for (id, acked) in committed.iter().filter(|(_, acked)| *acked < call.number) {
                report.judged(Invariant::I9);
                if !there.contains(id) {
                    let text =
                        format!("{queue} does not have message {id}, whose commit was acked");
                    report.broken(Invariant::I9, &[*acked, number], text);
                }
            }
        }
    }

    /// A producer was asked.
    fn asked(&mut self, id: u64, moment: Moment, report: &mut Report) {
        let Some(half) = self.halves.get_mut(&id) else {
            let text = format!("a producer is asked about message {id}, which is no half message");
            report.broken(Invariant::I9, &[moment.number], text);
            return;
        };
        report.judged(Invariant::I9);
        half.asked = Some(moment);
        // A question may have been under way for a while, or for as long as faults held it up.
        if let Some((_, ended)) = half.ended
            && self.clocks.were_calm(ended.at, moment.at, 2 * self.late_ns)
        {
            let text = format!("a producer is asked about message {id}, which has ended");
            report.broken(Invariant::I9, &[ended.number, moment.number], text);
        }
    }
}

impl Half {
    /// A commit or a rollback was acked.
    fn ends(&mut self, id: u64, commit: bool, moment: Moment, report: &mut Report) {
        let (first, before) = *self.ended.get_or_insert((commit, moment));
        if first != commit {
            let text = format!("message {id} is both committed and rolled back");
            report.broken(Invariant::I9, &[before.number, moment.number], text);
        }
        if let Some((_, _, seen)) = self.place.as_ref().filter(|_| !commit) {
            let text = format!("message {id} is rolled back although it was visible");
            report.broken(Invariant::I9, &[*seen, moment.number], text);
        }
    }

    fn seen(&mut self, id: u64, place: (&Queue, u64), number: u64, report: &mut Report) {
        let (queue, offset) = place;
        report.judged(Invariant::I9);
        if self.commit.is_none() {
            let text = format!("half message {id} is visible at {queue} {offset}");
            report.broken(Invariant::I9, &[self.sent, number], text);
        }
        if let Some((false, rolled_back)) = self.ended {
            let text = format!("message {id} was rolled back, and is visible at {queue} {offset}");
            report.broken(Invariant::I9, &[rolled_back.number, number], text);
        }
        let (first_queue, first_offset, first) = self
            .place
            .get_or_insert_with(|| (queue.clone(), offset, number));
        if (&*first_queue, *first_offset) != (queue, offset) {
            let text = format!(
                "half message {id} is visible at {first_queue} {first_offset} and at {queue} {offset}"
            );
            report.broken(Invariant::I9, &[*first, number], text);
        }
    }
}

impl Judge for Transactions {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Begun(call) => self.begun(call),
            Step::Ended {
                call,
                outcome: Outcome::Ok(answer),
            } => {
                self.answered(moment, call, answer, report);
            }
            Step::Noted(Note::Checked { id }) => self.asked(*id, moment, report),
            Step::Noted(note) => self.clocks.noted(moment, note),
            Step::Ended { .. } => {}
        }
    }

    fn finish(&mut self, moment: Moment, report: &mut Report) {
        let open = self.halves.iter().filter(|(_, half)| {
            half.commit.is_none() && !half.may_be_rolled_back && half.ended.is_none()
        });
        for (id, half) in open {
            let Some(asked) = half.asked else {
                continue;
            };
            if self.clocks.is_late(asked.at, moment.at) {
                let text = format!(
                    "message {id} is open, and nobody was asked for {} ns and more",
                    self.asked_ns
                );
                report.broken(Invariant::I9, &[asked.number, moment.number], text);
            }
        }
    }
}
