//! What was done with messages that wait, are handed out one by one, or come again: an absence of such load
//! fails a run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that was done and acked, or seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// A message was sent that comes later.
    Delay,
    /// One of these was recalled.
    Recall,
    /// One of these has come.
    Due,
    /// A half message was sent.
    Half,
    /// It was committed by who sent it.
    Commit,
    /// It was rolled back by who sent it.
    RollBack,
    /// It was ended after a broker had asked about it.
    Question,
    /// A message was popped.
    Pop,
    /// A message was popped in order.
    PopInOrder,
    /// The time of a popped message was changed.
    Renew,
    /// A popped message was acknowledged.
    Ack,
    /// A message was popped once more, because its time had passed.
    LeaseEnd,
    /// A message was handed back.
    SendBack,
    /// One that was handed back has come again.
    Retry,
    /// One that was handed back too often has become a dead letter.
    DeadLetter,
}

impl Deed {
    /// All of them.
    pub const ALL: [Deed; 15] = [
        Deed::Delay,
        Deed::Recall,
        Deed::Due,
        Deed::Half,
        Deed::Commit,
        Deed::RollBack,
        Deed::Question,
        Deed::Pop,
        Deed::PopInOrder,
        Deed::Renew,
        Deed::Ack,
        Deed::LeaseEnd,
        Deed::SendBack,
        Deed::Retry,
        Deed::DeadLetter,
    ];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Deed::Delay => "delayed",
            Deed::Recall => "recalled",
            Deed::Due => "delivered-later",
            Deed::Half => "half",
            Deed::Commit => "committed",
            Deed::RollBack => "rolled-back",
            Deed::Question => "ended-when-asked",
            Deed::Pop => "popped",
            Deed::PopInOrder => "popped-in-order",
            Deed::Renew => "time-changed",
            Deed::Ack => "popped-and-acked",
            Deed::LeaseEnd => "popped-again",
            Deed::SendBack => "handed-back",
            Deed::Retry => "retried",
            Deed::DeadLetter => "dead-letters",
        }
    }

    /// Whether it comes about only when time passes: after a clock was set, the time of a log may stand still
    /// for the rest of a run.
    pub fn needs_time(self) -> bool {
        matches!(
            self,
            Deed::Due | Deed::Question | Deed::LeaseEnd | Deed::Retry | Deed::DeadLetter
        )
    }
}

/// How often each was done.
#[derive(Default)]
pub struct Deeds([AtomicU64; Deed::ALL.len()]);

impl Deeds {
    /// Counts some.
    pub fn add(&self, deed: Deed, count: u64) {
        self.0[deed as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// How often each was done, also those that never were.
    pub fn counts(&self) -> Counts {
        let count = |deed: Deed| (deed, self.0[deed as usize].load(Ordering::Relaxed));
        Deed::ALL.into_iter().map(count).collect()
    }
}

/// Deeds and how often they were done.
pub type Counts = BTreeMap<Deed, u64>;

/// What was never done although it should have been; `clock_was_set` says whether time may have stood still.
pub fn missing(counts: &Counts, clock_was_set: bool) -> Vec<Deed> {
    let is_owed = |deed: &Deed| !(clock_was_set && deed.needs_time());
    let owed = Deed::ALL.into_iter().filter(is_owed);
    owed.filter(|deed| counts.get(deed).is_none_or(|count| *count == 0))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_done_is_missed() {
        let deeds = Deeds::default();
        for deed in Deed::ALL {
            deeds.add(deed, 2);
        }
        assert_eq!(missing(&deeds.counts(), false), []);
        let mut counts = deeds.counts();
        assert_eq!(counts.values().sum::<u64>(), 2 * Deed::ALL.len() as u64);
        counts.insert(Deed::Retry, 0);
        counts.remove(&Deed::Recall);
        assert_eq!(missing(&counts, false), [Deed::Recall, Deed::Retry]);
        assert_eq!(missing(&counts, true), [Deed::Recall]);
    }
}
