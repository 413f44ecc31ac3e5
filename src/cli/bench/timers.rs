//! Timers: when each of them is due, and what has come of them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::stamp::STAMP_BYTES;

/// Where a part of the golden ratio lies; steps of it visit places that are far from each other.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// Messages that are each due at a time of their own, evenly spread over some time. Those that are sent one
/// after the other are not due one after the other: neighbours in the log are seldom asked for together.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimerPlan {
    /// Tells messages of this run from others.
    run: u64,
    count: u64,
    /// Has no factor in common with `count`.
    stride: u64,
    first_us: u64,
    within: Duration,
    /// When the first one is due.
    pub(super) first: Instant,
}

impl TimerPlan {
    /// `count` timers that are due between `after` and `after` + `within` from now.
    pub(super) fn new(count: u64, after: Duration, within: Duration) -> TimerPlan {
        let now_us = wall_us();
        let common = |mut one: u64, mut other: u64| {
            while other > 0 {
                (one, other) = (other, one % other);
            }
            one
        };
        let start = (count as f64 * GOLDEN) as u64;
        let stride = (start.max(1)..).find(|stride| common(*stride, count) == 1);
        TimerPlan {
            run: now_us ^ u64::from(std::process::id()) << 40,
            count,
            stride: stride.expect("the next prime number is one"),
            first_us: now_us + after.as_micros() as u64,
            within,
            first: Instant::now() + after,
        }
    }

    /// When a timer is due; milliseconds since 1970.
    pub(super) fn due_ms(&self, number: u64) -> u64 {
        let turn = u128::from(number) * u128::from(self.stride) % u128::from(self.count);
        let behind = self.within.as_micros() * turn / u128::from(self.count);
        (self.first_us + behind as u64) / 1000
    }

    /// Writes the number of a timer over the beginning of its body.
    pub(super) fn write(&self, number: u64, body: &mut [u8]) {
        body[..8].copy_from_slice(&self.run.to_be_bytes());
        body[8..STAMP_BYTES].copy_from_slice(&number.to_be_bytes());
    }

    /// The number in a body, if it is of this run.
    fn read(&self, body: &[u8]) -> Option<u64> {
        let (run, rest) = body.split_first_chunk()?;
        let number = u64::from_be_bytes(*rest.first_chunk()?);
        (u64::from_be_bytes(*run) == self.run && number < self.count).then_some(number)
    }
}

/// The time, as the brokers of the same machine have it; microseconds since 1970.
pub(super) fn wall_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_micros() as u64
}

/// Timers that came.
#[derive(Debug)]
pub(super) struct Arrivals {
    plan: TimerPlan,
    /// A bit for each.
    seen: Vec<u64>,
    /// How many different ones came.
    pub(super) came: u64,
    /// Before they were due.
    pub(super) early: u64,
    /// When they had come before.
    pub(super) again: u64,
}

impl Arrivals {
    pub(super) fn of(plan: TimerPlan) -> Arrivals {
        Arrivals {
            plan,
            seen: vec![0; plan.count.div_ceil(64) as usize],
            came: 0,
            early: 0,
            again: 0,
        }
    }

    /// A message came; how late it was if it is a timer that had not come before.
    pub(super) fn book(&mut self, body: &[u8], now_us: u64) -> Option<Duration> {
        let number = self.plan.read(body)?;
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen[word] & bit != 0 {
            self.again += 1;
            return None;
        }
        self.seen[word] |= bit;
        self.came += 1;
        let due_us = self.plan.due_ms(number) * 1000;
        self.early += u64::from(now_us < due_us);
        Some(Duration::from_micros(now_us.saturating_sub(due_us)))
    }

    /// Whether all of them have come.
    pub(super) fn is_complete(&self) -> bool {
        self.came == self.plan.count
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan(count: u64) -> TimerPlan {
        TimerPlan::new(count, Duration::from_secs(5), Duration::from_secs(10))
    }

    fn body(plan: &TimerPlan, number: u64) -> [u8; STAMP_BYTES] {
        let mut body = [0; STAMP_BYTES];
        plan.write(number, &mut body);
        body
    }

    #[test]
    fn due_times_are_spread_evenly_and_neighbours_are_far_apart() {
        for count in [1, 2, 10, 1000, 9973] {
            let plan = plan(count);
            let mut due: Vec<u64> = (0..count).map(|number| plan.due_ms(number)).collect();
            if count >= 10 {
                let far = due.windows(2).all(|two| two[0].abs_diff(two[1]) > 2900);
                assert!(far, "{count}: {due:?}");
            }
            due.sort_unstable();
            assert_eq!(due[0], plan.first_us / 1000);
            let gap_ms = 10_000 / count;
            let even = due.windows(2).all(|two| two[1] - two[0] <= gap_ms + 1);
            assert!(even && due[due.len() - 1] < plan.first_us / 1000 + 10_000);
        }
    }

    #[test]
    fn what_comes_early_twice_or_from_elsewhere_is_told_apart() {
        let plan = plan(100);
        let mut arrivals = Arrivals::of(plan);
        let due_us = |number| plan.due_ms(number) * 1000;
        let late = arrivals.book(&body(&plan, 7), due_us(7) + 1234);
        assert_eq!(late, Some(Duration::from_micros(1234)));
        assert_eq!(arrivals.book(&body(&plan, 7), due_us(7) + 5000), None);
        let early = arrivals.book(&body(&plan, 8), due_us(8) - 1);
        assert_eq!(early, Some(Duration::ZERO));
        let other = TimerPlan {
            run: plan.run + 1,
            ..plan
        };
        assert_eq!(arrivals.book(&body(&other, 9), due_us(9)), None);
        assert_eq!(arrivals.book(b"short", due_us(9)), None);
        assert_eq!((arrivals.came, arrivals.early, arrivals.again), (2, 1, 1));
        for number in 0..100 {
            arrivals.book(&body(&plan, number), due_us(number));
        }
        assert!(arrivals.is_complete());
    }
}
