//! Where consumer groups are, beyond one group's offsets: 303, 308, 317, and rows of a queue: 321.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::sync::Arc;

use bytes::Bytes;
use gantry_protocol::bodies::{
    BrokerConsumeStats, ConsumeQueueRow, ConsumeQueueRows, ConsumeStats, ConsumeTimeSpan,
    ConsumeTimeSpans, CorrectionOffsets, QueueProgress, Subscription,
};
use gantry_protocol::headers::{
    BrokerConsumeStatsRequest, CorrectionOffsetsRequest, GroupTopicRequest,
    QueryConsumeQueueRequest,
};
use gantry_protocol::{RemotingCommand, ResponseCode, hash, message_id::OffsetMessageId};
use gantry_storage::error::ReadError;
use gantry_storage::message::{self, MessageView, Terms};
use gantry_storage::tables::Topic;
use gantry_storage::{QueueKey, QueueOffset, ReadRequest, Store};

use super::Handled;
use super::stats::{named, store_time_before};
use crate::broker::Broker;
use crate::catalog;
use crate::error::Failure;
use crate::filters;
use crate::group::{Group, HOLD};
use crate::remoting::Request;

/// Rows of one answer to 321.
const ROWS_MAX: i32 = 256;

/// Bytes of messages that are read for one answer to 321.
const ROWS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// 303: how old the messages are that a group has consumed and has not.
pub async fn time_span(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let header = GroupTopicRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    group.offsets.flush(deadline).await?;
    group.catch_up(deadline).await?;
    let topic = catalog::topic(group, header.topic, deadline).await?;
    let positions: Vec<QueueOffset> = {
        let tables = group.store.tables();
        let at = |queue| tables.consumer_offset(header.group, header.topic, queue);
        let queues = 0..topic.config.write_queues;
        queues.map(|queue| at(queue).unwrap_or_default()).collect()
    };
    let (name, now_ms) = (group.name.clone(), broker.clock.now_ms() as i64);
    let reading = catalog::read_aside(group, move |store| {
        let mut spans = ConsumeTimeSpans::default();
        for (queue, at) in (0..).zip(positions) {
            let mut span = span(store, (topic.id, queue), at, now_ms)?;
            span.message_queue = named(&name, &topic, queue);
            spans.consume_time_span_set.push(span);
        }
        Ok(spans)
    });
    let body = reading.await?.encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

fn span(
    store: &Store,
    (topic_id, queue): (u32, u16),
    at: QueueOffset,
    now_ms: i64,
) -> Result<ConsumeTimeSpan, ReadError> {
    let key = QueueKey { topic_id, queue };
    let bounds = store.queue_bounds(key).unwrap_or_default();
    let time = |offset| Ok(store.store_time_at(key, offset)?.unwrap_or(0) as i64);
    let min_time_stamp = time(bounds.min)?;
    let consume_time_stamp = if at > QueueOffset::ZERO {
        store_time_before(store, key, at)?
    } else {
        min_time_stamp
    };
    let delay_time = if at < bounds.next {
        now_ms - time(at.max(bounds.min))?
    } else {
        0
    };
    Ok(ConsumeTimeSpan {
        consume_time_stamp,
        delay_time,
        max_time_stamp: store_time_before(store, key, bounds.next)?,
        min_time_stamp,
        ..ConsumeTimeSpan::default()
    })
}

/// One topic of one consumer group: next offset by queue.
struct Reading {
    consumer: String,
    topic: Arc<Topic>,
    queues: Vec<(u16, QueueOffset)>,
}

/// 317: where every consumer group is in every topic of a group of brokers.
pub async fn all_groups(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let header = BrokerConsumeStatsRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    group.offsets.flush(deadline).await?;
    group.catch_up(deadline).await?;
    let readings = readings(group, header.is_order);
    let name = group.name.clone();
    let reading = catalog::read_aside(group, move |store| {
        let mut stats: BTreeMap<String, Vec<ConsumeStats>> = BTreeMap::new();
        for reading in readings {
            let topic_stats = progress(store, &name, &reading)?;
            stats.entry(reading.consumer).or_default().push(topic_stats);
        }
        Ok(stats)
    });
    let stats = reading.await?;
    let rows = stats
        .values()
        .flatten()
        .flat_map(|of| of.offset_table.values());
    let total_diff = rows
        .map(|row| row.broker_offset - row.consumer_offset)
        .sum();
    let mut addresses = broker.routes.broker(group, request.caller.listener);
    let body = BrokerConsumeStats {
        broker_addr: addresses.broker_addrs.remove(&0).unwrap_or_default(),
        groups: stats.into_iter().collect(),
        total_diff,
        // What was handed out is known to the members alone; nothing is counted as under way.
        total_inflight_diff: 0,
    };
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}

fn readings(group: &Group, only_ordered: bool) -> Vec<Reading> {
    let tables = group.store.tables();
    let mut readings: Vec<Reading> = Vec::new();
    for consumer in tables.groups() {
        for (topic, queue, offset) in tables.offsets_of(&consumer.name) {
            let Some(topic) = tables.topic(topic) else {
                continue;
            };
            if only_ordered && !topic.config.order {
                continue;
            }
            let goes_on =
                |last: &&mut Reading| last.topic.id == topic.id && last.consumer == consumer.name;
            match readings.last_mut().filter(goes_on) {
                Some(last) => last.queues.push((queue, offset)),
                None => readings.push(Reading {
                    consumer: consumer.name.clone(),
                    topic,
                    queues: vec![(queue, offset)],
                }),
            }
        }
    }
    readings
}

fn progress(store: &Store, name: &str, reading: &Reading) -> Result<ConsumeStats, ReadError> {
    let mut stats = ConsumeStats::default();
    let topic = &reading.topic;
    for (queue, at) in &reading.queues {
        let key = QueueKey {
            topic_id: topic.id,
            queue: *queue,
        };
        let Some(bounds) = store.queue_bounds(key) else {
            continue;
        };
        let row = QueueProgress {
            broker_offset: bounds.next.get() as i64,
            consumer_offset: at.get() as i64,
            last_timestamp: store_time_before(store, key, *at)?,
            pull_offset: at.get() as i64,
        };
        stats.offset_table.insert(named(name, topic, *queue), row);
    }
    Ok(stats)
}

/// 308: the least offset of any group in each queue, unless the compared group is behind it.
pub async fn corrections(group: &Group, request: &Request) -> Handled {
    let header = CorrectionOffsetsRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    group.offsets.flush(deadline).await?;
    group.catch_up(deadline).await?;
    let skipped: BTreeSet<&str> = header
        .filter_groups
        .unwrap_or_default()
        .split(',')
        .collect();
    let mut least: BTreeMap<i32, i64> = BTreeMap::new();
    let tables = group.store.tables();
    let groups = tables.groups_with_offsets_in(header.topic);
    for name in groups.filter(|name| !skipped.contains(name)) {
        let here = tables
            .offsets_of(name)
            .filter(|(topic, ..)| *topic == header.topic);
        for (_, queue, offset) in here {
            let offset = offset.get() as i64;
            let known = least.entry(i32::from(queue)).or_insert(offset);
            *known = offset.min(*known);
        }
    }
    for (queue, offset) in &mut least {
        let compared = tables.consumer_offset(header.compare_group, header.topic, *queue as u16);
        if compared.is_some_and(|compared| *offset > compared.get() as i64) {
            *offset = i64::MAX;
        }
    }
    drop(tables);
    let body = CorrectionOffsets {
        correction_offsets: least,
    };
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}

/// 321: rows of a queue, and which of them a group's filter matches.
pub async fn queue(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let header = QueryConsumeQueueRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    group.catch_up(deadline).await?;
    let topic = catalog::topic(group, header.topic, deadline).await?;
    let queue = catalog::queue_of(&topic, header.queue_id)?;
    let key = QueueKey {
        topic_id: topic.id,
        queue,
    };
    let bounds = group.store.queue_bounds(key).unwrap_or_default();
    let index = header.index.max(0) as u64;
    if !(bounds.min.get()..bounds.next.get()).contains(&index) {
        let (min, next) = (bounds.min, bounds.next);
        let reason = format!(
            "index {} is not in the queue's range [{min}, {next})",
            header.index
        );
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    }
    let consumer = header.consumer_group.filter(|name| !name.is_empty());
    let subscription =
        consumer.and_then(|consumer| broker.sessions.subscription(consumer, header.topic));
    let max_messages = header.count.clamp(1, ROWS_MAX) as usize;
    let caller = &request.caller;
    let store_host = broker
        .routes
        .store_host(caller.listener, caller.node, group.id);
    let messages = read(group, key, (index, max_messages), store_host).await?;
    let body = ConsumeQueueRows {
        filter_data: None,
        max_queue_index: bounds.next.get() as i64,
        min_queue_index: bounds.min.get() as i64,
        queue_data: rows(broker, &messages, subscription.as_deref(), store_host),
        subscription_data: subscription.as_deref().cloned(),
    };
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}

async fn read(
    group: &Group,
    key: QueueKey,
    (index, max_messages): (u64, usize),
    store_host: SocketAddrV4,
) -> Result<Bytes, Failure> {
    let reading = catalog::read_aside(group, move |store| {
        store.read_queue(&ReadRequest {
            key,
            offset: QueueOffset::new(index),
            max_messages,
            max_bytes: ROWS_BYTES_MAX,
            filter: &|_| true,
            properties: None,
            store_host,
            may_wait: true,
            whole: true,
        })
    });
    Ok(reading.await?.body)
}

fn rows(
    broker: &Broker,
    messages: &[u8],
    subscription: Option<&Subscription>,
    host: SocketAddrV4,
) -> Vec<ConsumeQueueRow> {
    let mut rows = Vec::new();
    let mut rest = messages;
    while let Some(size) = rest.first_chunk().map(|size| u32::from_be_bytes(*size)) {
        let Some((one, after)) = rest.split_at_checked(size as usize) else {
            break;
        };
        rest = after;
        let Ok(view) = MessageView::parse(one) else {
            break;
        };
        let terms = Terms::of(view.properties());
        let id = OffsetMessageId {
            host: host.into(),
            physical_offset: view.physical_offset().get() as i64,
        };
        rows.push(ConsumeQueueRow {
            eval: subscription.is_none_or(|subscription| matches(broker, subscription, &view)),
            msg: Some(format!(
                "msgId={id} queueOffset={} storeTimestamp={} bodyLength={}",
                view.queue_offset(),
                view.store_timestamp(),
                view.body().len()
            )),
            physic_offset: id.physical_offset,
            physic_size: one.len() as i32,
            tags_code: terms.tags_code(),
        });
    }
    rows
}

fn matches(broker: &Broker, subscription: &Subscription, view: &MessageView<'_>) -> bool {
    let expression = subscription.sub_string.trim();
    if subscription.expression_type == filters::SQL92 {
        let selector = broker.filters.selector(expression);
        return selector
            .is_ok_and(|selector| selector.matches(message::properties(view.properties())));
    }
    let code = Terms::of(view.properties()).tags_code();
    let mut tags = expression.split("||").map(str::trim);
    expression.is_empty()
        || expression == "*"
        || tags.any(|tag| !tag.is_empty() && i64::from(hash::java_hash(tag)) == code)
}
