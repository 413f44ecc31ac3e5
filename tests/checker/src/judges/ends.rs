//! The ends of queues: they never go back (I7), and a pull is never sent back behind an ack (I12).

use std::collections::HashMap;

use super::Judge;
use crate::checker::{Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Note, Queue, Request};

/// An offset and the event that showed it.
#[derive(Clone, Copy, Default)]
struct Shown {
    offset: u64,
    number: u64,
}

impl Shown {
    fn raise(&mut self, other: Self) {
        if self.number == 0 || other.offset > self.offset {
            *self = other;
        }
    }
}

/// What must be seen by an operation that has begun.
struct Floors {
    /// By all that are up to date.
    current: Shown,
    /// By this client at each node.
    nodes: HashMap<String, Shown>,
}

/// The ends of all queues.
#[derive(Default)]
pub(super) struct Ends {
    /// Highest end shown by an ack or an answer that was up to date.
    current: HashMap<Queue, Shown>,
    /// Highest end shown by a node to a client.
    nodes: HashMap<(String, Queue), HashMap<String, Shown>>,
    /// By the number of the operation.
    open: HashMap<u64, Floors>,
    /// When each node was last started.
    started: HashMap<String, u64>,
}

fn queue_of(call: &Call) -> Option<&Queue> {
    match &call.request {
        Request::Pull { queue, .. } | Request::MaxOffset { queue } => Some(queue),
        _ => None,
    }
}

impl Ends {
    fn floors(&self, by: &str, queue: &Queue) -> Floors {
        let nodes = self.nodes.get(&(by.to_string(), queue.clone()));
        Floors {
            current: self.current.get(queue).copied().unwrap_or_default(),
            nodes: nodes.cloned().unwrap_or_default(),
        }
    }

    fn answered(&mut self, number: u64, call: &Call, answer: &Answer, report: &mut Report) {
        let Some(queue) = queue_of(call) else {
            if let (Request::Send(send), Answer::Sent(sent)) = (&call.request, answer)
                && send.is_plain()
            {
                let shown = Shown {
                    offset: sent.offset.saturating_add(1),
                    number,
                };
                self.raise_current(&sent.queue, shown);
            }
            return;
        };
        let Some(floors) = self.open.remove(&call.number) else {
            return;
        };
        match (&call.request, answer) {
            (
                Request::MaxOffset { .. },
                Answer::End {
                    node,
                    offset,
                    current,
                },
            ) => {
                let shown = Shown {
                    offset: *offset,
                    number,
                };
                if *current {
                    self.not_before(queue, floors.current, shown, report);
                    self.raise_current(queue, shown);
                }
                self.shown_by(node.as_deref(), call, &floors, shown, report);
            }
            (
                Request::Pull { from, .. },
                Answer::Pulled {
                    node, max, next, ..
                },
            ) => {
                let shown = Shown {
                    offset: *max,
                    number,
                };
                self.shown_by(node.as_deref(), call, &floors, shown, report);
                report.judged(Invariant::I12);
                if *next < *from && *from <= floors.current.offset {
                    let text = format!(
                        "a pull of {queue} from {from} is sent back to {next}, but it ended at {} before",
                        floors.current.offset
                    );
                    report.broken(Invariant::I12, &[floors.current.number, number], text);
                }
            }
            _ => {}
        }
    }

    fn shown_by(
        &mut self,
        node: Option<&str>,
        call: &Call,
        floors: &Floors,
        shown: Shown,
        report: &mut Report,
    ) {
        let (Some(node), Some(queue)) = (node, queue_of(call)) else {
            return;
        };
        let started = self.started.get(node).copied().unwrap_or(0);
        if let Some(floor) = floors
            .nodes
            .get(node)
            .filter(|floor| floor.number > started)
        {
            self.not_before(queue, *floor, shown, report);
        }
        let known = self
            .nodes
            .entry((call.by.clone(), queue.clone()))
            .or_default();
        known.entry(node.to_string()).or_default().raise(shown);
    }

    fn not_before(&self, queue: &Queue, floor: Shown, shown: Shown, report: &mut Report) {
        report.judged(Invariant::I7);
        if shown.offset < floor.offset {
            let text = format!("{queue} ends at {}, after {}", shown.offset, floor.offset);
            report.broken(Invariant::I7, &[floor.number, shown.number], text);
        }
    }

    fn raise_current(&mut self, queue: &Queue, shown: Shown) {
        self.current.entry(queue.clone()).or_default().raise(shown);
    }
}

impl Judge for Ends {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Begun(call) => {
                if let Some(queue) = queue_of(call) {
                    let floors = self.floors(&call.by, queue);
                    self.open.insert(call.number, floors);
                }
            }
            Step::Ended {
                call,
                outcome: Outcome::Ok(answer),
            } => {
                self.answered(moment.number, call, answer, report);
            }
            Step::Ended { call, .. } => {
                self.open.remove(&call.number);
            }
            // What a node shows after a restart may be behind what it showed before.
            Step::Noted(Note::Started { node }) => {
                self.started.insert(node.clone(), moment.number);
                self.nodes.values_mut().for_each(|nodes| {
                    nodes.remove(node);
                });
            }
            Step::Noted(_) => {}
        }
    }
}
