//! What tools show of a broker: connections and progress here (202, 203, 204, 208), settings (26, 318, 319)
//! and runtime information (28) in `settings` and `runtime`.

mod runtime;
mod settings;

use std::collections::BTreeSet;

use gantry_protocol::bodies::{
    ConsumeStats, MessageQueue, QueueBounds as QueueBoundsBody, QueueProgress, TopicStats,
};
use gantry_protocol::headers::{
    ConsumeStatsRequest, ConsumerConnectionRequest, ProducerConnectionRequest, TopicRequest,
};
use gantry_protocol::{RemotingCommand, ResponseCode};
use gantry_storage::error::ReadError;
use gantry_storage::tables::Topic;
use gantry_storage::{QueueKey, QueueOffset, Store};

use super::Handled;
use crate::broker::Broker;
use crate::catalog;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::remoting::Request;
use crate::sessions::Sessions;
use crate::statistics;

pub use runtime::runtime_info;
pub use settings::{broker_config, name_server_config, refuse_config};

/// 202: what a topic's queues hold in this group of brokers.
pub async fn topic_stats(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let header = TopicRequest::parse(&request.command.fields)?;
    group.catch_up(request.caller.received + HOLD).await?;
    let found = group.store.tables().topic(header.topic);
    let topic = found.ok_or_else(|| catalog::no_topic(header.topic))?;
    let name = group.name.clone();
    let reading = catalog::read_aside(group, move |store| {
        let mut stats = TopicStats::default();
        for queue in 0..topic.queues() {
            let key = QueueKey {
                topic_id: topic.id,
                queue,
            };
            let bounds = store.queue_bounds(key).unwrap_or_default();
            let last = store_time_before(store, key, bounds.next)?;
            let row = QueueBoundsBody {
                last_update_timestamp: last,
                max_offset: bounds.next.get() as i64,
                min_offset: bounds.min.get() as i64,
            };
            stats.offset_table.insert(named(&name, &topic, queue), row);
        }
        Ok(stats)
    });
    let mut stats = reading.await?;
    let item = ("TOPIC_PUT_NUMS".to_string(), header.topic.to_string());
    stats.topic_put_tps = per_second(broker, group, vec![item]).await;
    let body = stats.encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

/// 208: where a consumer group is, in all topics or in one.
pub async fn consume_stats(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let header = ConsumeStatsRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    group.offsets.flush(deadline).await?;
    group.catch_up(deadline).await?;
    let wanted: Option<Vec<&str>> = match (header.topic, header.topic_list) {
        (Some(topic), _) if !topic.is_empty() => Some(vec![topic]),
        (_, Some(list)) if !list.is_empty() => Some(list.split(';').collect()),
        _ => None,
    };
    let positions: Vec<(std::sync::Arc<Topic>, u16, QueueOffset)> = {
        let tables = group.store.tables();
        let positions = tables.offsets_of(header.consumer_group);
        let positions = positions
            .filter(|(topic, _, _)| wanted.as_ref().is_none_or(|wanted| wanted.contains(topic)));
        positions
            .filter_map(|(topic, queue, at)| Some((tables.topic(topic)?, queue, at)))
            .collect()
    };
    let topics: BTreeSet<&str> = positions
        .iter()
        .map(|(topic, ..)| topic.config.name.as_str())
        .collect();
    let item = |topic: &str| {
        let key = format!("{topic}@{}", header.consumer_group);
        ("GROUP_GET_NUMS".to_string(), key)
    };
    let items = topics.into_iter().map(item).collect();
    let consume_tps = per_second(broker, group, items).await;
    let (name, consumer) = (group.name.clone(), header.consumer_group.to_owned());
    let reading = catalog::read_aside(group, move |store| {
        let mut stats = ConsumeStats {
            consume_tps,
            ..ConsumeStats::default()
        };
        for (topic, queue, at) in positions {
            let key = QueueKey {
                topic_id: topic.id,
                queue,
            };
            let Some(bounds) = store.queue_bounds(key) else {
                continue;
            };
            // What lies in between is handed out and not acknowledged.
            let (at, pulled) = store.tables().leases().span(&consumer, key, at);
            let row = QueueProgress {
                broker_offset: bounds.next.get() as i64,
                consumer_offset: at.get() as i64,
                last_timestamp: store_time_before(store, key, at)?,
                pull_offset: pulled.get() as i64,
            };
            stats.offset_table.insert(named(&name, &topic, queue), row);
        }
        Ok(stats)
    });
    let body = reading.await?.encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

/// Messages per second over the last minute, all of the items together.
async fn per_second(broker: &Broker, group: &Group, items: Vec<statistics::Item>) -> f64 {
    let counts = statistics::everywhere(broker, group, items).await;
    counts
        .iter()
        .flatten()
        .map(statistics::Counts::per_second)
        .sum()
}

/// 203: the members of a consumer group.
pub fn consumer_connections(sessions: &Sessions, request: &Request) -> Handled {
    let header = ConsumerConnectionRequest::parse(&request.command.fields)?;
    let found = sessions.consumers(header.consumer_group).ok_or_else(|| {
        let reason = format!("no consumer of group {} is online", header.consumer_group);
        Failure::code(ResponseCode::CONSUMER_NOT_ONLINE, reason)
    })?;
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(found.encode())
        .into())
}

/// 204: the members of a producer group.
pub fn producer_connections(sessions: &Sessions, request: &Request) -> Handled {
    let header = ProducerConnectionRequest::parse(&request.command.fields)?;
    let found = sessions.producers(header.producer_group);
    if found.connection_set.is_empty() {
        let reason = format!("no producer of group {} is online", header.producer_group);
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    }
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(found.encode())
        .into())
}

pub(super) fn named(group: &str, topic: &Topic, queue: u16) -> MessageQueue {
    MessageQueue {
        broker_name: group.to_string(),
        queue_id: i32::from(queue),
        topic: topic.config.name.clone(),
    }
}

/// When the message before an offset was stored; 0 if it is not there.
pub(super) fn store_time_before(
    store: &Store,
    key: QueueKey,
    next: QueueOffset,
) -> Result<i64, ReadError> {
    let Some(last) = next.get().checked_sub(1) else {
        return Ok(0);
    };
    let time = store.store_time_at(key, QueueOffset::new(last))?;
    Ok(time.unwrap_or(0) as i64)
}
