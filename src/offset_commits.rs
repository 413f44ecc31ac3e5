//! Consumer offsets on their way into the log: what clients report is gathered for a moment and
//! written as one entry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_storage::QueueOffset;
use gantry_storage::planted::{Bug, planted};
use gantry_storage::tables::{Command, OffsetCommit};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::error::Failure;
use crate::group::Group;

/// How long offsets are gathered.
const GATHER: Duration = Duration::from_millis(200);

/// Offsets gathered before they are written at once.
const GATHERED_MAX: usize = 10_000;

/// How long one attempt to write goes on; what could not be written is tried again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Group, topic, queue.
type Key = (String, String, u16);

/// The offsets of one group of brokers that this node was told of.
#[derive(Clone, Default)]
pub struct OffsetCommits {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    gathered: Mutex<Gathered>,
    hurry: Notify,
    written: watch::Sender<u64>,
}

/// Invariant: generation `n` is written once `written` is at least `n`.
#[derive(Default)]
struct Gathered {
    offsets: HashMap<Key, QueueOffset>,
    generation: u64,
}

impl OffsetCommits {
    /// Notes an offset; it is written soon. Later ones of the same queue replace it.
    pub fn note(&self, group: &str, topic: &str, queue: u16, offset: QueueOffset) {
        let mut gathered = self.lock();
        let key = (group.to_string(), topic.to_string(), queue);
        if !planted(Bug::FirstOffsetWins) || !gathered.offsets.contains_key(&key) {
            gathered.offsets.insert(key, offset);
        }
        if gathered.offsets.len() >= GATHERED_MAX {
            self.shared.hurry.notify_one();
        }
    }

    /// Returns when everything noted before is in the log, or fails at the deadline.
    pub async fn flush(&self, deadline: Instant) -> Result<(), Failure> {
        let wanted = {
            let gathered = self.lock();
            // What is being written now belongs to the generation before this one.
            gathered.generation + u64::from(!gathered.offsets.is_empty())
        };
        let mut written = self.shared.written.subscribe();
        if *written.borrow() >= wanted || planted(Bug::OffsetsAckedEarly) {
            return Ok(());
        }
        self.shared.hurry.notify_one();
        match tokio::time::timeout_at(deadline, written.wait_for(|at| *at >= wanted)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Failure::Stopped),
            Err(_) => Err(Failure::NoLeader),
        }
    }

    /// Writes what is noted until the task is ended.
    pub async fn run(self, group: Arc<Group>) {
        loop {
            tokio::select! {
                () = self.shared.hurry.notified() => {}
                () = tokio::time::sleep(GATHER) => {}
            }
            let (offsets, generation) = {
                let mut gathered = self.lock();
                if gathered.offsets.is_empty() {
                    continue;
                }
                gathered.generation += 1;
                (std::mem::take(&mut gathered.offsets), gathered.generation)
            };
            write(&group, offsets).await;
            self.shared.written.send_replace(generation);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.shared
            .gathered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes until it has succeeded: an offset that a client reported is not dropped.
async fn write(group: &Group, offsets: HashMap<Key, QueueOffset>) {
    let mut entries: Vec<OffsetCommit> = offsets
        .into_iter()
        .map(|((group, topic, queue), offset)| OffsetCommit {
            group,
            topic,
            queue,
            offset,
        })
        .collect();
    entries.sort_by(|a, b| (&a.group, &a.topic, a.queue).cmp(&(&b.group, &b.topic, b.queue)));
    let mut advance_only = false;
    loop {
        let command = Command::CommitOffsets {
            entries: entries.clone(),
            advance_only,
        };
        match group
            .execute(vec![command], Instant::now() + WRITE_TIMEOUT)
            .await
        {
            Ok(_) => return,
            Err(Failure::Stopped) => return,
            Err(error) => {
                tracing::warn!(group = group.name, %error, "consumer offsets wait to be written");
                advance_only = !planted(Bug::OffsetsOutOfOrder);
            }
        }
    }
}
