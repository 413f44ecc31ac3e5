//! Work of a group that nobody waits for: index files, the copy of the tables, retention, the next
//! segment; and the topics that must exist.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use gantry_raft::aside;
use gantry_storage::tables::Command;
use gantry_storage::{LogIndex, StoreError, retention};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::catalog;
use crate::clock::WallClock;
use crate::config::Config;
use crate::group::{Group, HOLD};

const INTERVAL: Duration = Duration::from_secs(1);

/// The tables are copied this often, or when so much log has come that replaying it would be felt.
const COPY_INTERVAL: Duration = Duration::from_secs(60);
const COPY_LOG_BYTES: u64 = 128 * 1024 * 1024;

/// Does the chores of one group. Returns only when files cannot be written any more, with the reason:
/// after a failed sync nothing that is in memory can be trusted to reach the disk, so the process must
/// end; a restart reads what is there.
pub async fn run(config: Arc<Config>, group: Arc<Group>, clock: WallClock) -> String {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut copied = (Instant::now(), group.log.bounds().end_offset);
    loop {
        tick.tick().await;
        let end = group.log.bounds().end_offset;
        let grown = end.get().saturating_sub(copied.1.get());
        let copies = grown > 0 && (copied.0.elapsed() >= COPY_INTERVAL || grown >= COPY_LOG_BYTES);
        if copies {
            copied = (Instant::now(), end);
        }
        let working = group.clone();
        match aside(move || chores(&working, copies)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return format!("group {}: {error}", group.name),
            Err(error) => return format!("group {}: maintenance failed: {error}", group.name),
        }
        retain(&config, &group, clock.now_ms()).await;
    }
}

fn chores(group: &Group, copies: bool) -> Result<(), StoreError> {
    group.store.flush_indexes()?;
    if copies {
        group.store.save_copy()?;
    }
    // What follows only makes a start or a roll quicker.
    if let Err(error) = group.log.save_indexes() {
        tracing::warn!(group = group.name, %error, "the log's own index cannot be written");
    }
    let fill = group.log.bounds().end_offset.get() % group.segment_bytes;
    if fill > group.segment_bytes / 2
        && let Err(error) = group.log.prepare_next()
    {
        tracing::warn!(group = group.name, %error, "the next segment cannot be prepared");
    }
    Ok(())
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
    Ok(group.store.set_boundary(base)?.map(|(index, _)| index))
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
