//! Reading a queue for a consumer: from memory at once, from the disk on a thread that may wait for it, and
//! again when what was damaged has come back from another node.

use std::net::SocketAddrV4;
use std::sync::Arc;

use gantry_protocol::ResponseCode;
use gantry_raft::aside;
use gantry_storage::error::ReadError;
use gantry_storage::store::PropertiesFilter;
use gantry_storage::{QueueKey, QueueOffset, QueueRead, ReadRequest, Store, message};
use tokio::time::{Instant, timeout_at};

use crate::error::Failure;
use crate::filters::Filter;
use crate::group::Group;

/// What is to be read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The queue.
    pub key: QueueKey,
    /// First offset to look at.
    pub offset: QueueOffset,
    /// Most messages to return.
    pub max_messages: usize,
    /// Most bytes to return, except that one message may be larger.
    pub max_bytes: usize,
    /// Which messages.
    pub filter: Filter,
    /// Whether all of them are wanted that there are, however often the disk has to be waited for. The
    /// queues of a group lie between each other in its log, and their consumers are at about the same place:
    /// an answer that goes far ahead reads for itself alone what the others need too.
    pub whole: bool,
    /// Address that the messages name as the one to ask for them.
    pub store_host: SocketAddrV4,
}

impl Reading {
    /// Reads; waits until `deadline` for what is damaged here, and then gives `None`.
    ///
    /// # Errors
    /// Code 1: the disk refuses.
    pub async fn read(
        self,
        group: &Group,
        deadline: Instant,
    ) -> Result<Option<QueueRead>, Failure> {
        let mut mended = group.replica.mended();
        let reading = Arc::new(self);
        loop {
            let mut result = reading.read_now(&group.store, false);
            if matches!(result, Err(ReadError::NotInMemory)) {
                let (reading, store) = (reading.clone(), group.store.clone());
                let joined = aside(move || reading.read_now(&store, true)).await;
                result = joined.map_err(|error| {
                    Failure::code(ResponseCode::SYSTEM_ERROR, error.to_string())
                })?;
            }
            if let Some(ahead) = group.log.wants_ahead() {
                let log = group.log.clone();
                tokio::spawn(aside(move || log.read_ahead(ahead)));
            }
            let error = match result {
                Ok(read) => return Ok(Some(read)),
                Err(error) => error,
            };
            if !matches!(error, ReadError::Corrupt { .. }) {
                tracing::error!(group = group.name, %error, "reading a queue failed");
                return Err(Failure::code(ResponseCode::SYSTEM_ERROR, error.to_string()));
            }
            // Damaged messages come back from another node, mostly at once.
            if !matches!(timeout_at(deadline, mended.changed()).await, Ok(Ok(()))) {
                return Ok(None);
            }
        }
    }

    fn read_now(&self, store: &Store, may_wait: bool) -> Result<QueueRead, ReadError> {
        let matches = |code: i64| self.filter.matches_tag(code);
        let selects = |text: &[u8]| match &self.filter {
            Filter::Sql(selector) => selector.matches(message::properties(text)),
            Filter::All | Filter::Tags(_) => true,
        };
        let properties: Option<&PropertiesFilter<'_>> = match &self.filter {
            Filter::Sql(_) => Some(&selects),
            Filter::All | Filter::Tags(_) => None,
        };
        store.read_queue(&ReadRequest {
            key: self.key,
            offset: self.offset,
            max_messages: self.max_messages,
            max_bytes: self.max_bytes,
            filter: &matches,
            properties,
            store_host: self.store_host,
            may_wait,
            whole: self.whole,
        })
    }
}
