//! A replica that catches up gets the log at a bounded rate, so that it takes neither the disk nor
//! the network from the clients; how far it has come is kept for the log and the metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::types::{GroupId, NodeNumber};

/// A follower this many records behind counts as catching up.
const LAG_RECORDS: u64 = 256;

/// How often progress is logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// How far a replica that catches up has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUpProgress {
    /// Index of the last record sent.
    pub sent: u64,
    /// Index of the leader's last record at that moment.
    pub last: u64,
}

/// The rate and the progress of the replicas that this node brings up to date.
pub struct CatchUp {
    bytes_per_second: u64,
    progress: Mutex<BTreeMap<(GroupId, NodeNumber), CatchUpProgress>>,
}

impl CatchUp {
    /// Each replica gets at most `bytes_per_second` while it is far behind.
    pub fn new(bytes_per_second: u64) -> Self {
        assert!(
            bytes_per_second > 0,
            "a replica that gets nothing never catches up"
        );
        CatchUp {
            bytes_per_second,
            progress: Mutex::default(),
        }
    }

    /// The replicas that are being brought up to date now.
    pub fn progress(&self) -> BTreeMap<(GroupId, NodeNumber), CatchUpProgress> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(GroupId, NodeNumber), CatchUpProgress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The throttle of one stream of entries.
pub(super) struct Throttle {
    catch_up: Arc<CatchUp>,
    to: (GroupId, NodeNumber),
    started: Instant,
    sent_bytes: u64,
    /// Where the leader's log ended when the replica fell behind.
    end_at_start: u64,
    reported: Option<Instant>,
}

/// Where the leader's log ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogEnd {
    /// Index of the last record.
    pub index: u64,
    /// Physical offset after it.
    pub offset: u64,
}

/// A replica that catches up gets so many times what the leader takes in, if that is more than the
/// configured rate; with less it would never arrive.
const GAIN: f64 = 2.0;

impl Throttle {
    pub(super) fn new(catch_up: Arc<CatchUp>, to: (GroupId, NodeNumber)) -> Self {
        Throttle {
            catch_up,
            to,
            started: Instant::now(),
            sent_bytes: 0,
            end_at_start: 0,
            reported: None,
        }
    }

    /// Notes that `bytes` up to record `sent` are about to go out while the log ends at `end`; waits
    /// when that is faster than allowed. A follower close to the end never waits.
    pub(super) async fn pass(&mut self, bytes: u64, sent: u64, end: LogEnd) {
        let last = end.index;
        if sent + LAG_RECORDS >= last {
            if self.reported.take().is_some() {
                let (group, node) = self.to;
                tracing::info!(group, node, index = sent, "replica has caught up");
                self.catch_up.lock().remove(&self.to);
            }
            return;
        }
        let now = Instant::now();
        if self.reported.is_none() {
            self.started = now;
            self.sent_bytes = 0;
            self.end_at_start = end.offset;
        }
        if self.reported.is_none_or(|at| now - at >= REPORT_INTERVAL) {
            let (group, node) = self.to;
            tracing::info!(group, node, sent, last, "replica is catching up");
            self.reported = Some(now);
        }
        self.catch_up
            .lock()
            .insert(self.to, CatchUpProgress { sent, last });
        self.sent_bytes += bytes;
        let taken_in = end.offset.saturating_sub(self.end_at_start) as f64;
        let elapsed = (now - self.started).as_secs_f64().max(1.0);
        let rate = (self.catch_up.bytes_per_second as f64).max(GAIN * taken_in / elapsed);
        let due = self.sent_bytes as f64 / rate;
        tokio::time::sleep_until(self.started + Duration::from_secs_f64(due)).await;
    }
}

impl Drop for Throttle {
    /// A stream that broke brings nobody up to date.
    fn drop(&mut self) {
        if self.reported.is_some() {
            self.catch_up.lock().remove(&self.to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_replica_far_behind_waits() {
        let catch_up = Arc::new(CatchUp::new(1_000_000));
        let mut throttle = Throttle::new(catch_up.clone(), (0, 2));
        let start = Instant::now();
        let end = |offset| LogEnd {
            index: 1000,
            offset,
        };
        throttle.pass(50_000_000, 990, end(0)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        throttle.pass(2_000_000, 100, end(0)).await;
        assert_eq!(start.elapsed().as_secs(), 2);
        let progress = CatchUpProgress {
            sent: 100,
            last: 1000,
        };
        assert_eq!(catch_up.progress().get(&(0, 2)), Some(&progress));
        throttle.pass(1, 1000, end(0)).await;
        assert!(catch_up.progress().is_empty());

        throttle.pass(1, 100, end(0)).await;
        assert_eq!(catch_up.progress().len(), 1);
        drop(throttle);
        assert!(catch_up.progress().is_empty(), "its stream is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_gains_on_a_leader_that_takes_in_more_than_the_rate() {
        let mut throttle = Throttle::new(Arc::new(CatchUp::new(1_000_000)), (0, 2));
        let end = |offset| LogEnd {
            index: 10_000,
            offset,
        };
        throttle.pass(1_000_000, 100, end(0)).await;
        let start = Instant::now();
        // In its first second the leader took in 10 MB: the next 10 MB may go in half a second.
        throttle.pass(19_000_000, 200, end(10_000_000)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
