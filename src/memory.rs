//! Memory that nobody needs any more: old records, and when a load is over what the allocator keeps (ADR 13).

use std::sync::Arc;
use std::time::Duration;

use gantry_raft::aside;
use gantry_storage::LogIndex;
use tokio::time::{MissedTickBehavior, interval};

use crate::group::Group;

/// Records stay in memory for this long to twice as long, unless newer ones take their place: for consumers
/// and followers that are a little behind.
const INTERVAL: Duration = Duration::from_secs(15);

/// Less log than this in an interval is no load: consumers that commit offsets, heartbeats of clients.
const QUIET_BYTES: u64 = 4 << 20;

/// More log than this since the last time is worth a look for free memory.
const LOAD_BYTES: u64 = 16 << 20;

/// Lets go of the old records of all groups, and gives free memory back to the system when a load is over.
pub async fn run(groups: Vec<Arc<Group>>) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let newest = |group: &Arc<Group>| {
        group
            .log
            .bounds()
            .last
            .map_or(LogIndex::ZERO, |last| last.0)
    };
    let mut remembered: Vec<LogIndex> = groups.iter().map(newest).collect();
    let mut load = Load::default();
    loop {
        tick.tick().await;
        for (group, seen) in groups.iter().zip(&mut remembered) {
            group.log.forget_through(*seen);
            *seen = newest(group);
        }
        let written = groups
            .iter()
            .map(|group| group.log.bounds().end_offset.get());
        if load.is_over(written.sum())
            && let Err(error) = aside(give_back).await
        {
            tracing::error!(%error, "free memory was not given back");
        }
    }
}

/// How much log there was.
#[derive(Default)]
struct Load {
    /// At the last look.
    seen: u64,
    /// When memory was given back.
    settled: u64,
}

impl Load {
    /// Whether a load has just come to its end, with `written` bytes of log.
    fn is_over(&mut self, written: u64) -> bool {
        let quiet = written.saturating_sub(self.seen) < QUIET_BYTES;
        let over = quiet && written.saturating_sub(self.settled) >= LOAD_BYTES;
        self.seen = written;
        if over {
            self.settled = written;
        }
        over
    }
}

/// Takes milliseconds for each hundred MiB, in which other threads wait that allocate.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn give_back() {
    // SAFETY: it takes a number, may be called from any thread at any time, and only unmaps pages that hold
    // no allocation.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give memory back by themselves, or not at all.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_over_once() {
        let mut load = Load::default();
        let mut at = 100 << 20;
        assert!(!load.is_over(at), "a log that was there is no load yet");
        let looks = |load: &mut Load, at: &mut u64, grow: u64, count: usize| {
            let look = |_| {
                *at += grow;
                load.is_over(*at)
            };
            (0..count).map(look).collect::<Vec<bool>>()
        };
        assert_eq!(looks(&mut load, &mut at, 50 << 20, 2), [false, false]);
        assert_eq!(looks(&mut load, &mut at, 1 << 20, 3), [true, false, false]);
        assert_eq!(looks(&mut load, &mut at, 50 << 20, 1), [false]);
        assert_eq!(looks(&mut load, &mut at, 0, 2), [true, false]);
    }
}
