//! A counter over the last minute, hour and day: readings of it, taken every ten seconds.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How often readings are taken.
pub const READ_INTERVAL: Duration = Duration::from_secs(10);

/// Between two readings of a window, and how many are kept: as RocketMQ has it.
const MINUTE: (Duration, usize) = (READ_INTERVAL, 7);
const HOUR: (Duration, usize) = (Duration::from_secs(600), 7);
const DAY: (Duration, usize) = (Duration::from_secs(3600), 25);

/// Readings for rates over up to ten minutes.
const TEN_MINUTES: (Duration, usize) = (READ_INTERVAL, 61);

/// A reading that comes this much early counts for its interval.
const EARLY: Duration = Duration::from_secs(1);

/// What a counter stood at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests that they came or went with.
    pub calls: u64,
}

impl Reading {
    /// A counter that has counted nothing.
    pub fn zero(at: Instant) -> Self {
        Reading {
            at,
            messages: 0,
            bytes: 0,
            calls: 0,
        }
    }

    /// What was counted since an earlier reading.
    pub fn since(&self, earlier: &Reading) -> Span {
        Span {
            messages: self.messages - earlier.messages,
            bytes: self.bytes - earlier.bytes,
            calls: self.calls - earlier.calls,
            took: self.at - earlier.at,
        }
    }
}

/// What was counted in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests that they came or went with.
    pub calls: u64,
    /// The time.
    pub took: Duration,
}

impl Span {
    /// Of a count in this time, how much fell on a second.
    pub fn per_second(&self, count: u64) -> f64 {
        let seconds = self.took.as_secs_f64();
        if seconds > 0.0 {
            count as f64 / seconds
        } else {
            0.0
        }
    }
}

/// Readings at an interval, oldest first.
///
/// Invariant: never empty.
#[derive(Clone, Debug)]
struct Readings {
    kept: VecDeque<Reading>,
    interval: Duration,
    most: usize,
}

impl Readings {
    fn new(first: Reading, (interval, most): (Duration, usize)) -> Self {
        Readings {
            kept: VecDeque::from([first]),
            interval,
            most,
        }
    }

    fn push(&mut self, reading: Reading) {
        let newest = self.kept.back().expect("there is always one");
        if reading.at + EARLY < newest.at + self.interval {
            return;
        }
        self.kept.push_back(reading);
        if self.kept.len() > self.most {
            self.kept.pop_front();
        }
    }

    fn oldest(&self) -> &Reading {
        self.kept.front().expect("there is always one")
    }
}

/// The readings of one counter.
#[derive(Clone, Debug)]
pub struct History {
    minute: Readings,
    hour: Readings,
    day: Readings,
}

impl History {
    /// Of a counter that begins now.
    pub fn new(now: Instant) -> Self {
        let first = Reading::zero(now);
        History {
            minute: Readings::new(first, MINUTE),
            hour: Readings::new(first, HOUR),
            day: Readings::new(first, DAY),
        }
    }

    /// Takes a reading.
    pub fn push(&mut self, reading: Reading) {
        self.minute.push(reading);
        self.hour.push(reading);
        self.day.push(reading);
    }

    /// The last minute, hour and day, up to the reading `now`; less while the counter is younger.
    pub fn spans(&self, now: &Reading) -> [Span; 3] {
        [&self.minute, &self.hour, &self.day].map(|readings| now.since(readings.oldest()))
    }
}

/// Readings for rates over ten seconds, a minute and ten minutes.
#[derive(Clone, Debug)]
pub struct Recent(Readings);

impl Recent {
    /// Of a counter that begins now.
    pub fn new(now: Instant) -> Self {
        Recent(Readings::new(Reading::zero(now), TEN_MINUTES))
    }

    /// Takes a reading.
    pub fn push(&mut self, reading: Reading) {
        self.0.push(reading);
    }

    /// What was counted in about the last `time`, up to the reading `now`.
    pub fn span(&self, now: &Reading, time: Duration) -> Span {
        let old_enough = |reading: &&Reading| reading.at + time <= now.at + EARLY;
        let found = self.0.kept.iter().rev().find(old_enough);
        now.since(found.unwrap_or(self.0.oldest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64, messages: u64) -> Reading {
        Reading {
            at: start + Duration::from_secs(seconds),
            messages,
            bytes: 10 * messages,
            calls: messages,
        }
    }

    /// One message a second for so long, read every ten seconds.
    fn steady(start: Instant, seconds: u64) -> (History, Recent) {
        let (mut history, mut recent) = (History::new(start), Recent::new(start));
        for second in (10..=seconds).step_by(10) {
            history.push(at(start, second, second));
            recent.push(at(start, second, second));
        }
        (history, recent)
    }

    #[test]
    fn windows_are_as_long_as_their_names_and_rates_are_true() {
        let start = Instant::now();
        let (history, recent) = steady(start, 200_000);
        let now = at(start, 200_005, 200_005);
        let [minute, hour, day] = history.spans(&now);
        assert_eq!(minute.took, Duration::from_secs(65));
        assert!((3600..=4200).contains(&hour.took.as_secs()), "{hour:?}");
        assert!((86_400..=90_000).contains(&day.took.as_secs()), "{day:?}");
        for span in [minute, hour, day] {
            assert_eq!(span.messages, span.took.as_secs());
            assert!((span.per_second(span.bytes) - 10.0).abs() < 1e-9);
        }
        for (time, took) in [(10, 15), (60, 65), (600, 605)] {
            let span = recent.span(&now, Duration::from_secs(time));
            assert_eq!(span.took, Duration::from_secs(took));
        }
    }

    #[test]
    fn a_young_counter_is_right_from_its_first_second() {
        let start = Instant::now();
        let (history, recent) = steady(start, 0);
        let now = at(start, 2, 6);
        for span in history.spans(&now) {
            assert!((span.per_second(span.messages) - 3.0).abs() < 1e-9);
        }
        assert_eq!(recent.span(&now, Duration::from_secs(60)).messages, 6);
        assert!(
            Span::default().per_second(5).abs() < 1e-9,
            "no time, no rate"
        );
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let start = Instant::now();
        let mut history = History::new(start);
        for second in (10..=120).step_by(10) {
            history.push(at(start, second, 9));
        }
        let [minute, hour, _] = history.spans(&at(start, 125, 9));
        assert_eq!((minute.messages, hour.messages), (0, 9));
    }
}
