//! What can be asked of the tables, as it travels in the log.

use serde::{Deserialize, Serialize};

use super::groups::SubscriptionGroupConfig;
use super::topics::TopicConfig;
use crate::codec;
use crate::position::QueueOffset;

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
