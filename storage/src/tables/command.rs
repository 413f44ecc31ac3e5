//! What can be asked of the tables, as it travels in the log.

use serde::{Deserialize, Serialize};

use super::groups::SubscriptionGroupConfig;
use super::leases::LeaseName;
use super::recent_sends::Once;
use super::request_modes::RequestMode;
use super::topics::TopicConfig;
use crate::codec;
use crate::position::{PhysicalOffset, QueueOffset};
use crate::queue_offsets::QueueKey;

/// Where a consumer group is in one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetCommit {
    /// Consumer group.
    pub group: String,
    /// Topic by name.
    pub topic: String,
    /// Queue of the topic.
    pub queue: u16,
    /// Next offset that the group wants to read.
    pub offset: QueueOffset,
}

/// Messages of a queue that a group is to get. Whoever chose them saw the group at `expected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The consumer offset that they were chosen with; `None`: there was none.
    pub expected: Option<QueueOffset>,
    /// Where the group goes on: what lies in between and is not in `offsets` did not match.
    pub next: QueueOffset,
    /// The messages, ascending; may be none.
    pub offsets: Vec<QueueOffset>,
    /// For how long nobody else gets them; milliseconds.
    pub invisible_ms: u64,
    /// Consumed in order, by the attempt of this name; empty for no name.
    pub in_order: Option<String>,
}

/// A lease whose time has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redelivery {
    /// Who had the message.
    pub group: String,
    /// The lease.
    pub name: LeaseName,
    /// The message of the same batch that takes its place, by its number; `None` if there is nothing to
    /// hand out any more.
    pub row: Option<u32>,
}

/// A change of the tables.
///
/// The variants are numbered in the log by their order: append new ones, never reorder, never change the
/// fields of one that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Creates a topic or changes its settings; an existing one keeps its id and its messages.
    /// Result: `TopicId`, or `Refused`.
    PutTopic {
        /// The settings.
        config: TopicConfig,
    },
    /// Forgets a topic, its queues, and all offsets and locks in it. Nothing happens if there is none.
    DeleteTopic {
        /// Topic by name.
        name: String,
    },
    /// Creates a consumer group or changes its settings.
    PutGroup {
        /// The settings.
        config: SubscriptionGroupConfig,
    },
    /// Forgets the settings of a consumer group. Nothing happens if there is none.
    DeleteGroup {
        /// Group by name.
        name: String,
        /// Whether to forget its offsets too.
        clean_offsets: bool,
    },
    /// Stores where groups are. Entries of topics that do not exist are skipped.
    CommitOffsets {
        /// The positions.
        entries: Vec<OffsetCommit>,
        /// Ignore entries that would move a group back.
        advance_only: bool,
    },
    /// Takes or renews the exclusive use of queues. Result: `Locked` with those that the client has now.
    LockQueues {
        /// Consumer group.
        group: String,
        /// Client that wants them.
        client: String,
        /// Topic by name, queue.
        queues: Vec<(String, u16)>,
    },
    /// Gives up queues; those that the client does not own are left alone.
    UnlockQueues {
        /// Consumer group.
        group: String,
        /// Client that has them.
        client: String,
        /// Topic by name, queue.
        queues: Vec<(String, u16)>,
    },
    /// Stores a value.
    PutKv {
        /// Namespace.
        namespace: String,
        /// Key in it.
        key: String,
        /// The value.
        value: String,
    },
    /// Forgets a value. Nothing happens if there is none.
    DeleteKv {
        /// Namespace.
        namespace: String,
        /// Key in it.
        key: String,
    },
    /// First command of a leader: order locks start their lease anew, because their owners could not renew
    /// them while there was no leader.
    TermStart,
    /// Creates a topic unless there is one of that name.
    CreateTopic {
        /// The settings.
        config: TopicConfig,
    },
    /// Creates a consumer group unless there is one of that name.
    CreateGroup {
        /// The settings.
        config: SubscriptionGroupConfig,
    },
    /// Messages that wait in the log wait no more and become nothing: recalled, rolled back, without a topic.
    /// Result: `Resolved`.
    Unpark {
        /// Where they are.
        places: Vec<PhysicalOffset>,
    },
    /// Producers were asked about half messages. Those whose transaction has ended are skipped.
    HalvesChecked {
        /// Where each is, and when its producer is asked again; milliseconds since 1970.
        next: Vec<(PhysicalOffset, u64)>,
    },
    /// Hands messages out. Result: `Popped`, or `Refused` if the group is not where it was seen, the
    /// queue is taken, or too much is not acknowledged.
    Pop {
        /// Consumer group.
        group: String,
        /// The queue.
        key: QueueKey,
        /// The messages.
        grant: Grant,
    },
    /// Messages that were handed out are done with. Result: `Ended`.
    Ack {
        /// Consumer group.
        group: String,
        /// Which.
        leases: Vec<LeaseName>,
    },
    /// The same for messages that are consumed in order. Result: `Ended`.
    AckInOrder {
        /// Consumer group.
        group: String,
        /// Which.
        leases: Vec<LeaseName>,
    },
    /// A message is handed out again so much later than now. Result: `Popped` with the new name of the
    /// lease, or
    /// `Ended` with `false`.
    ChangeInvisible {
        /// Consumer group.
        group: String,
        /// Which.
        lease: LeaseName,
        /// Milliseconds from now.
        invisible_ms: u64,
        /// Whether it is consumed in order; its lease keeps its name then.
        in_order: bool,
    },
    /// Ends leases whose time has passed; messages of the same batch take their place. Result:
    /// `Redelivered`.
    Redeliver {
        /// Which.
        leases: Vec<Redelivery>,
    },
    /// Decides how a group asks for the messages of a topic.
    SetRequestMode {
        /// Topic by name.
        topic: String,
        /// Consumer group.
        group: String,
        /// How.
        mode: RequestMode,
    },
    /// Moves groups to other positions. Until [`Command::ConfirmReset`] what their members commit in these
    /// queues is ignored. Entries of topics that do not exist are skipped.
    ResetOffsets {
        /// The new positions.
        entries: Vec<OffsetCommit>,
    },
    /// A group reads from where it was moved to: what its members commit counts again. Nothing happens if
    /// it was moved elsewhere since.
    ConfirmReset {
        /// The position that it was moved to.
        entry: OffsetCommit,
    },
    /// A message of the same batch is stored only if no copy of it was within its window. These are in the
    /// order of the messages.
    StoreOnce {
        /// Which, and what it is known by.
        once: Once,
    },
}

impl Command {
    /// Whether carrying it out a second time, after others were carried out, does no harm: it only adds
    /// what is not there, changes what has a name that never comes again or is where it was seen, or
    /// (offsets) only moves forward.
    pub fn may_repeat(&self) -> bool {
        match self {
            Command::CreateTopic { .. }
            | Command::CreateGroup { .. }
            | Command::CommitOffsets { .. }
            | Command::LockQueues { .. }
            | Command::UnlockQueues { .. }
            | Command::TermStart
            | Command::HalvesChecked { .. }
            | Command::Ack { .. }
            | Command::AckInOrder { .. }
            | Command::Pop { .. }
            | Command::ChangeInvisible { .. }
            | Command::Redeliver { .. }
            | Command::ConfirmReset { .. }
            | Command::StoreOnce { .. } => true,
            Command::PutTopic { .. }
            | Command::DeleteTopic { .. }
            | Command::PutGroup { .. }
            | Command::DeleteGroup { .. }
            | Command::PutKv { .. }
            | Command::DeleteKv { .. }
            | Command::ResetOffsets { .. }
            | Command::SetRequestMode { .. } => false,
            // The second time says that nothing waited, and whoever recalls is told that it was too late.
            Command::Unpark { .. } => false,
        }
    }

    /// Queues that somebody who waits may find messages in after this, although none came.
    pub(crate) fn frees(&self) -> Vec<QueueKey> {
        match self {
            Command::AckInOrder { leases, .. } => leases.iter().map(|name| name.key).collect(),
            Command::ChangeInvisible {
                lease,
                in_order: true,
                ..
            } => vec![lease.key],
            Command::Redeliver { leases } => leases.iter().map(|lease| lease.name.key).collect(),
            _ => Vec::new(),
        }
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandResult {
    /// It was done.
    Done,
    /// The topic has this id.
    TopicId(u32),
    /// The client owns these queues now.
    Locked(Vec<(String, u16)>),
    /// It was not done, for this reason.
    Refused(String),
    /// So many messages waited until now.
    Resolved(u64),
    /// Messages were handed out, or are handed out for another time.
    Popped {
        /// When, by the log's clock: with it, leases have their names.
        pop_ms: u64,
        /// How often each was handed out before; only if they are consumed in order.
        times: Vec<u32>,
    },
    /// For each lease, whether there was one of this name. It has ended.
    Ended(Vec<bool>),
    /// Leases have ended.
    Redelivered {
        /// Messages of the same batch, by their numbers, that are not stored: the leases that they were
        /// for had ended before.
        unwanted: Vec<u32>,
    },
}

/// Commands as bytes, for the way to the leader.
pub fn encode_commands(commands: &[Command]) -> Vec<u8> {
    codec::encode(&commands)
}

/// Reads what [`encode_commands`] wrote.
///
/// # Errors
/// The bytes are something else.
pub fn decode_commands(bytes: &[u8]) -> Result<Vec<Command>, bincode::Error> {
    codec::decode(bytes)
}
