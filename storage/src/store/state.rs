//! What applying the log changes, in memory.

use std::borrow::Cow;

use bytes::Bytes;

use crate::batch::{BatchView, KeyHashes, Row, RowKind};
use crate::checkpoint::{Checkpoint, Image};
use crate::commitlog::{LeaderTag, Located, RecordKind, segment_base};
use crate::consume_queue::{Tails, Unit};
use crate::key_index::{KeyEntry, PendingKeys};
use crate::planted::{Bug, planted};
use crate::position::{LogIndex, PhysicalOffset, QueueOffset};
use crate::queue_offsets::{QueueKey, QueueOffsets};
use crate::tables::{Command, CommandResult, FirstSend, GIVEN_UP_MS, Once, Tables};

/// The last members that were applied: where in the log, and the opaque bytes.
pub type AppliedMembership = (LogIndex, LeaderTag, Bytes);

/// What became of one message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowResult {
    /// It is in its queue, at this offset.
    Stored(QueueOffset),
    /// Its topic was deleted before the batch was applied. It is in no queue.
    TopicGone,
    /// Its topic has fewer queues by now. It is in no queue.
    QueueGone,
    /// It was to take the place of another one, for which that was done before. It is in no queue.
    AlreadyResolved,
    /// It is a copy of one that was sent lately, which is there, and is in no queue itself.
    SentBefore(FirstSend),
}

/// One message of an applied batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedRow {
    /// What it was to take the place of, 0 for nothing: the row's origin.
    pub origin: u64,
    /// First byte of the message in the log; what clients know as its id.
    pub offset: PhysicalOffset,
    /// What became of it.
    pub result: RowResult,
}

/// A queue that has new messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// The queue.
    pub key: QueueKey,
    /// Offset of its next message now.
    pub next: QueueOffset,
}

/// What applying a record did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// One per message, in the order of the batch.
    pub rows: Vec<AppliedRow>,
    /// One per command, in the order of the batch.
    pub commands: Vec<CommandResult>,
    /// Queues that have new messages; each once, ordered.
    pub arrivals: Vec<Arrival>,
    /// The log's clock after the record; milliseconds since 1970, never goes back.
    pub clock_ms: u64,
    /// When the next message that waits is due, after the record; milliseconds since 1970.
    pub next_timer_ms: Option<u64>,
    /// When the producer of a half message is asked next, after the record; milliseconds since 1970.
    pub next_check_ms: Option<u64>,
    /// Queues in which somebody may find messages now although none came.
    pub freed: Vec<QueueKey>,
    /// When the next message that is handed out is due, after the record; milliseconds since 1970.
    pub next_lease_ms: Option<u64>,
    /// Sends that were forgotten before their time was over, because there are too many.
    pub sends_pushed_out: u64,
}

/// Everything behind the store's lock.
///
/// Invariants: the first five fields are the same on all replicas that applied the same record; `tails`
/// and `keys` hold what the files do not.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub applied: Option<(LogIndex, LeaderTag)>,
    pub membership: Option<AppliedMembership>,
    pub next_offset: PhysicalOffset,
    pub tables: Tables,
    pub queues: QueueOffsets,
    pub tails: Tails,
    pub keys: PendingKeys,
    /// Taken at the start of a segment, not on disk yet.
    pub checkpoints: Vec<Checkpoint>,
    /// A topic was deleted and may have files.
    pub topics_deleted: bool,
    /// Changes when offsets vanish or are replaced: a read that began before must look again.
    pub epoch: u64,
}

impl State {
    /// The state that a checkpoint describes. Queues begin and end where they ended then.
    pub(crate) fn from_image(image: Image<'_>) -> Self {
        let mut tables = image.tables.into_owned();
        *tables.parked_mut() = image.parked.into_owned();
        *tables.resets_mut() = image.resets.into_owned();
        *tables.recent_sends_mut() = image.recent_sends.into_owned();
        let leases = image.leases.into_owned();
        let tables = tables.with_pops(leases, image.request_modes.into_owned());
        let membership = image
            .membership
            .map(|(index, tag, bytes)| (index, tag, Bytes::from(bytes)));
        Self {
            applied: image.applied,
            membership,
            next_offset: image.next_offset,
            tables,
            queues: QueueOffsets::starting_at(&image.queues),
            ..Self::default()
        }
    }

    /// All of it that is the same on all replicas.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let membership = self
            .membership
            .as_ref()
            .map(|(index, tag, bytes)| (*index, *tag, bytes.to_vec()));
        Checkpoint::encode(&Image {
            applied: self.applied,
            membership,
            next_offset: self.next_offset,
            tables: Cow::Borrowed(&self.tables),
            queues: match planted(Bug::CheckpointForgetsQueues) {
                true => Vec::new(),
                false => self.queues.next_offsets(),
            },
            parked: Cow::Borrowed(self.tables.parked()),
            leases: Cow::Borrowed(self.tables.leases()),
            request_modes: Cow::Borrowed(self.tables.request_modes()),
            resets: Cow::Borrowed(self.tables.resets()),
            recent_sends: Cow::Borrowed(self.tables.recent_sends()),
        })
    }

    /// Applies one record; see [`Store::apply`](super::Store::apply).
    pub(crate) fn apply(&mut self, located: &Located, segment_bytes: u64) -> Applied {
        let record = &located.record;
        self.check_order(located);
        let segment_base = segment_base(located.offset, segment_bytes);
        if self
            .segment(segment_bytes)
            .is_some_and(|last| last != segment_base)
        {
            self.checkpoints.push(self.checkpoint());
        }
        let position = (located.offset.get() - segment_base.get()) as u32;
        self.keys.enter(segment_base, position);
        self.tables.advance_clock(record.store_time_ms);
        let mut applied = Applied::default();
        match record.kind {
            RecordKind::Blank => {}
            RecordKind::Membership => {
                self.membership = Some((record.index, record.tag, record.payload.clone()));
            }
            RecordKind::Batch => self.apply_batch(located, segment_base, &mut applied),
        }
        self.applied = Some((record.index, record.tag));
        self.next_offset = located.end_offset();
        applied.clock_ms = self.tables.clock_ms();
        let parked = self.tables.parked();
        applied.next_timer_ms = parked.timers().first_ms();
        let next_check_ms = parked.halves().first_ms();
        applied.next_check_ms = next_check_ms.filter(|next_ms| *next_ms < GIVEN_UP_MS);
        applied.next_lease_ms = self.tables.leases().first_due_ms();
        applied
    }

    /// The segment of the last applied record.
    pub(crate) fn segment(&self, segment_bytes: u64) -> Option<PhysicalOffset> {
        self.applied?;
        let last_byte = self.next_offset.get().checked_sub(1)?;
        Some(segment_base(PhysicalOffset::new(last_byte), segment_bytes))
    }

    fn check_order(&self, located: &Located) {
        let index = located.record.index;
        let Some((last, _)) = self.applied else {
            return;
        };
        let follows = index == last.next();
        // Records without messages may be applied alone by conformance tests; a batch never may.
        let harmless = located.record.kind != RecordKind::Batch && index > last;
        assert!(follows || harmless, "record {index} applied after {last}");
        let offset = located.offset;
        assert!(
            !follows || offset >= self.next_offset,
            "record {index} at {offset}, but {last} ended at {}",
            self.next_offset
        );
    }

    fn apply_batch(
        &mut self,
        located: &Located,
        segment_base: PhysicalOffset,
        applied: &mut Applied,
    ) {
        let index = located.record.index;
        // The payload passed its CRC: every replica sees the same bytes, and must stop, not leave them out.
        let batch = BatchView::parse(&located.record.payload)
            .unwrap_or_else(|error| panic!("record {index} cannot be applied: {error}"));
        let commands = batch
            .commands()
            .unwrap_or_else(|error| panic!("record {index} cannot be applied: {error}"));
        let (mut unwanted_rows, mut once) = (Vec::new(), Vec::new());
        for command in commands {
            applied.freed.extend(command.frees());
            if let Command::StoreOnce { once: one } = &command {
                once.push(*one);
            }
            let (result, deleted) = self.tables.apply(command);
            if let CommandResult::Redelivered { unwanted } = &result {
                unwanted_rows.extend_from_slice(unwanted);
            }
            applied.commands.push(result);
            if let Some(topic_id) = deleted {
                self.queues.remove_topic(topic_id);
                self.tails.remove_topic(topic_id);
                self.topics_deleted = true;
                self.epoch += 1;
            }
        }
        let payload_at = located.payload_offset();
        applied.rows.reserve(batch.message_count());
        let mut once = once.into_iter().peekable();
        for (number, (row, key_hashes)) in batch.rows().enumerate() {
            let offset = payload_at.plus(u64::from(row.position));
            let is_unwanted = unwanted_rows.contains(&(number as u32));
            let result = match once.next_if(|once| once.row == number as u32) {
                _ if is_unwanted => RowResult::AlreadyResolved,
                None => self.place(&row, offset, applied),
                Some(once) => self.place_once(&once, &row, offset, applied),
            };
            if let RowResult::Stored(_) = result {
                self.index(key_hashes, segment_base, offset);
            }
            applied.rows.push(AppliedRow {
                origin: row.head.origin,
                offset,
                result,
            });
        }
    }

    /// The same for a message that is stored only if it was not sent before.
    fn place_once(
        &mut self,
        once: &Once,
        row: &Row,
        offset: PhysicalOffset,
        applied: &mut Applied,
    ) -> RowResult {
        let now_ms = self.tables.clock_ms();
        if let Some(first) = self.tables.recent_sends().find(&once.id, now_ms) {
            return RowResult::SentBefore(first);
        }
        let result = self.place(row, offset, applied);
        if let RowResult::Stored(queue_offset) = result {
            let first = FirstSend {
                queue: once.queue,
                queue_offset,
                place: offset,
            };
            let sends = self.tables.recent_sends_mut();
            applied.sends_pushed_out += u64::from(sends.note(once, first, now_ms));
        }
        result
    }

    /// Gives a message its place in its queue and among those that wait, or says why it has none.
    fn place(&mut self, row: &Row, offset: PhysicalOffset, applied: &mut Applied) -> RowResult {
        let origin = PhysicalOffset::new(row.head.origin);
        let replaces = matches!(row.head.kind, RowKind::Resolves | RowKind::Moves);
        if replaces && !self.tables.parked().is_open(origin) {
            return RowResult::AlreadyResolved;
        }
        let key = QueueKey {
            topic_id: row.head.topic_id,
            queue: row.queue,
        };
        let given = match self.tables.queues_of(key.topic_id) {
            None => Err(RowResult::TopicGone),
            // What waits goes on waiting: whoever sent this chooses another queue.
            Some(queues) if row.queue >= queues => return RowResult::QueueGone,
            Some(_) => Ok(self.queues.assign(key)),
        };
        let again_ms = self.tables.clock_ms() + 4_000;
        let parked = self.tables.parked_mut();
        let time_ms = row.tags_code.max(0) as u64;
        match (row.head.kind, given) {
            (RowKind::Ordinary, _) | (RowKind::Timer | RowKind::Half, Err(_)) => {}
            (RowKind::Timer, Ok(_)) => parked.park_timer(offset, time_ms),
            (RowKind::Half, Ok(_)) => parked.park_half(offset, time_ms),
            (RowKind::Moves, Ok(_)) => assert!(parked.move_to(origin, offset, time_ms)),
            (RowKind::Resolves, Ok(_))
                if planted(Bug::TimerTwice) && parked.timers().time_of(origin).is_some() =>
            {
                parked.park_timer(origin, again_ms);
            }
            (RowKind::Resolves, _) | (RowKind::Moves, Err(_)) => assert!(parked.resolve(origin)),
        }
        let given = match given {
            Ok(given) => given,
            Err(gone) => return gone,
        };
        if row.head.kind == RowKind::Moves {
            self.tables.recent_sends_mut().move_to(origin, offset);
        }
        let unit = Unit {
            offset,
            size: row.size,
            tags_code: row.tags_code,
        };
        self.tails.push(key, given, unit);
        let next = given.next();
        note_arrival(&mut applied.arrivals, Arrival { key, next });
        RowResult::Stored(given)
    }

    fn index(
        &mut self,
        key_hashes: KeyHashes<'_>,
        segment_base: PhysicalOffset,
        offset: PhysicalOffset,
    ) {
        let position = (offset.get() - segment_base.get()) as u32;
        for hash in key_hashes {
            self.keys.push(segment_base, KeyEntry { hash, position });
        }
    }
}

/// Keeps the arrivals ordered, with the newest offset of each queue.
fn note_arrival(arrivals: &mut Vec<Arrival>, arrival: Arrival) {
    match arrivals.binary_search_by_key(&arrival.key, |known| known.key) {
        Ok(at) => arrivals[at] = arrival,
        Err(at) => arrivals.insert(at, arrival),
    }
}
