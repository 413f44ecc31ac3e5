//! Taking messages for a consumer group: chosen from what this node has applied, granted by a command.
//!
//! A command says where its chooser saw the group; if it was elsewhere when the command was applied, nothing
//! happens and the chooser looks again. So any node may take, and the order of the log decides. On one node,
//! takers of the same queue take turns, so that they do not refuse each other.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use bytes::Bytes;
use gantry_storage::message::MessageView;
use gantry_storage::tables::{Command, CommandResult, Grant};
use gantry_storage::{QueueKey, QueueOffset, QueueRead, ReadStatus};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout_at};

use super::source::Source;
use super::waiters::Waiters;
use crate::catalog;
use crate::error::Failure;
use crate::filters::Filter;
use crate::group::{Group, HOLD};
use crate::reading::Reading;

/// Bytes of one answer.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often a taker looks again when others were quicker.
const ATTEMPTS: usize = 8;

/// Locks that are kept although nobody has them.
const IDLE_LOCKS_MAX: usize = 4096;

type Lock = Arc<Mutex<()>>;

/// What popping needs of one group on this node.
pub struct Pops {
    /// Pops that wait.
    pub waiters: Waiters,
    /// When the next lease ends, as of the last applied record; milliseconds of the log's clock.
    pub next_lease_ms: watch::Sender<Option<u64>>,
    turns: AtomicU32,
    locks: StdMutex<HashMap<(String, QueueKey), Lock>>,
}

impl Default for Pops {
    fn default() -> Self {
        Pops {
            waiters: Waiters::default(),
            next_lease_ms: watch::Sender::new(None),
            turns: AtomicU32::new(0),
            locks: StdMutex::default(),
        }
    }
}

impl Pops {
    /// A number that is another one at every call.
    pub fn turn(&self) -> u32 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// Whose turn it is to take from a queue.
    fn lock_of(&self, group: &str, key: QueueKey) -> Lock {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if locks.len() >= IDLE_LOCKS_MAX {
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        locks.entry((group.to_owned(), key)).or_default().clone()
    }
}

/// Where a group begins in a queue that it has no offset in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first message.
    Min,
    /// At the last message, or at the first while the queue is young.
    Max,
}

/// What somebody wants to take.
pub struct Taking<'a> {
    /// From which group of brokers.
    pub group: &'a Arc<Group>,
    /// For which consumer group.
    pub consumer: &'a str,
    /// Which messages; those that come again are not looked at twice.
    pub filter: Filter,
    /// At most so many.
    pub max_messages: usize,
    /// For how long nobody else gets them; milliseconds.
    pub invisible_ms: u64,
    /// In order, and by which attempt; empty for no name.
    pub in_order: Option<String>,
    /// Where the group begins.
    pub start: Start,
    /// Address that the messages name as the one to ask for them.
    pub store_host: SocketAddrV4,
    /// What time it is; milliseconds since 1970.
    pub now_ms: u64,
}

/// Messages of one queue that were taken.
#[derive(Debug)]
pub struct TakenQueue {
    /// The queue.
    pub source: Source,
    /// Messages one after the other.
    pub body: Bytes,
    /// Their offsets; at least one.
    pub offsets: Vec<QueueOffset>,
    /// How often each was handed out before, if they are consumed in order.
    pub times: Vec<u32>,
    /// When they were taken.
    pub pop_ms: u64,
}

/// What was taken.
#[derive(Debug, Default)]
pub struct Taken {
    /// By queue; may be none.
    pub queues: Vec<TakenQueue>,
    /// Messages that are left in the queues that were looked at.
    pub rest: u64,
    /// Somebody else has the queue until then; milliseconds.
    pub blocked_until_ms: Option<u64>,
    /// Too much is not acknowledged: nothing more comes until some is.
    pub is_full: bool,
}

/// Messages of one queue that are to be granted.
struct Chosen {
    source: Source,
    grant: Grant,
    body: Bytes,
    /// Messages behind them.
    rest: u64,
    _turn: OwnedMutexGuard<()>,
}

impl Taking<'_> {
    /// Takes what there is in `sources`, which are looked at in their order.
    ///
    /// # Errors
    /// The group has no leader, or the disk refuses. Messages may have been taken then; they come again.
    pub async fn take(&self, sources: &[Source]) -> Result<Taken, Failure> {
        let deadline = Instant::now() + HOLD;
        for _ in 0..ATTEMPTS {
            let mut taken = Taken::default();
            let (chosen, busy) = self.choose(sources, &mut taken).await?;
            if chosen.is_empty() {
                let Some(busy) = busy else { return Ok(taken) };
                // Somebody else is taking; what is left is there when he is done.
                if timeout_at(deadline, busy.lock()).await.is_err() {
                    return Ok(taken);
                }
                continue;
            }
            self.grant(chosen, &mut taken, deadline).await?;
            if !taken.queues.is_empty() {
                return Ok(taken);
            }
        }
        Ok(Taken::default())
    }

    async fn choose(
        &self,
        sources: &[Source],
        taken: &mut Taken,
    ) -> Result<(Vec<Chosen>, Option<Lock>), Failure> {
        let (mut chosen, mut busy) = (Vec::new(), None);
        let mut room = (self.max_messages, BYTES_MAX);
        for source in sources {
            if room.0 == 0 || room.1 == 0 {
                taken.rest += source.waiting(self.group, self.consumer);
                continue;
            }
            let lock = self.group.pops.lock_of(self.consumer, source.key);
            let Ok(turn) = lock.clone().try_lock_owned() else {
                busy.get_or_insert(lock);
                continue;
            };
            let Some((grant, read)) = self.look(source, room, taken).await? else {
                continue;
            };
            room.0 -= grant.offsets.len();
            room.1 = room.1.saturating_sub(read.body.len());
            chosen.push(Chosen {
                source: source.clone(),
                rest: read.bounds.next.get().saturating_sub(grant.next.get()),
                grant,
                body: read.body,
                _turn: turn,
            });
        }
        Ok((chosen, busy))
    }

    /// What the group would get from a queue; `None` if it would not even move.
    async fn look(
        &self,
        source: &Source,
        (messages, bytes): (usize, usize),
        taken: &mut Taken,
    ) -> Result<Option<(Grant, QueueRead)>, Failure> {
        let expected = source.position(self.group, self.consumer);
        let Some(room) = self.room(source, expected, taken) else {
            return Ok(None);
        };
        let begin = match expected {
            Some(expected) => expected,
            None => self.start_of(source).await?,
        };
        let Some(read) = self
            .read(source, begin, (messages.min(room), bytes))
            .await?
        else {
            return Ok(None);
        };
        let offsets = offsets_in(&read.body);
        let moves = read.next_offset != begin;
        if offsets.is_empty() && !moves {
            return Ok(None);
        }
        let grant = Grant {
            expected,
            next: read.next_offset,
            offsets,
            invisible_ms: self.invisible_ms,
            in_order: self.in_order.clone(),
        };
        Ok(Some((grant, read)))
    }

    /// Reads; again after this node has caught up if that would send the group elsewhere.
    async fn read(
        &self,
        source: &Source,
        begin: QueueOffset,
        (max_messages, max_bytes): (usize, usize),
    ) -> Result<Option<QueueRead>, Failure> {
        let mut offset = begin;
        let mut is_current = false;
        loop {
            let reading = Reading {
                key: source.key,
                offset,
                max_messages,
                max_bytes,
                filter: if source.is_retry {
                    Filter::All
                } else {
                    self.filter.clone()
                },
                // A batch in order comes again as it was, with what is acknowledged behind the first.
                whole: self.in_order.is_some(),
                store_host: self.store_host,
            };
            let deadline = Instant::now() + HOLD;
            let Some(read) = reading.read(self.group, deadline).await? else {
                return Ok(None);
            };
            match read.status {
                ReadStatus::Found
                | ReadStatus::NoMatched
                | ReadStatus::Removed
                | ReadStatus::OffsetOverflowOne => return Ok(Some(read)),
                ReadStatus::NoMessageInQueue if begin == QueueOffset::ZERO => return Ok(None),
                _ if is_current => offset = read.next_offset,
                _ => {
                    self.group.catch_up(deadline).await?;
                    is_current = true;
                }
            }
            if is_current && read.status == ReadStatus::NoMessageInQueue {
                return Ok(Some(read));
            }
        }
    }

    /// How many messages of a queue the group may get; `None` for none.
    fn room(
        &self,
        source: &Source,
        expected: Option<QueueOffset>,
        taken: &mut Taken,
    ) -> Option<usize> {
        let tables = self.group.store.tables();
        let leases = tables.leases();
        let Some(attempt_id) = &self.in_order else {
            let room = leases.room(self.consumer, source.key);
            taken.is_full |= room == 0;
            return (room > 0).then_some(room);
        };
        let now_ms = self.now_ms.max(tables.clock_ms());
        let batch = leases.order(self.consumer, source.key);
        let batch = batch.filter(|batch| Some(batch.position()) == expected);
        let batch = batch.filter(|batch| !batch.is_attempt(attempt_id));
        let Some(until_ms) = batch.and_then(|batch| batch.blocked_until(now_ms)) else {
            return Some(usize::MAX);
        };
        let earliest = taken
            .blocked_until_ms
            .map_or(until_ms, |ms| ms.min(until_ms));
        taken.blocked_until_ms = Some(earliest);
        None
    }

    async fn start_of(&self, source: &Source) -> Result<QueueOffset, Failure> {
        let bounds = source.bounds(self.group);
        if self.start == Start::Min || source.is_retry {
            return Ok(bounds.min);
        }
        if catalog::is_young(self.group, (source.topic.id, source.key.queue)).await? {
            return Ok(QueueOffset::ZERO);
        }
        Ok(QueueOffset::new(bounds.next.get().saturating_sub(1)))
    }

    async fn grant(
        &self,
        chosen: Vec<Chosen>,
        taken: &mut Taken,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let commands = chosen.iter().map(|chosen| Command::Pop {
            group: self.consumer.to_owned(),
            key: chosen.source.key,
            grant: chosen.grant.clone(),
        });
        let results = self.group.execute(commands.collect(), deadline).await?;
        let mut is_behind = false;
        for (chosen, result) in chosen.into_iter().zip(results) {
            let CommandResult::Popped { pop_ms, times } = result else {
                is_behind = true;
                continue;
            };
            taken.rest += chosen.rest;
            if chosen.grant.offsets.is_empty() {
                continue;
            }
            taken.queues.push(TakenQueue {
                source: chosen.source,
                body: chosen.body,
                offsets: chosen.grant.offsets,
                times,
                pop_ms,
            });
        }
        if taken.queues.is_empty() || is_behind {
            // Another node was quicker, or this one has not seen yet what it did itself.
            self.group.catch_up(deadline).await?;
        }
        Ok(())
    }
}

/// Offsets of messages that lie one after the other.
fn offsets_in(body: &Bytes) -> Vec<QueueOffset> {
    messages_in(body)
        .map(|message| message.queue_offset())
        .collect()
}

/// The messages of a body, as the store gave it.
pub(super) fn messages_in(body: &Bytes) -> impl Iterator<Item = MessageView<'_>> {
    let mut rest: &[u8] = body;
    std::iter::from_fn(move || {
        let size = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let (message, behind) = rest.split_at(size);
        rest = behind;
        Some(MessageView::parse(message).expect("the store gives whole messages"))
    })
}

impl TakenQueue {
    /// The messages.
    pub fn messages(&self) -> impl Iterator<Item = MessageView<'_>> {
        messages_in(&self.body)
    }
}
