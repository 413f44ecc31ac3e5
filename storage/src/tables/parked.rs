//! Messages that wait in the log: for a time, or for the end of their transaction.
//!
//! A message is parked by the record that holds it and resolved by a later one: by the message that it
//! becomes, by the copy that waits in its place, or by a command. What is resolved already is never
//! resolved again: that is what makes a delivery happen once, whatever a leader did before it fell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Schedule;
use crate::position::PhysicalOffset;

/// The time of a half message that nobody is asked about any more.
pub const GIVEN_UP_MS: u64 = i64::MAX as u64;

/// All messages that wait.
///
/// Invariant: a place waits for one thing at most, and only half messages have a number of checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    timers: Schedule,
    halves: Schedule,
    checks: BTreeMap<PhysicalOffset, u32>,
}

impl Parked {
    /// Messages that wait until they are due.
    pub fn timers(&self) -> &Schedule {
        &self.timers
    }

    /// Half messages of open transactions, with the time at which their producer is asked next.
    pub fn halves(&self) -> &Schedule {
        &self.halves
    }

    /// How often the producer of a half message was asked.
    pub fn checks_of(&self, half: PhysicalOffset) -> u32 {
        self.checks.get(&half).copied().unwrap_or(0)
    }

    /// Whether the message at a place still waits.
    pub fn is_open(&self, place: PhysicalOffset) -> bool {
        self.timers.time_of(place).is_some() || self.halves.time_of(place).is_some()
    }

    /// The first place in the log that retention has to keep.
    pub fn first_place(&self) -> Option<PhysicalOffset> {
        let places = [self.timers.first_place(), self.halves.first_place()];
        places.into_iter().flatten().min()
    }

    /// A message waits until `due_ms`.
    pub(crate) fn park_timer(&mut self, place: PhysicalOffset, due_ms: u64) {
        self.timers.put(place, due_ms);
    }

    /// A message waits for the end of its transaction.
    pub(crate) fn park_half(&mut self, place: PhysicalOffset, check_ms: u64) {
        self.halves.put(place, check_ms);
    }

    /// A message waits no more; false if it did not.
    pub(crate) fn resolve(&mut self, place: PhysicalOffset) -> bool {
        self.checks.remove(&place);
        self.timers.remove(place).is_some() || self.halves.remove(place).is_some()
    }

    /// The copy at `to` waits instead of the message at `from`, until `time_ms`; false, and nothing
    /// happens, if that does not wait any more. A half message that was given up begins anew, without
    /// checks.
    pub(crate) fn move_to(
        &mut self,
        from: PhysicalOffset,
        to: PhysicalOffset,
        time_ms: u64,
    ) -> bool {
        if self.timers.remove(from).is_some() {
            self.timers.put(to, time_ms);
            return true;
        }
        let Some(before_ms) = self.halves.remove(from) else {
            return false;
        };
        self.halves.put(to, time_ms);
        if let Some(times) = self.checks.remove(&from)
            && (before_ms < GIVEN_UP_MS || time_ms == GIVEN_UP_MS)
        {
            self.checks.insert(to, times);
        }
        true
    }

    /// Open transactions become messages that are due. Nothing right does this (`planted`).
    pub(crate) fn deliver_halves(&mut self) {
        let all: Vec<_> = self
            .halves
            .before(PhysicalOffset::new(u64::MAX))
            .map(|(_, place)| place)
            .collect();
        for place in all {
            self.resolve(place);
            self.park_timer(place, 0);
        }
    }

    /// The producer of a half message was asked, and is asked again at `next_ms`; false if the transaction
    /// has ended.
    pub(crate) fn checked(&mut self, half: PhysicalOffset, next_ms: u64) -> bool {
        if self.halves.time_of(half).is_none() {
            return false;
        }
        self.halves.put(half, next_ms);
        *self.checks.entry(half).or_default() += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: u64) -> PhysicalOffset {
        PhysicalOffset::new(place)
    }

    #[test]
    fn what_waits_is_resolved_once() {
        let mut parked = Parked::default();
        parked.park_timer(at(1), 10);
        parked.park_half(at(2), 20);
        assert_eq!(parked.first_place(), Some(at(1)));
        assert!(parked.resolve(at(1)) && !parked.resolve(at(1)));
        assert!(parked.is_open(at(2)) && !parked.is_open(at(1)));
        assert!(parked.resolve(at(2)) && !parked.resolve(at(2)));
        assert_eq!(parked, Parked::default());
    }

    #[test]
    fn a_copy_takes_over_what_its_original_waited_for() {
        let mut parked = Parked::default();
        parked.park_timer(at(1), 10);
        parked.park_half(at(2), 20);
        assert!(parked.checked(at(2), 30));
        assert!(parked.move_to(at(1), at(5), 10) && parked.move_to(at(2), at(6), 30));
        assert_eq!(parked.timers().time_of(at(5)), Some(10));
        assert_eq!(parked.halves().time_of(at(6)), Some(30));
        assert_eq!(parked.checks_of(at(6)), 1);
        assert!(parked.move_to(at(6), at(7), GIVEN_UP_MS));
        assert_eq!(parked.checks_of(at(7)), 1);
        assert!(parked.move_to(at(7), at(8), 50));
        assert_eq!(parked.checks_of(at(8)), 0, "taken up again");
        assert_eq!(parked.first_place(), Some(at(5)));
        let before = parked.clone();
        assert!(!parked.move_to(at(1), at(9), 10), "it went already");
        assert!(!parked.checked(at(5), 99), "not a half message");
        assert_eq!(parked, before);
    }
}
