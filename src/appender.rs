//! Admits what is to be written to a group's log, forms batches, proposes them, and releases the
//! replies in log order.
//!
//! Whatever arrives while a batch is under way is gathered into the open batch, and goes when that one is
//! back or when the open batch is full; there is no timer. A message is encoded into the open batch by the
//! task that read it from its socket, which is the only copy of its body.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_protocol::ResponseCode;
use gantry_raft::{Outcome, Proposal, Replica};
use gantry_storage::batch::BatchBuilder;
use gantry_storage::commitlog::CommitLog;
use gantry_storage::tables::{Command, CommandResult, FirstSend};
use gantry_storage::{Applied, AppliedRow, PhysicalOffset, RowResult};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::backlog::Backlog;
use crate::clock::WallClock;
use crate::error::Failure;
use crate::metrics::GroupMetrics;

/// Rows, hashes and heads that a message costs in the log beside its parts, about; bytes.
pub const OVERHEAD_BYTES: usize = 200;

/// A batch is closed at this size even if it could wait for more.
const BATCH_BYTES: usize = 256 * 1024;

/// Full batches under way at the same time. One that is not full waits until none is: each costs the
/// processors of three nodes some 200 us, whatever is in it, and meanwhile it fills (docs/performance.md).
const BATCHES_IN_FLIGHT: usize = 4;

/// The outcome of one appended message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is on the disks of a majority and applied here.
    At {
        /// Its offset in its queue.
        queue_offset: u64,
        /// Its place in the log.
        physical_offset: PhysicalOffset,
    },
    /// The topic or the queue was deleted before the message was applied.
    NoSuchQueue,
    /// It was to take the place of another one, for which that was done before.
    AlreadyResolved,
    /// It is a copy of one that is there, and was not stored.
    SentBefore(FirstSend),
}

impl Appended {
    /// Where the first copy is, of a message that was sent before.
    pub fn first_copy(&self) -> Option<FirstSend> {
        match self {
            Appended::SentBefore(first) => Some(*first),
            _ => None,
        }
    }
}

/// Takes the results of the messages that were submitted together, in their order.
pub type Done = Box<dyn FnOnce(Result<Vec<Appended>, Failure>) + Send>;

/// Why something was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// This replica does not lead.
    NotLeader,
    /// The byte budget of writes under way is used up; wait with [`Appender::room`].
    Full,
    /// What is under way takes this long, and clients do not wait that long.
    TooLate(Duration),
}

/// The writer of one group on this node. Clones write to the same batches.
#[derive(Clone)]
pub struct Appender {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
    room: Notify,
    /// Bytes admitted and not yet answered.
    bytes: AtomicUsize,
    bytes_max: usize,
    backlog: Backlog,
    in_flight: AtomicUsize,
    /// The latest store time that a batch was given.
    stamped_ms: AtomicU64,
    /// This replica leads and is ready.
    leads: AtomicBool,
    metrics: Arc<GroupMetrics>,
}

/// A batch and those who wait for it.
#[derive(Default)]
struct Open {
    batch: BatchBuilder,
    waiting: Vec<Waiting>,
    /// Bytes that count against the budget.
    bytes: usize,
    /// When its first messages were admitted, and the bytes that were under way then, these included.
    began: Option<(Instant, usize)>,
}

/// What waits to be proposed: batches that are full, oldest first, and the one being gathered.
#[derive(Default)]
struct Queue {
    full: VecDeque<Open>,
    open: Open,
}

impl Queue {
    /// Closes the gathered batch when it is large enough; whether it was.
    fn close_if_full(&mut self) -> bool {
        let is_full = self.open.batch.len_bytes() >= BATCH_BYTES;
        if is_full {
            self.full.push_back(std::mem::take(&mut self.open));
        }
        is_full
    }

    /// The oldest full batch, or what was gathered if nothing is under way.
    fn take(&mut self, under_way: usize) -> Option<Open> {
        let oldest = self.full.pop_front();
        let gathered = under_way == 0 && !self.open.waiting.is_empty();
        oldest.or_else(|| gathered.then(|| std::mem::take(&mut self.open)))
    }
}

/// Who waits for a part of a batch.
enum Waiting {
    /// For `count` messages, with commands that came with them.
    Messages {
        count: usize,
        commands: usize,
        done: Done,
    },
    /// For `count` commands.
    Commands {
        count: usize,
        done: oneshot::Sender<Result<Vec<CommandResult>, Failure>>,
    },
}

impl Appender {
    /// An appender that admits at most `bytes_max` bytes at a time; [`Appender::run`] must run for it.
    pub fn new(bytes_max: usize, metrics: Arc<GroupMetrics>) -> Self {
        let shared = Shared {
            queue: Mutex::default(),
            filled: Notify::new(),
            room: Notify::new(),
            bytes: AtomicUsize::new(0),
            bytes_max,
            backlog: Backlog::default(),
            in_flight: AtomicUsize::new(0),
            stamped_ms: AtomicU64::new(0),
            leads: AtomicBool::new(false),
            metrics,
        };
        Appender {
            shared: Arc::new(shared),
        }
    }

    /// Whether writes are admitted: this replica leads and is ready.
    pub fn is_leading(&self) -> bool {
        self.shared.leads.load(Ordering::Acquire)
    }

    /// Adds messages of about `bytes` bytes to the open batch: `encode` pushes `count` of them, and may push
    /// commands whose results nobody asks for. They become durable together or not at all. `done` is
    /// called once, from the group's apply task, when the outcome is known; not if this returns an error.
    pub fn submit(
        &self,
        (count, bytes): (usize, usize),
        encode: impl FnOnce(&mut BatchBuilder),
        done: Done,
    ) -> Result<(), (NotAdmitted, Done)> {
        let mut queue = self.shared.lock();
        // Under the lock: what is queued after the end of a reign would wait for the next one.
        if !self.is_leading() {
            return Err((NotAdmitted::NotLeader, done));
        }
        let under_way = self.shared.bytes.load(Ordering::Relaxed);
        if let Some(wait) = self.shared.backlog.too_long(under_way) {
            return Err((NotAdmitted::TooLate(wait), done));
        }
        if under_way + bytes > self.shared.bytes_max {
            return Err((NotAdmitted::Full, done));
        }
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        let open = &mut queue.open;
        open.began
            .get_or_insert_with(|| (Instant::now(), under_way + bytes));
        let (messages, commands) = (open.batch.message_count(), open.batch.command_count());
        encode(&mut open.batch);
        assert_eq!(
            open.batch.message_count() - messages,
            count,
            "messages pushed"
        );
        let commands = open.batch.command_count() - commands;
        open.bytes += bytes;
        open.waiting.push(Waiting::Messages {
            count,
            commands,
            done,
        });
        let first = open.waiting.len() == 1;
        let full = queue.close_if_full();
        drop(queue);
        if first || full {
            self.shared.filled.notify_one();
        }
        Ok(())
    }

    /// Writes messages as [`submit`](Self::submit) does and waits until they are applied here; waits for
    /// room until `until`. Fails with [`Failure::NotLeader`] without having written anything if this replica
    /// does not lead.
    pub async fn append(
        &self,
        size: (usize, usize),
        encode: impl Fn(&mut BatchBuilder),
        until: Instant,
    ) -> Result<Vec<Appended>, Failure> {
        loop {
            let (tell, outcome) = oneshot::channel();
            let done: Done = Box::new(move |result| drop(tell.send(result)));
            match self.submit(size, &encode, done) {
                Ok(()) => return outcome.await.unwrap_or(Err(Failure::Stopped)),
                Err((NotAdmitted::NotLeader, _)) => return Err(Failure::NotLeader),
                Err((NotAdmitted::TooLate(wait), _)) => return Err(too_late(wait)),
                Err((NotAdmitted::Full, _)) => {}
            }
            if timeout_at(until, self.room()).await.is_err() {
                let reason = "broker busy: too many bytes of sends are under way";
                return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
            }
        }
    }

    /// Writes commands and waits until they are applied here. Fails with [`Failure::NotLeader`]
    /// without having written anything if this replica does not lead.
    pub async fn execute(&self, commands: Vec<Command>) -> Result<Vec<CommandResult>, Failure> {
        let (done, outcome) = oneshot::channel();
        if !self.add_commands(&commands, done) {
            return Err(Failure::NotLeader);
        }
        outcome.await.unwrap_or(Err(Failure::Stopped))
    }

    /// Adds commands to the open batch; false if this replica does not lead.
    fn add_commands(
        &self,
        commands: &[Command],
        done: oneshot::Sender<Result<Vec<CommandResult>, Failure>>,
    ) -> bool {
        let mut queue = self.shared.lock();
        if !self.is_leading() {
            return false;
        }
        for command in commands {
            queue.open.batch.push_command(command);
        }
        let count = commands.len();
        queue.open.waiting.push(Waiting::Commands { count, done });
        queue.close_if_full();
        drop(queue);
        self.shared.filled.notify_one();
        true
    }

    /// Waits until some of the byte budget is free again.
    pub async fn room(&self) {
        let mut notified = std::pin::pin!(self.shared.room.notified());
        // Registered before the look: a wake-up in between must count.
        notified.as_mut().enable();
        if self.shared.bytes.load(Ordering::Relaxed) < self.shared.bytes_max / 2 {
            return;
        }
        notified.await;
    }

    /// Forms and proposes batches until the replica stops. Store times are the clock's, but never
    /// earlier than what the log already holds.
    pub async fn run(self, replica: Replica, log: CommitLog, clock: WallClock) {
        let mut leadership = replica.leadership();
        'reigns: loop {
            let now = *leadership.borrow_and_update();
            self.shared.leads.store(now.ready, Ordering::Release);
            if !now.ready {
                self.fail_open(|| Failure::NotLeader);
                if leadership.changed().await.is_err() {
                    break;
                }
                continue;
            }
            self.begin_term();
            while leadership.borrow().ready && leadership.borrow().term == now.term {
                tokio::select! {
                    changed = leadership.changed() => if changed.is_err() { break },
                    () = self.shared.filled.notified() => {}
                }
                if !self.propose_open(&replica, now.term, &log, &clock).await {
                    break 'reigns;
                }
            }
        }
        self.shared.leads.store(false, Ordering::Release);
        self.fail_open(|| Failure::Stopped);
    }

    /// The first batch of a term renews what the log's clock would let expire.
    fn begin_term(&self) {
        self.add_commands(&[Command::TermStart], oneshot::channel().0);
    }

    /// Proposes what has gathered, as far as may be under way; false when the group has stopped.
    async fn propose_open(
        &self,
        replica: &Replica,
        term: u64,
        log: &CommitLog,
        clock: &WallClock,
    ) -> bool {
        loop {
            let under_way = self.shared.in_flight.load(Ordering::Acquire);
            if under_way >= BATCHES_IN_FLIGHT {
                return true;
            }
            let Some(next) = self.shared.lock().take(under_way) else {
                return true;
            };
            let Open {
                batch,
                waiting,
                bytes,
                began,
            } = next;
            // Batches under way are not in the log yet; their times must not be undercut either.
            let in_log = log.bounds().last_store_time_ms;
            let now_ms = clock.now_ms().max(in_log);
            let store_time_ms = self
                .shared
                .stamped_ms
                .fetch_max(now_ms, Ordering::Relaxed)
                .max(now_ms);
            self.shared
                .metrics
                .batch(batch.message_count(), batch.len_bytes());
            let (payload, payload_crc) = batch.seal(store_time_ms);
            self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
            let proposal = Proposal {
                payload,
                payload_crc,
                store_time_ms,
            };
            let shared = self.shared.clone();
            let started = Instant::now();
            let done = move |outcome: Outcome| {
                shared.in_flight.fetch_sub(1, Ordering::AcqRel);
                shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
                if let (Some((at, before)), Ok(_)) = (began, &outcome) {
                    shared.backlog.gone(before, at.elapsed());
                }
                shared.filled.notify_one();
                shared.room.notify_waiters();
                shared
                    .metrics
                    .commit_seconds
                    .observe(started.elapsed().as_secs_f64());
                release(waiting, outcome);
            };
            if replica.propose(term, proposal, done).await.is_err() {
                // The group has stopped; everyone in the batch has heard that its outcome is unknown.
                return false;
            }
        }
    }

    fn fail_open(&self, failure: impl Fn() -> Failure) {
        let Queue { full, open } = std::mem::take(&mut *self.shared.lock());
        for Open { waiting, bytes, .. } in full.into_iter().chain([open]) {
            self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            for waiting in waiting {
                waiting.fail(failure());
            }
        }
        self.shared.room.notify_waiters();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn fail(self, failure: Failure) {
        match self {
            Waiting::Messages { done, .. } => done(Err(failure)),
            // Who asked may have gone away.
            Waiting::Commands { done, .. } => drop(done.send(Err(failure))),
        }
    }
}

/// The refusal of a write that would come too late. Stock clients try another group when they hear this code.
pub fn too_late(wait: Duration) -> Failure {
    let ms = wait.as_millis();
    let reason = format!(
        "broker busy: what this group is writing takes {ms} ms more, and clients do not wait that long; \
         send more slowly"
    );
    Failure::code(ResponseCode::SERVICE_NOT_AVAILABLE, reason)
}

/// Hands everyone who waits for a batch his part of the outcome.
fn release(waiting: Vec<Waiting>, outcome: Outcome) {
    let reply = match outcome {
        Ok(reply) => reply,
        Err(error) => {
            for waiting in waiting {
                waiting.fail(Failure::from_propose(&error));
            }
            return;
        }
    };
    let Applied { rows, commands, .. } = reply.applied;
    let mut rows = rows.into_iter();
    let mut commands = commands.into_iter();
    for waiting in waiting {
        match waiting {
            Waiting::Messages {
                count,
                commands: own,
                done,
            } => {
                for _ in 0..own {
                    assert!(commands.next().is_some(), "a result for each command");
                }
                let part: Vec<Appended> = rows.by_ref().take(count).map(appended).collect();
                assert_eq!(part.len(), count, "a result for each message");
                done(Ok(part));
            }
            Waiting::Commands { count, done } => {
                let part: Vec<CommandResult> = commands.by_ref().take(count).collect();
                assert_eq!(part.len(), count, "a result for each command");
                drop(done.send(Ok(part)));
            }
        }
    }
}

fn appended(row: AppliedRow) -> Appended {
    match row.result {
        RowResult::Stored(offset) => Appended::At {
            queue_offset: offset.get(),
            physical_offset: row.offset,
        },
        RowResult::TopicGone | RowResult::QueueGone => Appended::NoSuchQueue,
        RowResult::AlreadyResolved => Appended::AlreadyResolved,
        RowResult::SentBefore(first) => Appended::SentBefore(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    const MIB: usize = 1 << 20;

    /// An appender that leads, and whose batches nobody takes.
    fn stalled(bytes_max: usize) -> Appender {
        let appender = Appender::new(bytes_max, Metrics::new("cluster", 1).group("group"));
        appender.shared.leads.store(true, Ordering::Release);
        appender
    }

    fn submit(appender: &Appender, bytes: usize) -> Result<(), NotAdmitted> {
        let submitted = appender.submit((0, bytes), |_| {}, Box::new(|_| {}));
        submitted.map_err(|(reason, _)| reason)
    }

    #[test]
    fn a_stalled_group_takes_what_it_would_do_in_the_time_that_clients_wait() {
        let appender = stalled(64 * MIB);
        // 10 MiB a second, until now.
        let second = Duration::from_secs(1);
        appender.shared.backlog.gone(10 * MIB, second);
        let mut admitted = 0;
        let refused = loop {
            match submit(&appender, MIB) {
                Ok(()) => admitted += 1,
                Err(reason) => break reason,
            }
        };
        assert!((15..=17).contains(&admitted), "{admitted} MiB admitted");
        assert!(
            matches!(refused, NotAdmitted::TooLate(wait) if wait > second),
            "{refused:?}"
        );
    }

    #[test]
    fn the_byte_budget_holds_whatever_the_pace_is() {
        let appender = stalled(16 * MIB);
        let moment = Duration::from_millis(1);
        appender.shared.backlog.gone(10 * MIB, moment);
        assert_eq!(submit(&appender, 16 * MIB), Ok(()));
        assert_eq!(submit(&appender, 1), Err(NotAdmitted::Full));
    }
}
