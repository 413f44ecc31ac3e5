//! What must happen within a time: sends succeed again (L1), replicas catch up (L2), consumers reach the
//! end (L3).
//!
//! A wait begins when the last fault has ended. It is given up, unjudged, when another fault begins or the
//! history ends before its time is over.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::Judge;
use crate::checker::{Bounds, Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Cursor, Note, Queue, Request};

/// What is waited for, by whom.
struct Waits<K> {
    invariant: Invariant,
    bound_ns: u64,
    /// Since when, and the value to be reached.
    open: HashMap<K, (Moment, u64)>,
}

impl<K: Hash + Eq + std::fmt::Debug> Waits<K> {
    fn new(invariant: Invariant, bound_ns: u64) -> Self {
        Self {
            invariant,
            bound_ns,
            open: HashMap::new(),
        }
    }

    fn begin(&mut self, who: K, moment: Moment, target: u64) {
        self.open.entry(who).or_insert((moment, target));
    }

    fn reached(&mut self, who: &K, value: u64, moment: Moment, report: &mut Report) {
        let Some((since, target)) = self.open.get(who).copied() else {
            return;
        };
        if value >= target {
            self.open.remove(who);
            self.judge(who, since, moment, report);
        }
    }

    /// Nothing more can be expected.
    fn give_up(&mut self, moment: Moment, report: &mut Report) {
        for (who, (since, _)) in std::mem::take(&mut self.open) {
            if moment.at > since.at.saturating_add(self.bound_ns) {
                self.judge(&who, since, moment, report);
            }
        }
    }

    fn judge(&self, who: &K, since: Moment, moment: Moment, report: &mut Report) {
        report.judged(self.invariant);
        let took_ns = moment.at.saturating_sub(since.at);
        if took_ns > self.bound_ns {
            let text = format!(
                "{who:?} waited {took_ns} ns, more than {} ns",
                self.bound_ns
            );
            report.broken(self.invariant, &[since.number, moment.number], text);
        }
    }
}

/// All waits.
pub(super) struct Liveness {
    resume_ns: u64,
    faults: HashSet<String>,
    load_ended: bool,
    /// By broker group.
    sends: Waits<String>,
    last_ack_at: HashMap<String, u64>,
    /// Broker groups that took messages when the first of the present faults began.
    loaded: Vec<String>,
    /// By broker group and node.
    replicas: Waits<(String, String)>,
    members: HashMap<String, Vec<String>>,
    committed: HashMap<String, u64>,
    consumers: Waits<Cursor>,
    ends: HashMap<Queue, u64>,
    cursors: HashMap<Cursor, u64>,
}

impl Liveness {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            resume_ns: bounds.resume_ns,
            faults: HashSet::new(),
            load_ended: false,
            sends: Waits::new(Invariant::L1, bounds.resume_ns),
            last_ack_at: HashMap::new(),
            loaded: Vec::new(),
            replicas: Waits::new(Invariant::L2, bounds.catch_up_ns),
            members: HashMap::new(),
            committed: HashMap::new(),
            consumers: Waits::new(Invariant::L3, bounds.drain_ns),
            ends: HashMap::new(),
            cursors: HashMap::new(),
        }
    }

    fn noted(&mut self, moment: Moment, note: &Note, report: &mut Report) {
        match note {
            Note::Cluster { broker, nodes } => {
                self.members.insert(broker.clone(), nodes.clone());
            }
            Note::Fault { name, .. } => self.disturbed(moment, name, report),
            Note::Heal { name } => {
                if self.faults.remove(name) && self.faults.is_empty() {
                    self.healed(moment);
                }
            }
            Note::Progress {
                broker,
                node,
                committed,
                applied,
            } => {
                let highest = self.committed.entry(broker.clone()).or_default();
                *highest = (*highest).max(*committed);
                let replica = (broker.clone(), node.clone());
                self.replicas.reached(&replica, *applied, moment, report);
            }
            Note::LoadEnds => {
                self.load_ended = true;
                self.sends.give_up(moment, report);
                if self.faults.is_empty() {
                    self.wait_for_consumers(moment);
                }
            }
            Note::Started { .. } | Note::Digest { .. } | Note::Checked { .. } => {}
        }
    }

    fn disturbed(&mut self, moment: Moment, name: &str, report: &mut Report) {
        self.sends.give_up(moment, report);
        self.replicas.give_up(moment, report);
        self.consumers.give_up(moment, report);
        if self.faults.is_empty() {
            let recent_at = moment.at.saturating_sub(self.resume_ns);
            let acks = self.last_ack_at.iter().filter(|(_, at)| **at >= recent_at);
            self.loaded = acks.map(|(broker, _)| broker.clone()).collect();
        }
        self.faults.insert(name.to_string());
    }

    fn healed(&mut self, moment: Moment) {
        for (broker, committed) in &self.committed {
            for node in self.members.get(broker).map_or(&[][..], Vec::as_slice) {
                self.replicas
                    .begin((broker.clone(), node.clone()), moment, *committed);
            }
        }
        if self.load_ended {
            self.wait_for_consumers(moment);
            return;
        }
        for broker in &self.loaded {
            self.sends.begin(broker.clone(), moment, 1);
        }
    }

    fn wait_for_consumers(&mut self, moment: Moment) {
        for (cursor, offset) in &self.cursors {
            let end = self.ends.get(&cursor.queue).copied().unwrap_or(0);
            if *offset < end {
                self.consumers.begin(cursor.clone(), moment, end);
            }
        }
    }

    fn answered(&mut self, moment: Moment, call: &Call, answer: &Answer, report: &mut Report) {
        match (&call.request, answer) {
            (Request::Send(send), Answer::Sent(sent)) => {
                let broker = &sent.queue.broker;
                self.last_ack_at.insert(broker.clone(), moment.at);
                self.sends.reached(broker, 1, moment, report);
                if send.is_plain() {
                    let end = self.ends.entry(sent.queue.clone()).or_default();
                    *end = (*end).max(sent.offset.saturating_add(1));
                }
            }
            (Request::Commit { cursor, offset }, _) => {
                self.reached(moment, cursor, *offset, report);
            }
            (Request::Query { cursor }, Answer::Offset(Some(offset))) => {
                self.reached(moment, cursor, *offset, report);
            }
            _ => {}
        }
    }

    fn reached(&mut self, moment: Moment, cursor: &Cursor, offset: u64, report: &mut Report) {
        self.cursors.insert(cursor.clone(), offset);
        self.consumers.reached(cursor, offset, moment, report);
    }
}

impl Judge for Liveness {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Ended {
                call,
                outcome: Outcome::Ok(answer),
            } => {
                self.answered(moment, call, answer, report);
            }
            Step::Noted(note) => self.noted(moment, note, report),
            _ => {}
        }
    }

    fn finish(&mut self, moment: Moment, report: &mut Report) {
        self.sends.give_up(moment, report);
        self.replicas.give_up(moment, report);
        self.consumers.give_up(moment, report);
    }
}
