//! The end of a transaction: 37 commits or rolls back a half message. What is committed takes the half
//! message's place in one record, so it is visible once, whoever asks how often. 323 takes one up again
//! that was given up.

use std::sync::Arc;

use bytes::Bytes;
use gantry_protocol::headers::{EndTransactionRequest, ResumeCheckRequest};
use gantry_protocol::message::sys_flags;
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::properties::{Builder, names};
use gantry_protocol::{RequestCode, ResponseCode, topic as names_of};
use gantry_storage::PhysicalOffset;
use gantry_storage::batch::{BatchBuilder, RowHead, RowKind};
use gantry_storage::message::{MessageView, NewMessage};
use gantry_storage::planted::{Bug, planted};
use gantry_storage::tables::{Command, CommandResult};
use tokio::time::Instant;

use crate::appender::{Appended, OVERHEAD_BYTES};
use crate::broker::Broker;
use crate::catalog;
use crate::due::{self, WAITING_PROPERTIES};
use crate::error::Failure;
use crate::forward;
use crate::group::Group;
use crate::remoting::Request;

/// Takes the end of a transaction, or the wish to take one up again. Answers when it is on the disks of a
/// majority; clients hardly ever ask for an answer.
pub async fn handle(broker: Arc<Broker>, group: Arc<Group>, request: Request) {
    forward::at_leader(
        broker,
        group,
        request,
        |broker, group, request, deadline| {
            if request.code() == RequestCode::RESUME_CHECK_HALF_MESSAGE {
                Box::pin(resume(broker, group, request, deadline))
            } else {
                Box::pin(end(broker, group, request, deadline))
            }
        },
    )
    .await;
}

async fn end(
    broker: &Broker,
    group: &Arc<Group>,
    request: &Request,
    deadline: Instant,
) -> Result<(), Failure> {
    let header = EndTransactionRequest::parse(&request.command.fields)?;
    let commits = match header.commit_or_rollback {
        sys_flags::TRANSACTION_COMMIT => true,
        sys_flags::TRANSACTION_ROLLBACK => false,
        // The producer does not know yet; it is asked again.
        0 => return Ok(()),
        other => {
            let reason = format!("a transaction ends with 8 or 12, not with {other}");
            return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
        }
    };
    let place = PhysicalOffset::new(header.commit_log_offset.max(0) as u64);
    let half = half_message(broker, group, request, place).await?;
    let view = MessageView::parse(&half)
        .map_err(|error| Failure::code(ResponseCode::SYSTEM_ERROR, error.to_string()))?;
    check(&header, &view, group.now_ms(&broker.clock))?;
    if !group.store.tables().parked().is_open(place) {
        return Err(ended(place));
    }
    if commits {
        commit(group, &view, place, deadline).await
    } else {
        roll_back(group, place).await
    }
}

/// The half message at a place, as it would be delivered.
async fn half_message(
    broker: &Broker,
    group: &Arc<Group>,
    request: &Request,
    place: PhysicalOffset,
) -> Result<Bytes, Failure> {
    let system = |reason: String| Failure::code(ResponseCode::SYSTEM_ERROR, reason);
    let caller = &request.caller;
    let host = broker
        .routes
        .store_host(caller.listener, caller.node, group.id);
    let found = catalog::message_at(group, place, host).await?;
    let half = found.ok_or_else(|| system(format!("there is no half message at {place}")))?;
    let is_half = MessageView::parse(&half).is_ok_and(|view| {
        [names_of::HALF_TOPIC, names_of::HALF_GIVEN_UP_TOPIC].contains(&view.topic())
    });
    if !is_half {
        return Err(system(format!("the message at {place} is no half message")));
    }
    Ok(half)
}

/// Whether the request speaks of this message, and in time.
fn check(
    header: &EndTransactionRequest<'_>,
    half: &MessageView<'_>,
    now_ms: u64,
) -> Result<(), Failure> {
    let system = |reason: String| Failure::code(ResponseCode::SYSTEM_ERROR, reason);
    let producer = half.property(names::PRODUCER_GROUP).unwrap_or_default();
    if producer != header.producer_group {
        return Err(system(format!(
            "the half message is of producer group {producer:?}, not {:?}",
            header.producer_group
        )));
    }
    let queue_offset = half.queue_offset().get();
    if i64::try_from(queue_offset) != Ok(header.tran_state_table_offset) {
        return Err(system(format!(
            "the half message is at offset {queue_offset}, not {}",
            header.tran_state_table_offset
        )));
    }
    let immunity = half.property(names::CHECK_IMMUNITY_SECONDS);
    let immunity_ms = immunity
        .and_then(|seconds| seconds.parse::<u64>().ok())
        .map(|seconds| seconds.saturating_mul(1000));
    let age_ms = now_ms.saturating_sub(half.born_timestamp().max(0) as u64);
    let is_late = immunity_ms.is_some_and(|immunity_ms| age_ms > immunity_ms);
    if is_late && header.from_transaction_check != Some(true) {
        let reason = "the time for this is over; the producer will be asked";
        return Err(Failure::code(ResponseCode::ILLEGAL_OPERATION, reason));
    }
    Ok(())
}

fn ended(place: PhysicalOffset) -> Failure {
    let reason = format!("the transaction of the half message at {place} has ended already");
    Failure::code(ResponseCode::ILLEGAL_OPERATION, reason)
}

async fn commit(
    group: &Group,
    half: &MessageView<'_>,
    place: PhysicalOffset,
    deadline: Instant,
) -> Result<(), Failure> {
    let Some((topic, queue)) = due::destination(&group.store, half) else {
        let reason = "the topic that the transaction is about does not exist any more";
        return Err(Failure::code(ResponseCode::TOPIC_NOT_EXIST, reason));
    };
    let text = String::from_utf8_lossy(half.properties());
    let properties = Builder::from_text_without(&text, &WAITING_PROPERTIES);
    let message = NewMessage {
        topic: &topic.config.name,
        sys_flag: half.sys_flag() & !sys_flags::TRANSACTION_MASK | sys_flags::TRANSACTION_COMMIT,
        prepared_offset: place.get() as i64,
        ..due::copy(half, queue, properties.as_str().as_bytes())
    };
    let head = RowHead {
        topic_id: topic.id,
        kind: match planted(Bug::CommitTwice) {
            true => RowKind::Ordinary,
            false => RowKind::Resolves,
        },
        origin: place.get(),
    };
    let encode = |batch: &mut BatchBuilder| {
        let pushed = batch.push_message(head, &message);
        pushed.expect("it was stored with more properties before");
    };
    let size = (1, half.bytes().len() + OVERHEAD_BYTES);
    match group.appender.append(size, encode, deadline).await?.first() {
        Some(Appended::At { .. }) => Ok(()),
        Some(Appended::AlreadyResolved) => Err(ended(place)),
        _ => {
            let reason = "the topic that the transaction is about was just deleted";
            Err(Failure::code(ResponseCode::TOPIC_NOT_EXIST, reason))
        }
    }
}

async fn roll_back(group: &Group, place: PhysicalOffset) -> Result<(), Failure> {
    let unpark = Command::Unpark {
        places: vec![place],
    };
    match group.appender.execute(vec![unpark]).await?[..] {
        [CommandResult::Resolved(1)] => Ok(()),
        _ => Err(ended(place)),
    }
}

async fn resume(
    broker: &Broker,
    group: &Arc<Group>,
    request: &Request,
    deadline: Instant,
) -> Result<(), Failure> {
    let header = ResumeCheckRequest::parse(&request.command.fields)?;
    let id: OffsetMessageId = header
        .msg_id
        .parse()
        .map_err(|error| Failure::code(ResponseCode::SYSTEM_ERROR, format!("msgId: {error}")))?;
    let place = PhysicalOffset::new(id.physical_offset.max(0) as u64);
    let half = half_message(broker, group, request, place).await?;
    let view = MessageView::parse(&half)
        .map_err(|error| Failure::code(ResponseCode::SYSTEM_ERROR, error.to_string()))?;
    let topic = group.store.tables().topic(names_of::HALF_TOPIC);
    let topic = topic.ok_or(Failure::NotLeader)?;
    let head = RowHead {
        topic_id: topic.id,
        kind: RowKind::Moves,
        origin: place.get(),
    };
    let message = NewMessage {
        topic: &topic.config.name,
        ..due::copy(&view, 0, view.properties())
    };
    let now_ms = group.now_ms(&broker.clock) as i64;
    let encode = |batch: &mut BatchBuilder| {
        let pushed = batch.push_with_tags_code(head, &message, now_ms);
        pushed.expect("it was stored before");
    };
    let size = (1, half.len() + OVERHEAD_BYTES);
    match group.appender.append(size, encode, deadline).await?.first() {
        Some(Appended::At { .. }) => Ok(()),
        _ => Err(ended(place)),
    }
}
