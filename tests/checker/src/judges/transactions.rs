//! Half messages: visible once their commit was asked for and not before, and there once it is acked (I9).

use std::collections::{HashMap, HashSet};

use super::{Judge, each_read};
use crate::checker::{Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Queue, Request};

struct Half {
    sent: u64,
    /// Where it will be visible.
    queue: Option<Queue>,
    /// When a commit was first asked for.
    commit: Option<u64>,
    /// Where it was seen, and the event.
    place: Option<(Queue, u64, u64)>,
}

/// All half messages.
#[derive(Default)]
pub(super) struct Transactions {
    halves: HashMap<u64, Half>,
    /// Messages whose commit was acked, with the event, by queue.
    committed: HashMap<Queue, Vec<(u64, u64)>>,
}

impl Transactions {
    fn begun(&mut self, call: &Call) {
        match &call.request {
            Request::Send(send) if send.half => {
                let half = Half {
                    sent: call.number,
                    queue: None,
                    commit: None,
                    place: None,
                };
                self.halves.entry(send.id).or_insert(half);
            }
            Request::EndTransaction { id, commit: true } => {
                if let Some(half) = self.halves.get_mut(id) {
                    half.commit.get_or_insert(call.number);
                }
            }
            _ => {}
        }
    }

    fn answered(&mut self, number: u64, call: &Call, answer: &Answer, report: &mut Report) {
        match (&call.request, answer) {
            (Request::Send(send), Answer::Sent(sent)) if send.half => {
                if let Some(half) = self.halves.get_mut(&send.id) {
                    half.queue = Some(sent.queue.clone());
                }
            }
            (Request::EndTransaction { id, commit: true }, _) => {
                if let Some(queue) = self.halves.get(id).and_then(|half| half.queue.clone()) {
                    self.committed.entry(queue).or_default().push((*id, number));
                }
            }
            _ => each_read(call, answer, |queue, message| {
                if let Some(half) = self.halves.get_mut(&message.id) {
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
}

impl Half {
    fn seen(&mut self, id: u64, place: (&Queue, u64), number: u64, report: &mut Report) {
        let (queue, offset) = place;
        report.judged(Invariant::I9);
        if self.commit.is_none() {
            let text = format!("half message {id} is visible at {queue} {offset}");
            report.broken(Invariant::I9, &[self.sent, number], text);
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
                self.answered(moment.number, call, answer, report);
            }
            _ => {}
        }
    }
}
