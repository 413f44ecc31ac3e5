//! Reads the log again, slowly, to find rot before somebody needs what rotted (ADR 10).

use std::sync::Arc;
use std::time::Duration;

use gantry_raft::aside;
use gantry_storage::PhysicalOffset;
use tokio::time::Instant;

use crate::clock::WallClock;
use crate::config::ScrubConfig;
use crate::group::Group;
use crate::status::disk_bytes;

/// Read at once.
const STEP_BYTES: u64 = 1 << 20;

/// A pass over a small log is not made slower than this; bytes a second.
const RATE_MIN: u64 = 256 << 10;

/// Looks at everything that a group has on disk, once in each interval, until the node stops.
pub async fn run(config: ScrubConfig, group: Arc<Group>) {
    if config.interval.is_zero() {
        return;
    }
    loop {
        let began = Instant::now();
        if pass(config, &group).await {
            group
                .metrics
                .scrub_completed
                .set(WallClock::system().now_ms() / 1000);
        }
        tokio::time::sleep_until(began + config.interval).await;
    }
}

/// One pass; false if it broke off.
async fn pass(config: ScrubConfig, group: &Arc<Group>) -> bool {
    let mut next = Some(PhysicalOffset::ZERO);
    while let Some(at) = next {
        let log = group.log.clone();
        let step = aside(move || log.scrub(at, STEP_BYTES)).await;
        let step = match step {
            Ok(Ok(step)) => step,
            Ok(Err(error)) => {
                tracing::error!(group = group.name, %error, "looking for rot was broken off");
                return false;
            }
            Err(error) => {
                tracing::error!(group = group.name, %error, "looking for rot failed");
                return false;
            }
        };
        next = step.next;
        tokio::time::sleep(pause(step.bytes, disk_bytes(group), config)).await;
    }
    true
}

/// How long to rest after a step, so that the pass takes most of the interval.
fn pause(step_bytes: u64, log_bytes: u64, config: ScrubConfig) -> Duration {
    let wanted = (log_bytes as f64 * 1.25 / config.interval.as_secs_f64()) as u64;
    let rate = wanted.max(RATE_MIN).min(config.bytes_per_second).max(1);
    Duration::from_secs_f64(step_bytes as f64 / rate as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_takes_most_of_the_interval_and_never_more_than_the_disk_is_to_bear() {
        let config = ScrubConfig {
            interval: Duration::from_secs(86_400),
            bytes_per_second: 32 << 20,
        };
        let pass_of = |bytes: u64, config| {
            let steps = bytes / STEP_BYTES;
            pause(STEP_BYTES, bytes, config).as_secs_f64() * steps as f64
        };
        let day = 86_400.0;
        let large = pass_of(500 << 30, config);
        assert!((0.7 * day..0.9 * day).contains(&large), "{large}");
        assert!(pass_of(1 << 30, config) < 0.1 * day);
        let limited = ScrubConfig {
            bytes_per_second: 1 << 20,
            ..config
        };
        assert_eq!(
            pause(STEP_BYTES, 500 << 30, limited),
            Duration::from_secs(1)
        );
    }
}
