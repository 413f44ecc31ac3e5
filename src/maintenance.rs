//! Work of a group that nobody waits for: index files, the copy of the tables, retention, the next
//! segment; and the topics that must exist.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use gantry_raft::aside;
use gantry_storage::commitlog::SegmentInfo;
use gantry_storage::tables::Command;
use gantry_storage::{LogConfig, LogIndex, PhysicalOffset, StoreError, retention};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::catalog;
use crate::clock::WallClock;
use crate::config::Config;
use crate::group::{Group, HOLD};

const INTERVAL: Duration = Duration::from_secs(1);

/// A piece of the next segment is prepared this often while the log grows.
const PREPARE_INTERVAL: Duration = Duration::from_millis(50);

/// The tables are copied this often, or when so much log has come that replaying it would be felt.
const COPY_INTERVAL: Duration = Duration::from_secs(60);
const COPY_LOG_BYTES: u64 = 128 * 1024 * 1024;

/// Copying takes at most this part of the time: ten thousand queues have ten thousand files to be written and
/// synced, which takes a third of a second and all of the disk, and a longer replay is the lesser evil.
const COPY_SHARE: u32 = 50;

/// When the tables were copied, or a checkpoint of them was written.
struct Copied {
    at: Instant,
    log_end: u64,
    took: Duration,
}

impl Copied {
    /// Whether they are to be copied again, with the log ending at `end`.
    fn is_old(&self, now: Instant, end: u64) -> bool {
        let grown = end.saturating_sub(self.log_end);
        let since = now - self.at;
        let paid = since >= self.took * COPY_SHARE;
        grown > 0 && (since >= COPY_INTERVAL || grown >= COPY_LOG_BYTES && paid)
    }
}

/// Does the chores of one group. Returns only when files cannot be written any more, with the reason:
/// after a failed sync nothing that is in memory can be trusted to reach the disk, so the process must
/// end; a restart reads what is there.
pub async fn run(config: Arc<Config>, group: Arc<Group>, clock: WallClock) -> String {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let end = || group.log.bounds().end_offset.get();
    let mut copied = Copied {
        at: Instant::now(),
        log_end: end(),
        took: Duration::ZERO,
    };
    loop {
        tick.tick().await;
        let (at, log_end) = (Instant::now(), end());
        let copies = copied.is_old(at, log_end);
        let working = group.clone();
        match aside(move || chores(&working, copies)).await {
            Ok(Ok(Some(took))) => copied = Copied { at, log_end, took },
            Ok(Ok(None)) => {}
            Ok(Err(error)) if error.is_lack_of_room() => {
                tracing::warn!(group = group.name, %error, "index files wait for room on the disk");
            }
            Ok(Err(error)) => return format!("group {}: {error}", group.name),
            Err(error) => return format!("group {}: maintenance failed: {error}", group.name),
        }
        retain(&config, &group, clock.now_ms()).await;
    }
}

/// Returns how long it took to save a state that the next start can begin with, if one was saved.
fn chores(group: &Group, copies: bool) -> Result<Option<Duration>, StoreError> {
    let began = Instant::now();
    let mut saved = group.store.flush_indexes()?;
    if copies && !saved {
        group.store.save_copy()?;
        saved = true;
    }
    let took = saved.then(|| began.elapsed());
    // What follows only makes a start or a roll quicker.
    if let Err(error) = group.log.save_indexes() {
        tracing::warn!(group = group.name, %error, "the log's own index cannot be written");
    }
    Ok(took)
}

/// Prepares the next segment of one group while the active one fills: twice as fast, so that the disk never
/// has much of it to do at once.
pub async fn next_segment(group: Arc<Group>) {
    const UNIT: u64 = LogConfig::SEGMENT_UNIT;
    let mut prepared_for = group.log.bounds().end_offset.get();
    loop {
        let end = group.log.bounds().end_offset.get();
        let grown = end.saturating_sub(prepared_for);
        prepared_for = end;
        if grown == 0 {
            tokio::time::sleep(INTERVAL).await;
            continue;
        }
        let working = group.clone();
        let bytes = (2 * grown).next_multiple_of(UNIT);
        let prepared = aside(move || working.log.prepare_next(bytes)).await;
        if let Ok(Err(error)) = prepared {
            tracing::warn!(group = group.name, %error, "the next segment cannot be prepared");
            tokio::time::sleep(INTERVAL).await;
        }
        tokio::time::sleep(PREPARE_INTERVAL).await;
    }
}

/// Removes what is too old or too much, and notes whether the disk takes sends.
async fn retain(config: &Arc<Config>, group: &Arc<Group>, now_ms: u64) {
    let (config, planning) = (config.clone(), group.clone());
    let boundary = match aside(move || plan(&config, &planning, now_ms)).await {
        Ok(Ok(boundary)) => boundary,
        Ok(Err(error)) => {
            tracing::error!(group = group.name, %error, "retention cannot look at the disk");
            return;
        }
        Err(error) => {
            tracing::error!(group = group.name, %error, "retention failed");
            return;
        }
    };
    let Some(index) = boundary else { return };
    let retiring = group.clone();
    match aside(move || retiring.store.retire_before(index)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(group = group.name, %error, "retention cannot read the new start");
            return;
        }
        Err(error) => {
            tracing::error!(group = group.name, %error, "retention failed");
            return;
        }
    }
    if let Err(error) = group.replica.purge_through(index).await {
        tracing::error!(group = group.name, %error, "cannot remove old log");
        return;
    }
    // The checkpoint at the old start of the log goes only when the new start is on the disk.
    let (tell, told) = oneshot::channel();
    let asked = group
        .log
        .barrier(Box::new(move |done| drop(tell.send(done))));
    if !matches!((asked, told.await), (Ok(()), Ok(Ok(())))) {
        tracing::error!(
            group = group.name,
            "the log was closed while its start moved"
        );
        return;
    }
    tracing::info!(group = group.name, %index, "removed the log up to a record");
    let following = group.clone();
    let followed = aside(move || following.store.log_purged()).await;
    if let Ok(Err(error)) = followed {
        tracing::error!(group = group.name, %error, "files of removed messages are left");
    }
}

/// Looks at the disk and chooses the record up to which the log may go.
fn plan(
    config: &Config,
    group: &Group,
    now_ms: u64,
) -> Result<Option<LogIndex>, Box<dyn Error + Send + Sync>> {
    let space = group.disk.look()?;
    let plan = retention::plan(&group.log.segments(), now_ms, space, &config.retention);
    let Some(base) = plan.keep_from else {
        return Ok(None);
    };
    // The leader appends what waits there again; until that is resolved here, its segments stay.
    group.signals.keep_from(base);
    let base = match group.store.tables().parked().first_place() {
        Some(place) if place < base => segment_of(&group.log.segments(), place),
        _ => Some(base),
    };
    let Some(base) = base else {
        return Ok(None);
    };
    Ok(group.store.set_boundary(base)?.map(|(index, _)| index))
}

/// Base of the segment that a place is in; `None` if it is before all of them.
fn segment_of(segments: &[SegmentInfo], place: PhysicalOffset) -> Option<PhysicalOffset> {
    let bases = segments.iter().map(|segment| segment.base);
    bases.take_while(|base| *base <= place).last()
}

/// Creates the topics that must exist, whenever this node leads and they do not.
pub async fn system_topics(config: Arc<Config>, group: Arc<Group>) {
    let mut leadership = group.replica.leadership();
    let wanted = catalog::system_topics(&config, &group.name);
    loop {
        let ready = leadership.borrow_and_update().ready;
        if ready {
            let missing: Vec<Command> = wanted
                .iter()
                .filter(|topic| group.store.tables().topic(&topic.name).is_none())
                .map(|topic| Command::CreateTopic {
                    config: topic.clone(),
                })
                .collect();
            if !missing.is_empty()
                && let Err(error) = group.execute(missing, Instant::now() + HOLD).await
            {
                tracing::warn!(group = group.name, %error, "system topics are not there yet");
                tokio::time::sleep(INTERVAL).await;
                continue;
            }
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_takes_long_is_made_rarely() {
        let second = Duration::from_secs(1);
        let copied = |took| Copied {
            at: Instant::now(),
            log_end: 1000,
            took,
        };
        let quick = copied(second / 50);
        let later = quick.at + second;
        assert!(quick.is_old(later, 1000 + COPY_LOG_BYTES));
        assert!(!quick.is_old(later, 999 + COPY_LOG_BYTES));
        let slow = copied(second);
        assert!(!slow.is_old(slow.at + 49 * second, 1000 + COPY_LOG_BYTES));
        assert!(slow.is_old(slow.at + 50 * second, 1000 + COPY_LOG_BYTES));
        assert!(slow.is_old(slow.at + COPY_INTERVAL, 1001));
        assert!(!slow.is_old(slow.at + COPY_INTERVAL, 1000), "nothing came");
    }
}
