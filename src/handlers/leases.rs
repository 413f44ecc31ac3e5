//! What becomes of messages that were handed out: acknowledged (200051, 200151), or handed out again later
//! than agreed (200053). Answers come when it is on the disks of a majority.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_protocol::bodies::{BatchAck, BatchAckEntry};
use gantry_protocol::headers::{AckRequest, ChangeInvisibleRequest, ChangeInvisibleResponse};
use gantry_protocol::{RemotingCommand, ResponseCode, topic as names};
use gantry_storage::tables::{Command, CommandResult, LeaseName};
use gantry_storage::{QueueKey, QueueOffset};
use tokio::time::Instant;

use super::Handled;
use crate::broker::Broker;
use crate::catalog;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::pop::{Handle, IN_ORDER, INVISIBLE_MS_MAX, RetryKind};
use crate::remoting::Request;

/// Messages that one request may acknowledge.
const ACKS_MAX: usize = 10_000;

/// A lease as a client named it.
struct Named {
    lease: LeaseName,
    in_order: bool,
}

/// 200051: a message is done with. A handle that is not valid any more does nothing, and that is not an
/// error, as in RocketMQ: the message was acknowledged before, or comes again.
pub async fn ack(broker: &Broker, asked: &Arc<Group>, request: &Request) -> Handled {
    let header = AckRequest::parse(&request.command.fields)?;
    let handle = read_handle(header.extra_info)?;
    let group = group_of(broker, asked, &handle);
    let deadline = request.caller.received + HOLD;
    let wanted = (header.consumer_group, header.topic, header.offset);
    let named = find(group, (wanted, header.queue_id), &handle, deadline).await?;
    let ended = acknowledge(group, header.consumer_group, vec![named], deadline).await?;
    group.metrics.pop_acked(ended);
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 200151: many messages are done with. What is wrong with one of them does not concern the others.
pub async fn ack_batch(broker: &Broker, asked: &Arc<Group>, request: &Request) -> Handled {
    let body = BatchAck::decode(&request.command.body);
    let batch = body.map_err(|error| catalog::unreadable(&error))?;
    let named = broker
        .groups
        .iter()
        .find(|group| group.name == batch.broker_name);
    let group = named.unwrap_or(asked);
    let deadline = request.caller.received + HOLD;
    let mut by_consumer: BTreeMap<&str, Vec<Named>> = BTreeMap::new();
    let mut count = 0;
    for entry in &batch.acks {
        let offsets = entry
            .offsets()
            .ok_or_else(|| illegal("the bits of an entry make no sense"))?;
        count += offsets.len();
        if count > ACKS_MAX {
            return Err(illegal(format!(
                "more than {ACKS_MAX} messages in one request"
            )));
        }
        let handle = handle_of(entry, &group.name)?;
        let found = by_consumer.entry(&entry.consumer_group).or_default();
        for offset in offsets {
            let wanted = (entry.consumer_group.as_str(), entry.topic.as_str(), offset);
            match find(group, (wanted, entry.queue_id), &handle, deadline).await {
                Ok(named) => found.push(named),
                Err(failure @ (Failure::NoLeader | Failure::Stopped)) => return Err(failure),
                Err(failure) => tracing::debug!(%failure, "one of many is not acknowledged"),
            }
        }
    }
    for (consumer, named) in by_consumer {
        let ended = acknowledge(group, consumer, named, deadline).await?;
        group.metrics.pop_acked(ended);
    }
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 200053: a message is handed out again so much later than now. The answer makes a new handle.
pub async fn change_invisible(broker: &Broker, asked: &Arc<Group>, request: &Request) -> Handled {
    let header = ChangeInvisibleRequest::parse(&request.command.fields)?;
    let handle = read_handle(header.extra_info)?;
    let group = group_of(broker, asked, &handle);
    if !(0..=INVISIBLE_MS_MAX).contains(&header.invisible_time) {
        let reason = format!(
            "an invisible time of {} ms: 0 to {INVISIBLE_MS_MAX} are possible",
            header.invisible_time
        );
        return Err(Failure::code(ResponseCode::INVALID_PARAMETER, reason));
    }
    let deadline = request.caller.received + HOLD;
    let wanted = (header.consumer_group, header.topic, header.offset);
    let named = find(group, (wanted, header.queue_id), &handle, deadline).await?;
    let change = Command::ChangeInvisible {
        group: header.consumer_group.to_owned(),
        lease: named.lease,
        invisible_ms: header.invisible_time as u64,
        in_order: named.in_order,
    };
    let results = group.execute(vec![change], deadline).await?;
    let [CommandResult::Popped { pop_ms, .. }] = results[..] else {
        let reason =
            "the handle is not valid any more: the message was acknowledged or comes again";
        return Err(Failure::code(ResponseCode::NO_MESSAGE, reason));
    };
    let mut response = RemotingCommand::success_to(&request.command);
    ChangeInvisibleResponse {
        pop_time: pop_ms as i64,
        invisible_time: header.invisible_time,
        revive_qid: handle.revive_queue,
    }
    .write(&mut response.fields);
    Ok(response.into())
}

fn illegal(reason: impl Into<String>) -> Failure {
    Failure::code(ResponseCode::MESSAGE_ILLEGAL, reason)
}

fn read_handle(text: &str) -> Result<Handle, Failure> {
    text.parse().map_err(|reason: String| illegal(reason))
}

fn handle_of(entry: &BatchAckEntry, broker_name: &str) -> Result<Handle, Failure> {
    let retry = RetryKind::parse(&entry.retry);
    Ok(Handle {
        start_offset: entry.start_offset,
        pop_time: entry.pop_time,
        invisible_time: entry.invisible_time,
        revive_queue: entry.revive_queue_id,
        retry: retry.ok_or_else(|| illegal(format!("{:?} is no retry flag", entry.retry)))?,
        broker_name: broker_name.to_owned(),
        queue_id: entry.queue_id,
        offset: None,
    })
}

/// The group that handed a message out; old clients only choose a port.
fn group_of<'a>(broker: &'a Broker, asked: &'a Arc<Group>, handle: &Handle) -> &'a Arc<Group> {
    let named = broker
        .groups
        .iter()
        .find(|group| group.name == handle.broker_name);
    named.unwrap_or(asked)
}

/// The lease that a handle is of; RocketMQ's codes where it cannot be of any.
async fn find(
    group: &Group,
    ((consumer, topic, offset), queue_id): ((&str, &str, i64), i32),
    handle: &Handle,
    deadline: Instant,
) -> Result<Named, Failure> {
    names::check_group(consumer)
        .map_err(|error| Failure::code(ResponseCode::INVALID_PARAMETER, error.to_string()))?;
    let name = handle.retry.topic_of(consumer, topic);
    let topic = catalog::topic(group, &name, deadline).await?;
    let queues = topic.queues();
    let queue = u16::try_from(queue_id).ok().filter(|queue| *queue < queues);
    let queue = queue.ok_or_else(|| {
        illegal(format!(
            "topic {name} has {queues} queues, there is no queue {queue_id}"
        ))
    })?;
    let key = QueueKey {
        topic_id: topic.id,
        queue,
    };
    let mut bounds = group.store.queue_bounds(key).unwrap_or_default();
    if offset >= bounds.next.get() as i64 {
        group.catch_up(deadline).await?;
        bounds = group.store.queue_bounds(key).unwrap_or_default();
    }
    let (min, next) = (bounds.min.get() as i64, bounds.next.get() as i64);
    if !(min..next).contains(&offset) {
        let reason = format!("queue {queue} of topic {name} has {min} to {next}, not {offset}");
        return Err(Failure::code(ResponseCode::NO_MESSAGE, reason));
    }
    let lease = LeaseName {
        key,
        offset: QueueOffset::new(offset as u64),
        pop_ms: handle.pop_time.max(0) as u64,
    };
    let in_order = handle.revive_queue == IN_ORDER;
    Ok(Named { lease, in_order })
}

/// Ends leases; returns how many there were.
async fn acknowledge(
    group: &Group,
    consumer: &str,
    named: Vec<Named>,
    deadline: Instant,
) -> Result<u64, Failure> {
    let (in_order, others): (Vec<Named>, Vec<Named>) =
        named.into_iter().partition(|named| named.in_order);
    let leases = |named: Vec<Named>| named.into_iter().map(|named| named.lease).collect();
    let mut commands = Vec::new();
    if !others.is_empty() {
        let (group, leases) = (consumer.to_owned(), leases(others));
        commands.push(Command::Ack { group, leases });
    }
    if !in_order.is_empty() {
        let (group, leases) = (consumer.to_owned(), leases(in_order));
        commands.push(Command::AckInOrder { group, leases });
    }
    if commands.is_empty() {
        return Ok(0);
    }
    let results = group.execute(commands, deadline).await?;
    let ended = results.iter().map(|result| match result {
        CommandResult::Ended(ended) => ended.iter().filter(|ended| **ended).count() as u64,
        _ => 0,
    });
    Ok(ended.sum())
}
