//! Defects for the simulation to find, one at a time: what a broker must not do, and what somebody may one
//! day change so that it does.
//!
//! They are in a build only with the feature `planted-bugs`; in every other one [`planted`] is a constant
//! `false` and nothing is left of them. `docs/reliability.md` says how many seeds each takes.

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "`meaning` says it once, for readers of code and of tables"
)]
pub enum Bug {
    AckBeforeSync,
    AckAtAppend,
    VoteNotSynced,
    RollNotSynced,
    NameNotSynced,
    CheckpointNotSynced,
    IndexNotSynced,
    SyncRetried,
    MarkAhead,
    CacheTrusted,
    TornRecordAccepted,
    StaleTail,
    CheckpointForgetsQueues,
    IdReused,
    DeposedLeaderReads,
    StaleRegister,
    MovedWithoutCatchUp,
    SentTwice,
    OffsetsAckedEarly,
    FirstOffsetWins,
    OffsetsOutOfOrder,
    LocksForgotten,
    TimerEarly,
    TimerTwice,
    HalfVisible,
    CommitTwice,
    LeasesEndWithTerm,
    RetryNotCounted,
    CopyStored,
}

/// Whether a defect is in force.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
pub use switch::{plant, planted};

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::sync::OnceLock;

    use super::Bug;

    static PLANTED: OnceLock<Bug> = OnceLock::new();

    /// Puts a defect in force, for as long as the process runs.
    pub fn plant(bug: Bug) {
        PLANTED.get_or_init(|| bug);
    }

    /// Whether a defect is in force.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(&bug)
    }

    impl Bug {
        /// All of them: the simulation must find each.
        pub const ALL: [Self; 29] = [
            Self::AckBeforeSync,
            Self::AckAtAppend,
            Self::VoteNotSynced,
            Self::RollNotSynced,
            Self::NameNotSynced,
            Self::CheckpointNotSynced,
            Self::IndexNotSynced,
            Self::SyncRetried,
            Self::MarkAhead,
            Self::CacheTrusted,
            Self::TornRecordAccepted,
            Self::StaleTail,
            Self::CheckpointForgetsQueues,
            Self::IdReused,
            Self::DeposedLeaderReads,
            Self::StaleRegister,
            Self::MovedWithoutCatchUp,
            Self::SentTwice,
            Self::OffsetsAckedEarly,
            Self::FirstOffsetWins,
            Self::OffsetsOutOfOrder,
            Self::LocksForgotten,
            Self::TimerEarly,
            Self::TimerTwice,
            Self::HalfVisible,
            Self::CommitTwice,
            Self::LeasesEndWithTerm,
            Self::RetryNotCounted,
            Self::CopyStored,
        ];

        /// What commands call it.
        pub fn name(self) -> &'static str {
            self.describe().0
        }

        /// What it does, in a few words.
        pub fn meaning(self) -> &'static str {
            self.describe().1
        }

        fn describe(self) -> (&'static str, &'static str) {
            match self {
                Self::AckBeforeSync => ("ack-before-sync", "records count before they are synced"),
                Self::AckAtAppend => ("ack-at-append", "appends complete at once"),
                Self::VoteNotSynced => {
                    ("vote-not-synced", "a vote is answered before it is synced")
                }
                Self::RollNotSynced => ("roll-not-synced", "a full segment is not synced"),
                Self::NameNotSynced => ("name-not-synced", "a new segment's name is not synced"),
                Self::CheckpointNotSynced => (
                    "checkpoint-not-synced",
                    "a checkpoint counts before it is synced",
                ),
                Self::IndexNotSynced => ("index-not-synced", "queue files are not synced"),
                Self::SyncRetried => ("sync-retried", "a failed sync is tried again"),
                Self::MarkAhead => ("mark-ahead", "the synced mark is written before the sync"),
                Self::CacheTrusted => ("cache-trusted", "recovery takes what it reads for durable"),
                Self::TornRecordAccepted => {
                    ("torn-record-accepted", "recovery does not check payloads")
                }
                Self::StaleTail => ("stale-tail", "truncated records stay in the tail in memory"),
                Self::CheckpointForgetsQueues => (
                    "checkpoint-forgets-queues",
                    "checkpoints do not hold the queues' next offsets",
                ),
                Self::IdReused => (
                    "id-reused",
                    "a node that lost its disk comes back under its old id",
                ),
                Self::DeposedLeaderReads => (
                    "deposed-leader-reads",
                    "a leader answers without asking a majority",
                ),
                Self::StaleRegister => ("stale-register", "values are read without catching up"),
                Self::MovedWithoutCatchUp => (
                    "moved-without-catch-up",
                    "a replica that is behind sends consumers elsewhere",
                ),
                Self::SentTwice => (
                    "sent-twice",
                    "a forwarded send of unknown outcome is sent again",
                ),
                Self::OffsetsAckedEarly => (
                    "offsets-acked-early",
                    "consumer offsets are acked before they are written",
                ),
                Self::FirstOffsetWins => (
                    "first-offset-wins",
                    "of several offsets the first is written",
                ),
                Self::OffsetsOutOfOrder => (
                    "offsets-out-of-order",
                    "an old offset that is written again replaces a newer one",
                ),
                Self::LocksForgotten => ("locks-forgotten", "a new leader does not know the locks"),
                Self::TimerEarly => ("timer-early", "timers are delivered before they are due"),
                Self::TimerTwice => ("timer-twice", "a delivered timer waits once more"),
                Self::HalfVisible => (
                    "half-visible",
                    "a new leader delivers the messages of open transactions",
                ),
                Self::CommitTwice => ("commit-twice", "a commit does not end its transaction"),
                Self::LeasesEndWithTerm => ("leases-end-with-term", "a new leader ends all leases"),
                Self::RetryNotCounted => (
                    "retry-not-counted",
                    "messages that come again do not say how often",
                ),
                Self::CopyStored => ("copy-stored", "a new leader forgets all sends"),
            }
        }
    }
}
