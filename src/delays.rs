//! When a message is to come, from what its properties ask for: now, after a delay level, or at a time.
//!
//! A delay level wins over a time. What is due already comes at once; what is too far away is refused.

use std::time::Duration;

use gantry_protocol::ResponseCode;
use gantry_protocol::properties::names;
use gantry_storage::tables::RetryPolicy;

use crate::error::Failure;

/// The level of a message's first retry.
const RETRY_LEVEL_FIRST: i64 = 3;

/// The delays that a broker knows. The leader decides by its own: they should be the same on all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delays {
    /// How long the levels 1, 2 and so on wait.
    pub levels: Vec<Duration>,
    /// The longest time that a message with a time may wait.
    pub longest: Duration,
}

/// RocketMQ's.
impl Default for Delays {
    fn default() -> Self {
        let minutes = (1..=10)
            .chain([20, 30, 60, 120])
            .map(|minutes| minutes * 60);
        let seconds = [1, 5, 10, 30].into_iter().chain(minutes);
        Delays {
            levels: seconds.map(Duration::from_secs).collect(),
            longest: Duration::from_secs(3 * 24 * 3600),
        }
    }
}

/// What the properties of a message ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    level: Option<i64>,
    delay_sec: Option<u64>,
    delay_ms: Option<u64>,
    deliver_ms: Option<u64>,
    cancels: bool,
    unreadable: Option<&'static str>,
}

/// When a message is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// After the delay of a level, counted from 1.
    Level {
        /// The level.
        level: usize,
        /// Milliseconds since 1970.
        due_ms: u64,
    },
    /// At a time.
    At {
        /// Milliseconds since 1970.
        due_ms: u64,
    },
}

impl Wishes {
    /// Notes a property, if it is one that counts here.
    pub fn note(&mut self, name: &str, value: &str) {
        match name {
            names::DELAY_LEVEL => self.level = self.read(names::DELAY_LEVEL, value),
            names::TIMER_DELAY_SEC => self.delay_sec = self.read(names::TIMER_DELAY_SEC, value),
            names::TIMER_DELAY_MS => self.delay_ms = self.read(names::TIMER_DELAY_MS, value),
            names::TIMER_DELIVER_MS => self.deliver_ms = self.read(names::TIMER_DELIVER_MS, value),
            names::TIMER_DEL_UNIQKEY => self.cancels = true,
            _ => {}
        }
    }

    /// Whether it takes back another message instead of being one.
    pub fn cancels(&self) -> bool {
        self.cancels
    }

    fn read<T: std::str::FromStr>(&mut self, name: &'static str, value: &str) -> Option<T> {
        let read = value.trim().parse().ok();
        if read.is_none() {
            self.unreadable = Some(name);
        }
        read
    }

    /// Whether anything is asked for.
    pub fn any(&self) -> bool {
        *self != Wishes::default()
    }
}

impl Delays {
    /// How long a level waits: levels beyond the last are the last. `None` for 0 and less.
    pub fn level(&self, level: i64) -> Option<(usize, Duration)> {
        let last = self.levels.len();
        let level = usize::try_from(level).ok()?.min(last);
        let wait = self.levels.get(level.checked_sub(1)?)?;
        Some((level, *wait))
    }

    /// When a message comes again that a consumer handed back after `times` earlier attempts: at the level it
    /// asked for, or as its group's settings say, or from level 3 on, a level further each time.
    pub fn retry(&self, policy: &RetryPolicy, level: i32, times: i32, now_ms: u64) -> When {
        let times = u32::try_from(times).unwrap_or(0);
        if level == 0
            && let Some(wait_ms) = policy_wait_ms(policy, times)
        {
            let due_ms = now_ms.saturating_add(wait_ms);
            return When::At { due_ms };
        }
        let level = if level > 0 {
            i64::from(level)
        } else {
            RETRY_LEVEL_FIRST + i64::from(times)
        };
        self.level(level).map_or(When::Now, |(level, wait)| {
            let due_ms = now_ms + wait.as_millis() as u64;
            When::Level { level, due_ms }
        })
    }

    /// When a message with these wishes comes, if it is sent at `now_ms`.
    ///
    /// # Errors
    /// Code 13: a value that is no number, a time that is too far away, or a cancellation of what is due.
    pub fn when(&self, wishes: &Wishes, now_ms: u64) -> Result<When, Failure> {
        let illegal = |reason: String| Failure::code(ResponseCode::MESSAGE_ILLEGAL, reason);
        if let Some(name) = wishes.unreadable {
            return Err(illegal(format!("property {name} is not a number")));
        }
        if let Some((level, wait)) = wishes.level.and_then(|level| self.level(level)) {
            let due_ms = now_ms + wait.as_millis() as u64;
            return Ok(When::Level { level, due_ms });
        }
        let asked = wishes
            .delay_sec
            .map(|seconds| now_ms.saturating_add(seconds.saturating_mul(1000)))
            .or_else(|| wishes.delay_ms.map(|wait| now_ms.saturating_add(wait)))
            .or(wishes.deliver_ms);
        match asked {
            Some(due_ms) if due_ms > now_ms => {
                let longest_ms = self.longest.as_millis() as u64;
                if due_ms - now_ms > longest_ms {
                    return Err(illegal(format!(
                        "a message may wait {longest_ms} ms (broker.timer_max_delay), not {} ms",
                        due_ms - now_ms
                    )));
                }
                Ok(When::At { due_ms })
            }
            _ if wishes.cancels => Err(illegal(format!(
                "property {} without a time that is still to come",
                names::TIMER_DEL_UNIQKEY
            ))),
            _ => Ok(When::Now),
        }
    }
}

/// What the settings of a group say about the next attempt; `None` if they leave it to the levels.
fn policy_wait_ms(policy: &RetryPolicy, times: u32) -> Option<u64> {
    match policy {
        RetryPolicy::Customized(waits_ms) => {
            let last = waits_ms.len().checked_sub(1)?;
            Some(waits_ms[last.min(times as usize)])
        }
        RetryPolicy::Exponential {
            initial_ms,
            max_ms,
            multiplier,
        } => {
            let factor = multiplier.saturating_pow(times);
            Some(initial_ms.saturating_mul(factor).min(*max_ms))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn delays() -> Delays {
        Delays {
            levels: vec![Duration::from_secs(1), Duration::from_secs(5)],
            longest: Duration::from_secs(100),
        }
    }

    fn when(properties: &[(&str, &str)]) -> Result<When, Failure> {
        let mut wishes = Wishes::default();
        for (name, value) in properties {
            wishes.note(name, value);
        }
        delays().when(&wishes, 50_000)
    }

    #[test]
    fn levels_win_over_times_and_end_at_the_last() {
        let level = |level, due_ms| Ok(When::Level { level, due_ms });
        assert_eq!(when(&[("DELAY", "1")]), level(1, 51_000));
        assert_eq!(
            when(&[("DELAY", "9"), ("TIMER_DELAY_SEC", "3")]),
            level(2, 55_000)
        );
        let at = Ok(When::At { due_ms: 53_000 });
        assert_eq!(when(&[("DELAY", "0"), ("TIMER_DELAY_SEC", "3")]), at);
        assert_eq!(when(&[("DELAY", "-1")]), Ok(When::Now));
    }

    #[test]
    fn times_are_exact_to_the_millisecond_and_bounded() {
        let at = |due_ms| Ok(When::At { due_ms });
        assert_eq!(when(&[("TIMER_DELIVER_MS", "50001")]), at(50_001));
        assert_eq!(when(&[("TIMER_DELAY_MS", "7")]), at(50_007));
        let all = [
            ("TIMER_DELIVER_MS", "50001"),
            ("TIMER_DELAY_MS", "7"),
            ("TIMER_DELAY_SEC", "1"),
        ];
        assert_eq!(when(&all), at(51_000), "the first of RocketMQ's order");
        for past in ["50000", "0"] {
            assert_eq!(when(&[("TIMER_DELIVER_MS", past)]), Ok(When::Now));
        }
        assert_eq!(when(&[("TIMER_DELIVER_MS", "150000")]), at(150_000));
        for far in ["150001", "18446744073709551615"] {
            let refused = when(&[("TIMER_DELIVER_MS", far)]).unwrap_err();
            assert!(matches!(
                refused,
                Failure::Code(ResponseCode::MESSAGE_ILLEGAL, _)
            ));
        }
        assert!(when(&[("TIMER_DELAY_SEC", "18446744073709551615")]).is_err());
    }

    #[test]
    fn a_retry_comes_by_level_or_as_the_group_says() {
        let mut delays = delays();
        delays.levels = (1..=18).map(Duration::from_secs).collect();
        let level = |level, due_ms| When::Level { level, due_ms };
        let default = RetryPolicy::default();
        assert_eq!(delays.retry(&default, 0, 0, 0), level(3, 3_000));
        assert_eq!(delays.retry(&default, 0, 15, 0), level(18, 18_000));
        assert_eq!(delays.retry(&default, 0, 99, 0), level(18, 18_000));
        assert_eq!(delays.retry(&default, 1, 99, 0), level(1, 1_000));
        let listed = RetryPolicy::Customized(vec![10, 20]);
        for (times, due_ms) in [(0, 10), (1, 20), (7, 20)] {
            assert_eq!(delays.retry(&listed, 0, times, 0), When::At { due_ms });
        }
        assert_eq!(delays.retry(&listed, 5, 0, 0), level(5, 5_000), "asked for");
        let growing = RetryPolicy::Exponential {
            initial_ms: 5,
            max_ms: 70,
            multiplier: 3,
        };
        for (times, due_ms) in [(0, 5), (2, 45), (3, 70), (1_000, 70)] {
            assert_eq!(delays.retry(&growing, 0, times, 0), When::At { due_ms });
        }
    }

    #[test]
    fn what_is_no_number_and_what_cancels_nothing_is_refused() {
        assert!(when(&[("DELAY", "soon")]).is_err());
        assert!(when(&[("TIMER_DELIVER_MS", "-5")]).is_err());
        assert!(when(&[("TIMER_DEL_UNIQKEY", "k")]).is_err());
        let later = [("TIMER_DEL_UNIQKEY", "k"), ("TIMER_DELIVER_MS", "60000")];
        assert_eq!(when(&later), Ok(When::At { due_ms: 60_000 }));
    }
}
