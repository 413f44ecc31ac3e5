//! Offsets of consumer groups and of queues: 14, 15, 29, 30, 31, 32.

use gantry_protocol::headers::{
    MaxOffsetRequest, MinOffsetRequest, OffsetResponse, QueryConsumerOffsetRequest,
    SearchOffsetRequest, TimestampResponse, UpdateConsumerOffsetRequest,
};
use gantry_protocol::{RemotingCommand, ResponseCode, topic as names};
use gantry_storage::store::TimeBoundary;
use gantry_storage::{QueueKey, QueueOffset};
use tokio::time::Instant;

use super::Handled;
use crate::catalog;
use crate::config::BrokerConfig;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::remoting::Request;

/// 14: where a consumer group is in a queue.
pub async fn query(group: &Group, broker: &BrokerConfig, request: &Request) -> Handled {
    let header = QueryConsumerOffsetRequest::parse(&request.command.fields)?;
    let queue = catalog::queue_number(header.queue_id)?;
    let deadline = request.caller.received + HOLD;
    catalog::consumer_group(group, broker, header.consumer_group, deadline).await?;
    group.offsets.flush(deadline).await?;
    group.catch_up(deadline).await?;
    let (stored, topic) = {
        let tables = group.store.tables();
        let stored = tables.consumer_offset(header.consumer_group, header.topic, queue);
        (stored, tables.topic(header.topic))
    };
    if let Some(stored) = stored {
        return offset(request, stored);
    }
    if header.set_zero_if_not_found != Some(false)
        && let Some(topic) = topic
        && catalog::is_young(group, (topic.id, queue)).await?
    {
        // A new group of a young topic misses none of its messages, wherever it wants to begin.
        return offset(request, QueueOffset::ZERO);
    }
    let reason = format!(
        "group {} has no offset in queue {queue} of topic {}",
        header.consumer_group, header.topic
    );
    Err(Failure::code(ResponseCode::QUERY_NOT_FOUND, reason))
}

/// 15 without an answer: the offset is noted, in the order of the calls, and written soon.
pub fn note(group: &Group, request: &Request) -> Result<(), Failure> {
    let header = UpdateConsumerOffsetRequest::parse(&request.command.fields)?;
    let queue = catalog::queue_number(header.queue_id)?;
    let invalid = |reason: String| Failure::code(ResponseCode::INVALID_PARAMETER, reason);
    let offset = u64::try_from(header.commit_offset)
        .map_err(|_| invalid(format!("{} is not an offset", header.commit_offset)))?;
    let name = names::check_group(header.consumer_group);
    name.map_err(|error| invalid(error.to_string()))?;
    // Offsets in topics that do not exist are skipped when they are applied.
    group.offsets.note(
        header.consumer_group,
        header.topic,
        queue,
        QueueOffset::new(offset),
    );
    Ok(())
}

/// 15 with an answer, which comes when the offset is on the disks of a majority.
pub async fn update(group: &Group, broker: &BrokerConfig, request: &Request) -> Handled {
    let header = UpdateConsumerOffsetRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    catalog::consumer_group(group, broker, header.consumer_group, deadline).await?;
    let topic = catalog::topic(group, header.topic, deadline).await?;
    catalog::queue_of(&topic, header.queue_id)?;
    note(group, request)?;
    group.offsets.flush(deadline).await?;
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 29: the offset around a store time.
pub async fn search(group: &Group, request: &Request) -> Handled {
    let header = SearchOffsetRequest::parse(&request.command.fields)?;
    let key = current_queue(group, (header.topic, header.queue_id), request).await?;
    let wants_upper = header.wants_upper();
    let boundary = if wants_upper {
        TimeBoundary::Upper
    } else {
        TimeBoundary::Lower
    };
    let timestamp_ms = header.timestamp.max(0) as u64;
    let found = catalog::read_aside(group, move |store| {
        store.offset_by_time(key, timestamp_ms, boundary)
    });
    offset(request, found.await?)
}

/// 30: the offset of the next message.
pub async fn max(group: &Group, request: &Request) -> Handled {
    let header = MaxOffsetRequest::parse(&request.command.fields)?;
    let key = current_queue(group, (header.topic, header.queue_id), request).await?;
    offset(
        request,
        group.store.queue_bounds(key).unwrap_or_default().next,
    )
}

/// 31: the offset of the first message that is still there.
pub async fn min(group: &Group, request: &Request) -> Handled {
    let header = MinOffsetRequest::parse(&request.command.fields)?;
    let key = current_queue(group, (header.topic, header.queue_id), request).await?;
    offset(
        request,
        group.store.queue_bounds(key).unwrap_or_default().min,
    )
}

/// 32: when the first message that is still there was stored; -1 if there is none.
pub async fn earliest_time(group: &Group, request: &Request) -> Handled {
    let header = MinOffsetRequest::parse(&request.command.fields)?;
    let key = current_queue(group, (header.topic, header.queue_id), request).await?;
    let first = group.store.queue_bounds(key).unwrap_or_default().min;
    let time = catalog::read_aside(group, move |store| store.store_time_at(key, first)).await?;
    let timestamp = time.map_or(-1, |time| time as i64);
    let mut response = RemotingCommand::success_to(&request.command);
    TimestampResponse { timestamp }.write(&mut response.fields);
    Ok(response.into())
}

/// The queue that a request names, after this node has seen everything that was answered before.
async fn current_queue(
    group: &Group,
    (topic, queue_id): (&str, i32),
    request: &Request,
) -> Result<QueueKey, Failure> {
    let deadline: Instant = request.caller.received + HOLD;
    group.catch_up(deadline).await?;
    let found = group.store.tables().topic(topic);
    let topic = found.ok_or_else(|| catalog::no_topic(topic))?;
    let queue = catalog::queue_of(&topic, queue_id)?;
    Ok(QueueKey {
        topic_id: topic.id,
        queue,
    })
}

fn offset(request: &Request, offset: QueueOffset) -> Handled {
    let mut response = RemotingCommand::success_to(&request.command);
    OffsetResponse {
        offset: offset.get() as i64,
    }
    .write(&mut response.fields);
    Ok(response.into())
}
