//! What the sender of a message hears.

use std::net::SocketAddrV4;

use gantry_protocol::headers::SendResponse;
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::properties::names;
use gantry_protocol::recall::RecallHandle;
use gantry_protocol::{RemotingCommand, ResponseCode};
use gantry_storage::tables::FirstSend;

use crate::appender::Appended;
use crate::error::Failure;
use crate::group::Group;
use crate::remoting::Request;
use crate::waiting::Waits;

/// RocketMQ's default region, which clients expect back.
pub(super) const REGION: &str = "DefaultRegion";

/// What the sender of a message that waits is told.
#[derive(Clone, Default)]
pub(super) struct Told {
    /// What it can recall the message with.
    pub recall_handle: Option<RecallHandle>,
    /// What it ends the transaction with.
    pub transaction_id: Option<String>,
}

impl Told {
    /// It is told of a message that was sent before, and that may be due at another time.
    pub(super) fn of_copy(&mut self, group: &Group, first: FirstSend) {
        let due_ms = group.store.tables().parked().timers().time_of(first.place);
        if let (Some(handle), Some(due_ms)) = (&mut self.recall_handle, due_ms) {
            handle.deliver_ms = due_ms;
        }
    }
}

/// What goes with the answer about a message that waits, with these properties.
pub(super) fn told(waits: &Waits, (topic, broker_name): (&str, &str), properties: &[u8]) -> Told {
    let unique_key = gantry_storage::message::property(properties, names::UNIQ_KEY);
    let unique_key = unique_key.unwrap_or_default().to_string();
    if waits.is_half() {
        return Told {
            transaction_id: Some(unique_key),
            ..Told::default()
        };
    }
    let handle = |deliver_ms| RecallHandle {
        topic: topic.to_string(),
        broker_name: broker_name.to_string(),
        deliver_ms,
        unique_key,
    };
    Told {
        recall_handle: waits.timer_ms().map(handle),
        ..Told::default()
    }
}

/// The answer to a send whose messages are where `appended` says.
pub(super) fn format(
    request: &Request,
    appended: &[Appended],
    (queue_id, told): (u16, &Told),
    host: SocketAddrV4,
) -> RemotingCommand {
    let mut ids = String::with_capacity(appended.len() * 33);
    let mut first = None;
    for one in appended {
        let (queue, queue_offset, physical_offset) = match one {
            Appended::At {
                queue_offset,
                physical_offset,
            } => (queue_id, *queue_offset, *physical_offset),
            Appended::SentBefore(first) => (first.queue, first.queue_offset.get(), first.place),
            Appended::NoSuchQueue | Appended::AlreadyResolved => {
                let reason = "the topic was just deleted";
                let gone = Failure::code(ResponseCode::TOPIC_NOT_EXIST, reason);
                return gone.to_response(&request.command);
            }
        };
        first.get_or_insert((queue, queue_offset));
        if !ids.is_empty() {
            ids.push(',');
        }
        let id = OffsetMessageId {
            host: host.into(),
            physical_offset: physical_offset.get() as i64,
        };
        id.append_to(&mut ids);
    }
    let mut response = RemotingCommand::success_to(&request.command);
    let (queue, queue_offset) = first.unwrap_or((queue_id, 0));
    let recall_handle = told.recall_handle.as_ref().map(RecallHandle::encode);
    let header = SendResponse {
        msg_id: &ids,
        queue_id: i32::from(queue),
        queue_offset: queue_offset as i64,
        recall_handle: recall_handle.as_deref(),
        transaction_id: told.transaction_id.as_deref(),
        region: Some(REGION),
        trace_on: Some(true),
        ..Default::default()
    };
    header.write(&mut response.fields);
    response
}
