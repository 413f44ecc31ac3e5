//! How far waits can be judged: brokers wait by their own clocks, the history is written by another one.

use std::collections::HashSet;

use crate::checker::{Bounds, Moment};
use crate::event::{FaultClass, Note};

/// What is known of clocks, and of the faults that make everything late.
pub(super) struct Clocks {
    agree: bool,
    skew_ns: u64,
    drift_ppm: u64,
    late_ns: u64,
    /// Clocks that are being set, by the fault's name.
    moving: HashSet<String>,
    /// Number of the last event that was about a clock.
    moved: u64,
    faults: HashSet<String>,
    /// When the last fault ended.
    healed_at: u64,
}

impl Clocks {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            agree: bounds.clocks_agree,
            skew_ns: bounds.skew_ns,
            drift_ppm: bounds.drift_ppm,
            late_ns: bounds.late_ns,
            moving: HashSet::new(),
            moved: 0,
            faults: HashSet::new(),
            healed_at: 0,
        }
    }

    pub(super) fn noted(&mut self, moment: Moment, note: &Note) {
        match note {
            Note::Fault { name, class, .. } => {
                self.faults.insert(name.clone());
                if *class == FaultClass::Clock {
                    self.moving.insert(name.clone());
                    self.moved = moment.number;
                }
            }
            Note::Heal { name } => {
                if self.moving.remove(name) {
                    self.moved = moment.number;
                }
                if self.faults.remove(name) {
                    self.healed_at = moment.at;
                }
            }
            _ => {}
        }
    }

    /// How far two clocks may be apart by now.
    pub(super) fn skew_at(&self, at: u64) -> u64 {
        self.skew_ns.saturating_add(at / 1_000_000 * self.drift_ppm)
    }

    /// Whether a wait that began with this event may be judged to be too short.
    pub(super) fn hold_since(&self, number: u64) -> bool {
        self.agree && self.moving.is_empty() && number > self.moved
    }

    /// Whether no clock was ever set. Once one was, the time of a log may be ahead of all clocks: it does not
    /// go back, and stands still instead. Then what is to come at a time comes too early or too late.
    pub(super) fn hold_always(&self) -> bool {
        self.agree && self.moved == 0
    }

    /// Whether what was due at `due_at` must have happened at `at`: nothing was wrong for long enough.
    pub(super) fn is_late(&self, due_at: u64, at: u64) -> bool {
        self.were_calm(due_at, at, self.late_ns)
    }

    /// Whether nothing was wrong with clocks and nodes from `since` on for more than a time before `at`.
    pub(super) fn were_calm(&self, since: u64, at: u64, time_ns: u64) -> bool {
        let patience_ns = time_ns.saturating_add(self.skew_at(at));
        let from = since.max(self.healed_at);
        self.hold_always() && self.faults.is_empty() && from.saturating_add(patience_ns) < at
    }
}
