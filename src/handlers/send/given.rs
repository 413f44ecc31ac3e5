//! What the properties of a message say to the broker, from one pass over them.

use gantry_protocol::properties::{self, names};

use crate::delays::Wishes;

/// Which properties with a meaning to the broker a message came with.
#[derive(Default)]
pub(super) struct Given {
    pub region: bool,
    pub trace_on: bool,
    pub cluster: bool,
    pub unique_key: bool,
    /// Of a message that was popped and is sent again: the copy has no lease.
    pub receipt_handle: bool,
    /// The half message of a transaction.
    pub prepared: bool,
    /// For how long its producer is not to be asked about the transaction.
    pub immunity_seconds: Option<u64>,
    /// When it is to come.
    pub wishes: Wishes,
}

impl Given {
    pub(super) fn of(text: &str) -> Self {
        let mut given = Given::default();
        for (name, value) in properties::iter(text) {
            match name {
                names::MSG_REGION => given.region = true,
                names::TRACE_ON => given.trace_on = true,
                names::CLUSTER => given.cluster = true,
                names::UNIQ_KEY => given.unique_key = true,
                names::POP_CK => given.receipt_handle = true,
                names::TRANSACTION_PREPARED => {
                    given.prepared = value.eq_ignore_ascii_case("true");
                }
                names::CHECK_IMMUNITY_SECONDS => given.immunity_seconds = value.parse().ok(),
                _ => given.wishes.note(name, value),
            }
        }
        given
    }

    /// Whether it opens a transaction. A consumer's retry of a message that once did is not meant.
    pub(super) fn is_half(&self, reconsume_times: i32) -> bool {
        self.prepared && !(reconsume_times > 0 && self.wishes.any())
    }

    /// Whether it may not be part of a batch.
    pub(super) fn waits(&self) -> bool {
        self.prepared || self.wishes.any()
    }
}
