//! Committed consumer offsets never go back unless somebody asks for it (I8): by a reset, or by a commit that
//! is lower than one that was acked or that it overlaps. Whoever asks is heard once: a commit whose offset
//! was seen has taken effect, and cannot undo what was committed after that.

use std::collections::{BTreeMap, HashMap};

use super::Judge;
use crate::checker::{Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Cursor, Request};

/// What later queries must reach, and the event that says so.
#[derive(Clone, Copy, Default)]
struct Floor {
    offset: u64,
    number: u64,
}

#[derive(Default)]
struct Progress {
    floor: Floor,
    /// Highest offset that anybody asked to commit.
    asked: u64,
    /// Highest offset that was acked.
    acked: u64,
    /// Operations of unknown outcome whose offset was seen, and the event that showed it.
    seen: HashMap<u64, u64>,
    /// Commits under way, or of unknown outcome and so perhaps still to come, that would not set it back: the
    /// operation, and its offset.
    commits: BTreeMap<u64, u64>,
    /// Commits that succeeded since the oldest of those began: the event, and the offset.
    succeeded: Vec<(u64, u64)>,
    /// Resets whose outcome is not known (yet): the operation, and its offset.
    resets: HashMap<u64, u64>,
    /// When a reset last began or ended; lower commits count as resets.
    reset: u64,
    /// What queries under way must reach.
    queries: HashMap<u64, Floor>,
}

/// All consumer offsets.
#[derive(Default)]
pub(super) struct Cursors {
    cursors: HashMap<Cursor, Progress>,
}

impl Judge for Cursors {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Begun(call) => {
                if let Some(cursor) = cursor_of(call) {
                    self.cursors.entry(cursor.clone()).or_default().begun(call);
                }
            }
            Step::Ended { call, outcome } => {
                if let Some(progress) = cursor_of(call).and_then(|one| self.cursors.get_mut(one)) {
                    progress.ended(moment.number, call, outcome, report);
                }
            }
            Step::Noted(_) => {}
        }
    }
}

fn cursor_of(call: &Call) -> Option<&Cursor> {
    match &call.request {
        Request::Commit { cursor, .. }
        | Request::Reset { cursor, .. }
        | Request::Query { cursor } => Some(cursor),
        _ => None,
    }
}

impl Progress {
    fn begun(&mut self, call: &Call) {
        match call.request {
            Request::Commit { offset, .. } => {
                self.asked = self.asked.max(offset);
                if offset < self.floor.offset {
                    self.may_go_back(call.number, offset, call.number);
                } else {
                    self.commits.insert(call.number, offset);
                }
            }
            Request::Reset { offset, .. } => {
                self.asked = self.asked.max(offset);
                self.may_go_back(call.number, offset, call.number);
            }
            _ => {
                self.queries.insert(call.number, self.lowest());
            }
        }
    }

    fn ended(&mut self, number: u64, call: &Call, outcome: &Outcome<'_>, report: &mut Report) {
        if !matches!(outcome, Outcome::Info) {
            self.commits.remove(&call.number);
            self.seen.remove(&call.number);
        }
        let is_reset = self.resets.contains_key(&call.number);
        match (&call.request, outcome) {
            (Request::Query { .. }, Outcome::Ok(Answer::Offset(offset))) => {
                self.answered(number, call, *offset, report);
            }
            (Request::Query { .. }, _) => {
                self.queries.remove(&call.number);
            }
            (Request::Commit { offset, .. } | Request::Reset { offset, .. }, Outcome::Ok(_)) => {
                self.acked = self.acked.max(*offset);
                self.settle_what_was_seen_before(call.number);
                if is_reset {
                    self.resets.remove(&call.number);
                    self.reset = number;
                    self.floor.offset = self.floor.offset.min(*offset);
                } else {
                    self.committed(number, call, *offset);
                }
            }
            (_, Outcome::Fail) => {
                self.resets.remove(&call.number);
            }
            _ => {}
        }
    }

    /// An operation that began at `number` succeeded: what had taken effect before it never will again.
    fn settle_what_was_seen_before(&mut self, number: u64) {
        let Progress {
            seen,
            commits,
            resets,
            ..
        } = self;
        seen.retain(|call, at| {
            let is_settled = *at < number;
            if is_settled {
                commits.remove(call);
                resets.remove(call);
            }
            !is_settled
        });
    }

    fn committed(&mut self, number: u64, call: &Call, offset: u64) {
        // It may have been undone by what it overlapped.
        let may_be_undone = call.number < self.reset && number > self.reset;
        let overlapped = self
            .succeeded
            .iter()
            .filter(|(ended, _)| *ended > call.number);
        let promised = overlapped.map(|(_, other)| *other).fold(offset, u64::min);
        let oldest = self.commits.keys().next().copied().unwrap_or(number);
        self.succeeded.retain(|(ended, _)| *ended > oldest);
        self.succeeded.push((number, offset));
        if promised <= self.floor.offset || may_be_undone {
            return;
        }
        self.floor = Floor {
            offset: promised,
            number,
        };
        let lower = self.commits.iter().filter(|(_, other)| **other < promised);
        let lower: Vec<(u64, u64)> = lower.map(|(call, other)| (*call, *other)).collect();
        for (call, other) in lower {
            self.may_go_back(call, other, number);
        }
    }

    /// An operation under way may set the offset back, from event `number` on.
    fn may_go_back(&mut self, call: u64, offset: u64, number: u64) {
        self.commits.remove(&call);
        self.resets.insert(call, offset);
        self.reset = number;
        for floor in self.queries.values_mut() {
            floor.offset = floor.offset.min(offset);
        }
    }

    fn answered(&mut self, number: u64, call: &Call, offset: Option<u64>, report: &mut Report) {
        let Some(floor) = self.queries.remove(&call.number) else {
            return;
        };
        report.judged(Invariant::I8);
        let Some(cursor) = cursor_of(call) else {
            return;
        };
        let (group, queue) = (&cursor.group, &cursor.queue);
        let shown = offset.unwrap_or(0);
        if shown < floor.offset {
            let text = format!(
                "{group} is at {shown} of {queue}, after {} was committed",
                floor.offset
            );
            report.broken(Invariant::I8, &[floor.number, call.number, number], text);
        }
        if shown > self.asked {
            let text = format!("{group} is at {shown} of {queue}, which nobody committed");
            report.broken(Invariant::I8, &[number], text);
        }
        self.note_effect(number, shown);
    }

    /// An offset above all that were acked comes from the only one that asked for it.
    fn note_effect(&mut self, number: u64, shown: u64) {
        if shown <= self.acked {
            return;
        }
        let pending = self.commits.iter().chain(&self.resets);
        let mut from = pending.filter(|(_, offset)| **offset == shown);
        if let (Some((call, _)), None) = (from.next(), from.next()) {
            self.seen.entry(*call).or_insert(number);
        }
    }

    /// What a query that begins now must reach: less if a reset may still take effect.
    fn lowest(&self) -> Floor {
        let reset = self.resets.values().copied().min();
        let offset = reset.map_or(self.floor.offset, |reset| self.floor.offset.min(reset));
        Floor {
            offset,
            ..self.floor
        }
    }
}
