//! What a node must not do: answer for its group while it is isolated (I14), ack after its disk failed (I17).

use std::collections::HashMap;

use super::Judge;
use crate::checker::{Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, FaultClass, Note};

/// A fault that a node is under.
struct Plight {
    name: String,
    since: u64,
}

/// Which nodes must be silent.
#[derive(Default)]
pub(super) struct Nodes {
    isolated: HashMap<String, Vec<Plight>>,
    /// With the event since when.
    disk_failed: HashMap<String, u64>,
}

impl Nodes {
    fn answered(&self, number: u64, call: &Call, answer: &Answer, report: &mut Report) {
        let (node, is_ack) = match answer {
            Answer::Sent(sent) => (&sent.node, true),
            Answer::End {
                node,
                current: true,
                ..
            } => (node, false),
            _ => return,
        };
        let Some(node) = node else {
            return;
        };
        let verb = if is_ack { "acks" } else { "answers" };
        if !self.isolated.is_empty() {
            report.judged(Invariant::I14);
        }
        let plights = self.isolated.get(node).map_or(&[][..], Vec::as_slice);
        if let Some(plight) = plights.iter().find(|plight| plight.since < call.number) {
            let text = format!("{node} {verb} what was asked after it was isolated");
            report.broken(Invariant::I14, &[plight.since, call.number, number], text);
        }
        if is_ack && !self.disk_failed.is_empty() {
            report.judged(Invariant::I17);
        }
        if let Some(since) = self
            .disk_failed
            .get(node)
            .filter(|since| **since < call.number)
            && is_ack
        {
            let text = format!("{node} acks what was sent after its disk failed");
            report.broken(Invariant::I17, &[*since, call.number, number], text);
        }
    }

    fn noted(&mut self, number: u64, note: &Note) {
        match note {
            Note::Fault {
                name,
                class: FaultClass::Isolate,
                nodes,
            } => {
                for node in nodes {
                    let plight = Plight {
                        name: name.clone(),
                        since: number,
                    };
                    self.isolated.entry(node.clone()).or_default().push(plight);
                }
            }
            Note::Fault {
                class: FaultClass::DiskFailure,
                nodes,
                ..
            } => {
                for node in nodes {
                    self.disk_failed.entry(node.clone()).or_insert(number);
                }
            }
            Note::Heal { name } => self.isolated.retain(|_, plights| {
                plights.retain(|plight| plight.name != *name);
                !plights.is_empty()
            }),
            Note::Started { node } => {
                self.disk_failed.remove(node);
            }
            _ => {}
        }
    }
}

impl Judge for Nodes {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Ended {
                call,
                outcome: Outcome::Ok(answer),
            } => {
                self.answered(moment.number, call, answer, report);
            }
            Step::Noted(note) => self.noted(moment.number, note),
            _ => {}
        }
    }
}
