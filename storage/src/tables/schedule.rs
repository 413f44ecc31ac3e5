//! Places in the log, each with a time at which something is to be done with the message there.
//!
//! Two trees of 16 bytes an entry, 66 bytes with what the trees themselves need: 66 MB for a million
//! entries (ADR 14). One is ordered by time, for whoever carries them out; the other by place, for whoever
//! resolves one of them and for retention, which must know the first.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::position::PhysicalOffset;

/// Entries ordered by (time, place).
///
/// Invariant: both trees hold the same entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    by_time: BTreeSet<(u64, PhysicalOffset)>,
    by_place: BTreeMap<PhysicalOffset, u64>,
}

impl Schedule {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// The earliest time; milliseconds since 1970.
    pub fn first_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(time_ms, _)| *time_ms)
    }

    /// The first place in the log.
    pub fn first_place(&self) -> Option<PhysicalOffset> {
        self.by_place.first_key_value().map(|(place, _)| *place)
    }

    /// The time of a place; `None` if it has no entry.
    pub fn time_of(&self, place: PhysicalOffset) -> Option<u64> {
        self.by_place.get(&place).copied()
    }

    /// Entries whose time is `now_ms` or earlier, ordered by time and then by place.
    pub fn due(&self, now_ms: u64) -> impl Iterator<Item = (u64, PhysicalOffset)> {
        let last = (now_ms, PhysicalOffset::new(u64::MAX));
        self.by_time.range(..=last).copied()
    }

    /// Entries whose place is before `place`, in the order of the log.
    pub fn before(&self, place: PhysicalOffset) -> impl Iterator<Item = (u64, PhysicalOffset)> {
        self.by_place
            .range(..place)
            .map(|(place, time_ms)| (*time_ms, *place))
    }

    /// Adds an entry, or gives an existing one another time.
    pub(super) fn put(&mut self, place: PhysicalOffset, time_ms: u64) {
        if let Some(before_ms) = self.by_place.insert(place, time_ms) {
            self.by_time.remove(&(before_ms, place));
        }
        self.by_time.insert((time_ms, place));
    }

    /// Removes an entry; its time if there was one.
    pub(super) fn remove(&mut self, place: PhysicalOffset) -> Option<u64> {
        let time_ms = self.by_place.remove(&place)?;
        let both = self.by_time.remove(&(time_ms, place));
        assert!(both, "{place} is in one of the trees only");
        Some(time_ms)
    }
}

/// Stored as (place, time), ordered by place, without a copy.
impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.by_place)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::<(PhysicalOffset, u64)>::deserialize(deserializer)?;
        let by_place: BTreeMap<_, _> = entries.into_iter().collect();
        let by_time = by_place.iter().map(|(place, time_ms)| (*time_ms, *place));
        Ok(Self {
            by_time: by_time.collect(),
            by_place,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(place: u64) -> PhysicalOffset {
        PhysicalOffset::new(place)
    }

    fn filled() -> Schedule {
        let mut schedule = Schedule::default();
        for (place, time_ms) in [(10, 300), (20, 100), (30, 300), (40, 200)] {
            schedule.put(at(place), time_ms);
        }
        schedule
    }

    fn due(schedule: &Schedule, now_ms: u64) -> Vec<(u64, u64)> {
        let entries = schedule.due(now_ms);
        entries.map(|(time, place)| (time, place.get())).collect()
    }

    #[test]
    fn what_is_due_comes_in_the_order_of_times_and_then_of_places() {
        let mut schedule = filled();
        assert_eq!(due(&schedule, 99), []);
        assert_eq!(due(&schedule, 200), [(100, 20), (200, 40)]);
        let all = [(100, 20), (200, 40), (300, 10), (300, 30)];
        assert_eq!(due(&schedule, u64::MAX), all);
        assert_eq!((schedule.first_ms(), schedule.len()), (Some(100), 4));
        assert_eq!(schedule.remove(at(20)), Some(100));
        assert_eq!(schedule.remove(at(20)), None, "once");
        assert_eq!(schedule.first_ms(), Some(200));
        schedule.put(at(40), 400);
        assert_eq!(due(&schedule, u64::MAX), [(300, 10), (300, 30), (400, 40)]);
    }

    #[test]
    fn what_retention_asks_for_comes_in_the_order_of_the_log() {
        let schedule = filled();
        assert_eq!(schedule.first_place(), Some(at(10)));
        let before: Vec<_> = schedule.before(at(30)).collect();
        assert_eq!(before, [(300, at(10)), (100, at(20))]);
        assert_eq!(schedule.time_of(at(30)), Some(300));
        assert_eq!(schedule.time_of(at(31)), None);
    }

    #[test]
    fn a_stored_schedule_comes_back() {
        let schedule = filled();
        let bytes = crate::codec::encode(&schedule);
        assert_eq!(bytes.len(), 8 + 4 * 16);
        let back: Schedule = crate::codec::decode(&bytes).unwrap();
        assert_eq!(back, schedule);
    }
}
