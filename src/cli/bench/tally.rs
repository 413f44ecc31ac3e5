//! What a run has counted so far.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(3600);
const SIGNIFICANT_DIGITS: u8 = 3;

/// How long messages took, to three digits.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Latencies {
        let histogram =
            Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, SIGNIFICANT_DIGITS);
        Latencies(histogram.expect("the bounds are constants"))
    }

    /// Counts `messages` that took so long.
    pub(super) fn record(&mut self, latency: Duration, messages: u64) {
        let nanos = latency.min(LATENCY_MAX).as_nanos() as u64;
        self.0.saturating_record_n(nanos.max(1), messages);
    }

    pub(super) fn clear(&mut self) {
        self.0.reset();
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds; `None` if nothing was counted.
    pub(super) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(quantile) as f64 / 1e6)
    }

    /// In milliseconds; `None` if nothing was counted.
    pub(super) fn max_ms(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.max() as f64 / 1e6)
    }
}

/// Messages counted, and those that failed.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Acknowledged or received.
    pub(super) messages: u64,
    /// Bytes of their bodies.
    pub(super) bytes: u64,
    /// Refused, lost with their connection, or missing.
    pub(super) failed: u64,
    /// Attempts beyond the first.
    pub(super) retried: u64,
    /// Why the first one failed.
    pub(super) first_failure: Option<String>,
    pub(super) latencies: Latencies,
    /// How long refusals took, from when the request was written.
    pub(super) refusals: Latencies,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            messages: 0,
            bytes: 0,
            failed: 0,
            retried: 0,
            first_failure: None,
            latencies: Latencies::new(),
            refusals: Latencies::new(),
        }
    }

    /// Begins again at nothing; the reason of an earlier failure stays.
    pub(super) fn clear(&mut self) {
        self.messages = 0;
        self.bytes = 0;
        self.failed = 0;
        self.retried = 0;
        self.latencies.clear();
        self.refusals.clear();
    }
}

/// The longest time without an acknowledgement, group by group.
#[derive(Clone, Debug)]
pub(super) struct Gaps {
    last: Vec<Instant>,
    longest: (Duration, usize),
}

impl Gaps {
    /// As if every group had just acknowledged something.
    pub(super) fn new(groups: usize, now: Instant) -> Gaps {
        Gaps {
            last: vec![now; groups],
            longest: (Duration::ZERO, 0),
        }
    }

    /// A group has acknowledged something.
    pub(super) fn acknowledged(&mut self, group: usize, now: Instant) {
        let gap = now.saturating_duration_since(self.last[group]);
        self.longest = self.longest.max((gap, group));
        self.last[group] = now;
    }

    /// The longest gap and its group; a gap that has not ended yet counts.
    pub(super) fn longest(&self, now: Instant) -> (Duration, usize) {
        let open = self.last.iter().enumerate();
        let open = open.map(|(group, last)| (now.saturating_duration_since(*last), group));
        open.max()
            .map_or(self.longest, |open| self.longest.max(open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_of_one_group_and_may_be_open() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut gaps = Gaps::new(2, start);
        for ms in [10, 20, 320, 330] {
            gaps.acknowledged(1, at(ms));
        }
        for ms in [100, 200, 300] {
            gaps.acknowledged(0, at(ms));
        }
        assert_eq!(gaps.longest(at(330)), (Duration::from_millis(300), 1));
        assert_eq!(gaps.longest(at(700)), (Duration::from_millis(400), 0));
    }
}
