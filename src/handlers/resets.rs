//! Moving consumer groups: to another time or offset (222), to where another group is (314).
//!
//! A reset is a mark in the tables: a member that reads on from elsewhere is sent to the new position,
//! and what it commits is ignored, until it reads from there (`pull.rs`). Members that are online are told
//! at once.

use std::sync::Arc;

use gantry_protocol::bodies::{MessageQueue, ResetOffsets};
use gantry_protocol::headers::{CloneOffsetsRequest, ResetClientOffsetRequest, ResetOffsetRequest};
use gantry_protocol::{Language, RemotingCommand, RequestCode, ResponseCode, topic as names};
use gantry_storage::store::TimeBoundary;
use gantry_storage::tables::{Command, OffsetCommit, Topic};
use gantry_storage::{QueueKey, QueueOffset};
use tokio::time::Instant;

use super::Handled;
use super::members::member;
use crate::broker::Broker;
use crate::catalog;
use crate::client_calls;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::remoting::Request;

/// 222: moves a consumer group in one queue or in all queues of a topic. Answers when the move is on the
/// disks of a majority.
pub async fn reset(broker: &Arc<Broker>, group: &Arc<Group>, request: &Request) -> Handled {
    let header = ResetOffsetRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    group.catch_up(deadline).await?;
    let topic = catalog::topic(group, header.topic, deadline).await?;
    check_group(group, header.group, deadline).await?;
    let targets = targets(group, &topic, &header).await?;
    let entries: Vec<OffsetCommit> = targets
        .iter()
        .map(|(queue, offset)| OffsetCommit {
            group: header.group.to_string(),
            topic: header.topic.to_string(),
            queue: *queue,
            offset: *offset,
        })
        .collect();
    // What was reported before the reset must not be written after it.
    group.offsets.flush(deadline).await?;
    catalog::change(group, vec![Command::ResetOffsets { entries }], deadline).await?;
    // A parked pull is answered with the new position.
    let keys = targets.iter().map(|(queue, _)| QueueKey {
        topic_id: topic.id,
        queue: *queue,
    });
    group.long_poll.wake(keys);
    let table = targets.into_iter().map(|(queue, offset)| {
        let queue = MessageQueue {
            broker_name: group.name.clone(),
            queue_id: i32::from(queue),
            topic: header.topic.to_string(),
        };
        (queue, offset.get() as i64)
    });
    let body = ResetOffsets {
        offset_table: table.collect(),
    };
    tokio::spawn(notices(broker.clone(), &header, body.clone()));
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}

/// Fails with code 26 for a group that nobody created and that has been nowhere.
async fn check_group(group: &Group, name: &str, deadline: Instant) -> Result<(), Failure> {
    let has_been_here = group.store.tables().offsets_of(name).next().is_some();
    if has_been_here || names::SYSTEM_GROUPS.contains(&name) {
        return Ok(());
    }
    let known = catalog::configured_group(group, name, deadline).await;
    known.map(|_| ())
}

/// Where the group is to go, by queue.
async fn targets(
    group: &Group,
    topic: &Topic,
    header: &ResetOffsetRequest<'_>,
) -> Result<Vec<(u16, QueueOffset)>, Failure> {
    let queues = match header.queue_id.filter(|queue| *queue >= 0) {
        Some(queue) => vec![catalog::queue_of(topic, queue)?],
        None => (0..topic.config.read_queues).collect(),
    };
    let wanted = header.offset.filter(|offset| *offset != -1);
    if let (Some(offset), [queue]) = (wanted, queues.as_slice())
        && header.queue_id.is_some_and(|queue| queue >= 0)
    {
        return Ok(vec![(*queue, in_range(group, (topic, *queue), offset)?)]);
    }
    let (topic_id, timestamp) = (topic.id, header.timestamp);
    let searching = catalog::read_aside(group, move |store| {
        let mut found = Vec::with_capacity(queues.len());
        for queue in queues {
            let key = QueueKey { topic_id, queue };
            let target = match u64::try_from(timestamp) {
                Ok(timestamp_ms) => store.offset_by_time(key, timestamp_ms, TimeBoundary::Lower)?,
                Err(_) => store.queue_bounds(key).unwrap_or_default().next,
            };
            found.push((queue, target));
        }
        Ok(found)
    });
    searching.await
}

/// An offset that was asked for, if the queue reaches there.
fn in_range(
    group: &Group,
    (topic, queue): (&Topic, u16),
    offset: i64,
) -> Result<QueueOffset, Failure> {
    let key = QueueKey {
        topic_id: topic.id,
        queue,
    };
    let bounds = group.store.queue_bounds(key).unwrap_or_default();
    let (min, next) = (bounds.min.get() as i64, bounds.next.get() as i64);
    // RocketMQ takes the offset behind the next one too; nothing will ever be there before.
    if !(min..=next + 1).contains(&offset) {
        let reason = format!("offset {offset} is not in the queue's range [{min}-{next}]");
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    }
    Ok(QueueOffset::new(offset.min(next) as u64))
}

/// Tells the members that are online (220), each in the form that its language reads.
fn notices(
    broker: Arc<Broker>,
    header: &ResetOffsetRequest<'_>,
    body: ResetOffsets,
) -> impl Future<Output = ()> + Send + 'static {
    let mut notice = RemotingCommand::request(RequestCode::RESET_CONSUMER_CLIENT_OFFSET, 0);
    ResetClientOffsetRequest {
        topic: header.topic,
        group: header.group,
        timestamp: header.timestamp,
        is_force: header.is_force.unwrap_or(true),
    }
    .write(&mut notice.fields);
    let members = broker.sessions.members_with_language(header.group);
    let group = header.group.to_string();
    async move {
        for one in members {
            let is_cpp = one.language == Language::Cpp.name();
            let body = if is_cpp {
                body.encode_for_cpp()
            } else {
                body.encode()
            };
            let notice = notice.clone().with_body(body);
            client_calls::tell(&broker, &member(&group, &one.client_id), &notice).await;
        }
    }
}

/// 314: a consumer group goes to where another one is, in one topic or in all that the other has been in.
pub async fn copy(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let header = CloneOffsetsRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    names::check_group(header.dest_group)
        .map_err(|error| Failure::code(ResponseCode::INVALID_PARAMETER, error.to_string()))?;
    group.offsets.flush(deadline).await?;
    group.catch_up(deadline).await?;
    let only = header.topic.filter(|topic| !topic.is_empty());
    let is_read_by_destination = |topic: &str| {
        // Online, the destination must read what the source reads, as RocketMQ has it.
        header.offline
            || broker
                .sessions
                .subscription(header.dest_group, topic)
                .is_some()
    };
    let entries: Vec<OffsetCommit> = {
        let tables = group.store.tables();
        let positions = tables
            .offsets_of(header.src_group)
            .filter(|(topic, ..)| only.is_none_or(|only| only == *topic))
            .filter(|(topic, ..)| is_read_by_destination(topic));
        let entry = |(topic, queue, offset): (&str, u16, QueueOffset)| OffsetCommit {
            group: header.dest_group.to_string(),
            topic: topic.to_string(),
            queue,
            offset,
        };
        positions.map(entry).collect()
    };
    if entries.is_empty() {
        let reason = format!(
            "group {} has no offsets here that group {} could take over",
            header.src_group, header.dest_group
        );
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    }
    let commit = Command::CommitOffsets {
        entries,
        advance_only: false,
    };
    catalog::change(group, vec![commit], deadline).await?;
    Ok(RemotingCommand::success_to(&request.command).into())
}
