//! What was sent lately to topics that keep one copy of a message, and where that copy is.
//!
//! A send is known by [`SendId`]: topic, unique key and body together. Its first copy is noted by the record
//! that stores it, and until its time is over the record of another copy finds it here and stores nothing.
//! Times are the log's, so every replica decides alike, also when it replays.
//!
//! ```text
//!  oldest place                                      newest place
//!    |  pushed out when there are too many             |
//!    [ send ][ send ][ send ] ... [ send ][ send ][ send ]     each with the time at which it is forgotten
//! ```
//!
//! Bounded: [`RECENT_SENDS_MAX`] of a group of brokers. Three trees and maps, 150 bytes an entry together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::position::{PhysicalOffset, QueueOffset};

/// Most sends that a group of brokers remembers. Each takes 42 bytes of a checkpoint.
pub const RECENT_SENDS_MAX: usize = 400_000;

/// Most entries that one record lets go because their time is over: the others go with the next ones.
const EXPIRED_PER_RECORD: usize = 4_096;

/// What a send is known by: the beginning of a SHA-256 of topic, unique key and body. Two that differ in any
/// of these have different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SendId(pub [u8; 16]);

/// A message that is stored only if it was not sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// The message of the same batch, by its number.
    pub row: u32,
    /// What it is known by.
    pub id: SendId,
    /// The queue that its sender is told. One that waits is in another queue meanwhile.
    pub queue: u16,
    /// For how long copies of it are not stored; milliseconds.
    pub window_ms: u64,
}

/// Where the first copy of a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstSend {
    /// The queue that its sender was told.
    pub queue: u16,
    /// Its offset, in that queue or in the one that it waits in.
    pub queue_offset: QueueOffset,
    /// Its place in the log.
    pub place: PhysicalOffset,
}

/// A send as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    id: SendId,
    until_ms: u64,
    queue: u16,
    queue_offset: QueueOffset,
}

/// All sends that are remembered.
///
/// Invariant: all three hold the same sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecentSends {
    by_place: BTreeMap<PhysicalOffset, Entry>,
    by_end: BTreeSet<(u64, PhysicalOffset)>,
    by_id: HashMap<SendId, PhysicalOffset>,
}

/// Stored as (place, send), ordered by place, without a copy.
impl Serialize for RecentSends {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.by_place)
    }
}

impl<'de> Deserialize<'de> for RecentSends {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut sends = Self::default();
        for (place, entry) in Vec::<(PhysicalOffset, Entry)>::deserialize(deserializer)? {
            sends.put(place, entry);
        }
        Ok(sends)
    }
}

impl RecentSends {
    /// How many sends are remembered. Some of them may be over already.
    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// Where the first copy of a message is; `None` if it was not sent, or if that is too long ago.
    pub fn find(&self, id: &SendId, now_ms: u64) -> Option<FirstSend> {
        let place = *self.by_id.get(id)?;
        let entry = self.by_place.get(&place)?;
        (entry.until_ms > now_ms).then_some(FirstSend {
            queue: entry.queue,
            queue_offset: entry.queue_offset,
            place,
        })
    }

    /// A message was stored for which [`find`](Self::find) finds nothing. True if an older send whose time
    /// was not over had to make room.
    pub(crate) fn note(&mut self, once: &Once, first: FirstSend, now_ms: u64) -> bool {
        let mut pushed_out = false;
        if let Some(place) = self.by_id.get(&once.id).copied() {
            self.forget(place);
        }
        if self.len() >= RECENT_SENDS_MAX && !self.forget_expired(now_ms) {
            let oldest = self.by_place.first_key_value().map(|(place, _)| *place);
            pushed_out = oldest.is_some_and(|place| self.forget(place));
        }
        let entry = Entry {
            id: once.id,
            until_ms: now_ms.saturating_add(once.window_ms),
            queue: first.queue,
            queue_offset: first.queue_offset,
        };
        self.put(first.place, entry);
        pushed_out
    }

    /// Time has come to `now_ms`.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        for _ in 0..EXPIRED_PER_RECORD {
            if !self.forget_expired(now_ms) {
                return;
            }
        }
    }

    /// The message at a place was taken back: sent again, it is a new one. False if it is not remembered.
    pub(crate) fn forget(&mut self, place: PhysicalOffset) -> bool {
        let Some(entry) = self.by_place.remove(&place) else {
            return false;
        };
        self.by_end.remove(&(entry.until_ms, place));
        self.by_id.remove(&entry.id);
        true
    }

    /// A message that waits was copied to another place.
    pub(crate) fn move_to(&mut self, from: PhysicalOffset, to: PhysicalOffset) {
        let Some(entry) = self.by_place.get(&from).copied() else {
            return;
        };
        self.forget(from);
        self.put(to, entry);
    }

    fn forget_expired(&mut self, now_ms: u64) -> bool {
        match self.by_end.first() {
            Some(&(until_ms, place)) if until_ms <= now_ms => self.forget(place),
            _ => false,
        }
    }

    fn put(&mut self, place: PhysicalOffset, entry: Entry) {
        self.by_end.insert((entry.until_ms, place));
        self.by_id.insert(entry.id, place);
        self.by_place.insert(place, entry);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn id(number: u64) -> SendId {
        SendId((u128::from(number) << 64 | 7).to_le_bytes())
    }

    fn once(number: u64, window_ms: u64) -> Once {
        Once {
            row: 0,
            id: id(number),
            queue: number as u16,
            window_ms,
        }
    }

    fn first(number: u64) -> FirstSend {
        FirstSend {
            queue: number as u16,
            queue_offset: QueueOffset::new(number),
            place: PhysicalOffset::new(number * 100),
        }
    }

    fn note(sends: &mut RecentSends, number: u64, window_ms: u64, now_ms: u64) -> bool {
        sends.note(&once(number, window_ms), first(number), now_ms)
    }

    #[test]
    fn a_send_is_found_until_its_time_is_over() {
        let mut sends = RecentSends::default();
        assert!(!note(&mut sends, 1, 50, 1_000));
        assert!(!note(&mut sends, 2, 500, 1_000));
        assert_eq!(sends.find(&id(1), 1_049), Some(first(1)));
        assert_eq!(sends.find(&id(1), 1_050), None, "not removed, but over");
        assert_eq!(sends.find(&id(3), 1_000), None);
        sends.expire(1_050);
        assert_eq!(
            (sends.len(), sends.find(&id(2), 1_050)),
            (1, Some(first(2)))
        );
        sends.expire(1_500);
        assert_eq!(sends, RecentSends::default());
    }

    #[test]
    fn a_send_that_is_over_begins_anew_at_another_place() {
        let mut sends = RecentSends::default();
        note(&mut sends, 1, 50, 1_000);
        let again = FirstSend {
            place: PhysicalOffset::new(900),
            ..first(5)
        };
        assert!(!sends.note(&once(1, 50), again, 1_100));
        assert_eq!(sends.find(&id(1), 1_149), Some(again));
        assert_eq!(
            (sends.len(), sends.by_end.len(), sends.by_id.len()),
            (1, 1, 1)
        );
    }

    #[test]
    fn what_was_taken_back_is_forgotten_and_what_moved_is_followed() {
        let mut sends = RecentSends::default();
        note(&mut sends, 1, 500, 1_000);
        note(&mut sends, 2, 500, 1_000);
        assert!(sends.forget(first(1).place) && !sends.forget(first(1).place));
        assert_eq!(sends.find(&id(1), 1_000), None);
        let to = PhysicalOffset::new(900);
        sends.move_to(first(2).place, to);
        sends.move_to(first(1).place, PhysicalOffset::new(901));
        let moved = sends.find(&id(2), 1_499).unwrap();
        assert_eq!(
            (moved.place, moved.queue_offset),
            (to, first(2).queue_offset)
        );
        sends.expire(1_500);
        assert_eq!(sends, RecentSends::default());
    }

    #[test]
    fn when_there_are_too_many_the_oldest_go_first() {
        let mut sends = RecentSends::default();
        let most = RECENT_SENDS_MAX as u64;
        // The first one has the longest time, and goes all the same; the second one's time is over.
        note(&mut sends, 1, 9_000, 1_000);
        note(&mut sends, 2, 1, 1_000);
        for number in 3..=most {
            assert!(!note(&mut sends, number, 500, 1_000), "{number}");
        }
        assert!(!note(&mut sends, most + 1, 500, 1_001), "2 is over");
        assert_eq!(sends.find(&id(1), 1_001), Some(first(1)));
        assert!(note(&mut sends, most + 2, 500, 1_001));
        assert_eq!(sends.find(&id(1), 1_001), None);
        assert_eq!(sends.find(&id(3), 1_001), Some(first(3)));
        assert!(note(&mut sends, most + 3, 500, 1_001));
        assert_eq!(sends.find(&id(3), 1_001), None);
        assert_eq!(sends.len(), RECENT_SENDS_MAX);
        sends.expire(1_500);
        let left = RECENT_SENDS_MAX - EXPIRED_PER_RECORD;
        assert_eq!(sends.len(), left, "a record lets go so many and no more");
    }

    #[test]
    fn stored_sends_come_back_and_take_what_is_said() {
        let mut sends = RecentSends::default();
        for number in 1..=4 {
            note(&mut sends, number, 500 - number, 1_000);
        }
        let bytes = crate::codec::encode(&sends);
        assert_eq!(bytes.len(), 8 + 4 * (8 + 16 + 8 + 2 + 8));
        let back: RecentSends = crate::codec::decode(&bytes).unwrap();
        assert_eq!(back, sends);
    }
}
