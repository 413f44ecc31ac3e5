//! When the next message is due: when an earlier one was answered, or when the clock says so.

use std::time::{Duration, Instant};

/// Sends at a fixed rate, whatever happens to those before.
///
/// A send that comes late, because the driver or the broker was busy, keeps its scheduled time, and its
/// latency counts from there: a stall then shows in all the messages that it held up, and not only in the
/// one that was under way ("coordinated omission").
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    start: Instant,
    end: Instant,
    per_second: f64,
    taken: u64,
}

impl Schedule {
    /// `per_second` sends from `start` to `end`.
    pub(super) fn new(start: Instant, end: Instant, per_second: f64) -> Schedule {
        Schedule {
            start,
            end,
            per_second,
            taken: 0,
        }
    }

    /// The time of the next send; `None` after the last.
    pub(super) fn next(&self) -> Option<Instant> {
        let at = self.start + Duration::from_secs_f64(self.taken as f64 / self.per_second);
        (at < self.end).then_some(at)
    }

    /// Takes the next send if its time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Instant> {
        let at = self.next().filter(|at| *at <= now)?;
        self.taken += 1;
        Some(at)
    }

    /// Leaves out what is after `end`.
    pub(super) fn end_at(&mut self, end: Instant) {
        self.end = self.end.min(end);
    }
}

/// Which connection each of so many requests under way uses next.
///
/// With at least as many requests as connections each stays on its connection, so that answers that come
/// together go out again together. With fewer they walk, so that every connection is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// Requests under way.
    pub(super) requests: usize,
    /// Connections.
    pub(super) connections: usize,
}

impl Walk {
    /// The first connection of each request.
    pub(super) fn begin(self) -> impl Iterator<Item = usize> {
        (0..self.requests).map(move |request| request % self.connections)
    }

    /// The connection after `connection`.
    pub(super) fn next(self, connection: usize) -> usize {
        if self.requests >= self.connections {
            return connection;
        }
        (connection + self.requests) % self.connections
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cli::bench::tally::Latencies;

    #[test]
    fn a_schedule_has_rate_times_seconds_sends() {
        let start = Instant::now();
        let end = start + Duration::from_secs(3);
        let mut schedule = Schedule::new(start, end, 700.0);
        assert_eq!(schedule.take_due(start), Some(start));
        assert_eq!(schedule.take_due(start), None);
        let taken = std::iter::from_fn(|| schedule.take_due(end)).count();
        assert_eq!(taken, 2099);
        assert_eq!(schedule.next(), None);
    }

    /// One send may be under way; the first is answered after a second. A closed loop would report one slow
    /// send in a thousand.
    #[test]
    fn a_stalled_acknowledgement_counts_for_every_send_that_was_due() {
        let start = Instant::now();
        let millis = |count: u64| Duration::from_millis(count);
        let mut schedule = Schedule::new(start, start + millis(1000), 1000.0);
        let mut latencies = Latencies::new();
        let mut now = start;
        while let Some(due) = schedule.next() {
            now = now.max(due);
            let from = schedule.take_due(now).unwrap();
            // The broker stalls once, and is infinitely fast otherwise.
            if from == start {
                now += millis(1000);
            }
            latencies.record(now - from, 1);
        }
        let close = |found: f64, wanted: f64| (found - wanted).abs() < wanted / 500.0;
        assert_eq!(latencies.count(), 1000);
        assert!(close(latencies.max_ms().unwrap(), 1000.0));
        assert!(close(latencies.quantile_ms(0.5).unwrap(), 500.0));
        assert!(close(latencies.quantile_ms(0.99).unwrap(), 990.0));
    }

    #[test]
    fn few_requests_visit_every_connection_and_many_stay() {
        let walk = Walk {
            requests: 2,
            connections: 6,
        };
        let mut visits = [0; 6];
        for mut at in walk.begin() {
            for _ in 0..9 {
                visits[at] += 1;
                at = walk.next(at);
            }
        }
        assert_eq!(visits, [3; 6]);
        let walk = Walk {
            requests: 7,
            connections: 3,
        };
        assert_eq!(walk.begin().collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(walk.next(2), 2);
    }
}
