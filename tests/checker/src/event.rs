//! What a line of a history says.

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Nanoseconds of the machine's monotonic clock.
    pub at: u64,
    /// Who saw it: a client, or the harness.
    pub by: String,
    /// What was seen.
    pub what: What,
}

/// The beginning or the end of an operation, or a fact about the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum What {
    /// An operation begins; written before the request leaves.
    Invoke {
        /// Number of the operation, never used twice by the same `by`.
        call: u64,
        /// What is asked.
        request: Request,
    },
    /// It succeeded; written after the answer came.
    Ok {
        /// Number of the operation.
        call: u64,
        /// What was answered.
        answer: Answer,
    },
    /// It certainly had no effect and never will.
    Fail {
        /// Number of the operation.
        call: u64,
        /// The raw response code.
        code: i32,
    },
    /// It may have had its effect, or may still have it: timeout, reset, any code that does not prove the
    /// contrary.
    Info {
        /// Number of the operation.
        call: u64,
        /// The raw response code, if there was a response.
        code: Option<i32>,
    },
    /// Something that is no operation.
    Note(Note),
}

/// A queue of a topic in a broker group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// Name of the broker group.
    pub broker: String,
    /// Name of the topic.
    pub topic: String,
    /// Number of the queue.
    pub queue: u16,
}

impl std::fmt::Display for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.broker, self.topic, self.queue)
    }
}

/// What an operation asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Send a message; each message of a batch is an operation of its own.
    Send(Send),
    /// Read messages of a queue.
    Pull {
        /// The queue.
        queue: Queue,
        /// First offset wanted.
        from: u64,
        /// Whether a filter may leave messages out.
        #[serde(default)]
        filtered: bool,
    },
    /// Ask where a queue ends.
    MaxOffset {
        /// The queue.
        queue: Queue,
    },
    /// Commit a consumer offset.
    Commit {
        /// Whose and which.
        cursor: Cursor,
        /// The next offset to consume.
        offset: u64,
    },
    /// Set a consumer offset, forwards or backwards.
    Reset {
        /// Whose and which.
        cursor: Cursor,
        /// The next offset to consume.
        offset: u64,
    },
    /// Ask for a consumer offset.
    Query {
        /// Whose and which.
        cursor: Cursor,
    },
    /// Lock queues for ordered consumption, or renew the locks.
    Lock(Locks),
    /// Give locks back.
    Unlock(Locks),
    /// Commit or roll back a half message.
    EndTransaction {
        /// The message.
        id: u64,
        /// Whether to commit.
        commit: bool,
    },
    /// Take back a delayed message that is not due yet.
    Recall {
        /// The message.
        id: u64,
    },
    /// Receive messages that stay invisible to others for a while.
    Pop {
        /// The consumer group.
        group: String,
        /// How long, in milliseconds.
        invisible_ms: u64,
        /// Whether the group consumes in order: nothing of a queue comes before all that came earlier is
        /// acked.
        #[serde(default, skip_serializing_if = "is_false")]
        order: bool,
    },
    /// Say that a popped message is done with.
    Ack {
        /// Group and queue.
        cursor: Cursor,
        /// Offset of the message.
        offset: u64,
    },
    /// Set anew how long a popped message stays invisible.
    Renew {
        /// Group and queue.
        cursor: Cursor,
        /// Offset of the message.
        offset: u64,
        /// How long from now, in milliseconds.
        invisible_ms: u64,
    },
    /// Hand a message back, to come again in the group's retry topic, or to become a dead letter.
    SendBack {
        /// The consumer group.
        group: String,
        /// The message.
        id: u64,
        /// How often it had been handed back before: the `times` it was read with.
        times: u32,
        /// From how many times on it is a dead letter.
        times_max: u32,
        /// After what time it comes again, in milliseconds.
        delay_ms: u64,
    },
    /// Write the definition of a topic or group.
    Put {
        /// Name of what is defined, as `topic/orders`.
        register: String,
        /// The definition, different from all written there before; nothing deletes it.
        value: String,
    },
    /// Read the definition of a topic or group.
    Get {
        /// Name of what is defined.
        register: String,
    },
    /// Look for a message by a key that no other message has.
    Lookup {
        /// The message.
        id: u64,
    },
    /// Read a queue from end to end from one replica.
    Dump {
        /// The replica's node.
        node: String,
        /// The queue.
        queue: Queue,
    },
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// Its topic.
    pub topic: String,
    /// What the message is known by, in its body; a resend by the harness is a send of the same id.
    pub id: u64,
    /// CRC-32 of the body.
    pub crc: u32,
    /// How often the client itself may send it within this operation.
    #[serde(default = "one")]
    pub tries: u32,
    /// Whether it is the first half of a transaction.
    #[serde(default, skip_serializing_if = "is_false")]
    pub half: bool,
    /// How long its delivery is to be put off, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// For how long the broker promises to keep one copy of all sends of this id, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once_ms: Option<u64>,
}

impl Send {
    /// Whether the message is in the queue from its ack on, at the offset of the ack.
    pub fn is_plain(&self) -> bool {
        !self.half && self.delay_ms.is_none()
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A consumer group's place in a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The consumer group.
    pub group: String,
    /// The queue.
    pub queue: Queue,
}

/// Locks of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locks {
    /// The consumer group.
    pub group: String,
    /// The client's id.
    pub owner: String,
    /// The queues.
    pub queues: Vec<Queue>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// To a send: SEND_OK.
    Sent(Sent),
    /// To a pull.
    Pulled {
        /// Who answered, if the client can tell.
        node: Option<String>,
        /// First offset of the queue.
        min: u64,
        /// Offset after the last.
        max: u64,
        /// Where to go on.
        next: u64,
        /// The messages.
        messages: Vec<Message>,
    },
    /// To a max offset.
    End {
        /// Who answered.
        node: Option<String>,
        /// Offset after the last message.
        offset: u64,
        /// Whether the answer is promised to be up to date.
        current: bool,
    },
    /// To a query; nothing if the group has no offset there.
    Offset(Option<u64>),
    /// To a lock: the queues that are the client's now.
    Locked(Vec<Queue>),
    /// To a pop.
    Popped(Vec<Popped>),
    /// To a lookup: every copy of the message that was found.
    Found(Vec<Found>),
    /// To a get; nothing if it does not exist.
    Value(Option<String>),
    /// To a dump.
    Dumped {
        /// First offset of the queue.
        min: u64,
        /// Offset after the last.
        next: u64,
        /// All messages in between.
        messages: Vec<Message>,
    },
    /// To anything else.
    Done,
}

/// Where a message went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// The queue.
    pub queue: Queue,
    /// Its offset there.
    pub offset: u64,
    /// Its place in the log, if the client can tell.
    pub physical: Option<u64>,
    /// The id that the broker gave it.
    pub message_id: String,
    /// Who answered, if the client can tell.
    pub node: Option<String>,
}

/// A message as it was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Its offset.
    pub offset: u64,
    /// Its place in the log, if the client can tell.
    pub physical: Option<u64>,
    /// What it is known by, from its body.
    pub id: u64,
    /// CRC-32 of the body.
    pub crc: u32,
    /// How often it was handed back before, or came again by itself: RocketMQ's reconsumeTimes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub times: u32,
}

/// A message as it was found by its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// Its queue.
    pub queue: Queue,
    /// The message.
    pub message: Message,
}

/// A message as it was popped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Popped {
    /// Its queue.
    pub queue: Queue,
    /// The message.
    pub message: Message,
    /// How often it has been delivered to the group, this time included.
    pub attempt: u32,
}

/// Something that is no operation; written by the harness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Note {
    /// Who is in a broker group.
    Cluster {
        /// The broker group.
        broker: String,
        /// Its nodes.
        nodes: Vec<String>,
    },
    /// A fault is in effect.
    Fault {
        /// What `heal` calls it.
        name: String,
        /// What kind.
        class: FaultClass,
        /// Whom it hits.
        nodes: Vec<String>,
    },
    /// A fault is over.
    Heal {
        /// The fault's name.
        name: String,
    },
    /// A node was started and answers.
    Started {
        /// The node.
        node: String,
    },
    /// How far a replica is.
    Progress {
        /// The broker group.
        broker: String,
        /// The node.
        node: String,
        /// Log index up to which it knows records to be committed.
        committed: u64,
        /// Log index up to which it has applied them.
        applied: u64,
    },
    /// The checksum chain of a replica's log.
    Digest {
        /// The broker group.
        broker: String,
        /// The node.
        node: String,
        /// Log index of the last record in it.
        index: u64,
        /// The chain's value there.
        crc: u32,
    },
    /// A producer was asked what became of its half message; written by the producer.
    Checked {
        /// The message.
        id: u64,
    },
    /// No sends follow that are expected to succeed.
    LoadEnds,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultClass {
    /// The process was killed.
    Kill,
    /// The process stands still.
    Pause,
    /// Each of the nodes is cut off from all its peers, in both directions.
    Isolate,
    /// Some links are cut or slow, but not so that a node is isolated.
    Network,
    /// Unsynced data was lost.
    PowerCut,
    /// A write or a sync of the node has failed.
    DiskFailure,
    /// The disk is full or slow.
    DiskPressure,
    /// Bytes on the disk were changed.
    Rot,
    /// The wall clock jumped.
    Clock,
    /// Members of the group changed.
    Membership,
}
