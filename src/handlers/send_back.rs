//! A consumer hands a message back: 36. It becomes a new message of the group's retry topic after a
//! delay, or of its dead-letter topic when it was delivered often enough; the original stays where it is.

use std::sync::Arc;

use gantry_protocol::headers::SendBackRequest;
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::properties::{Builder, names};
use gantry_protocol::{ResponseCode, topic as names_of};
use gantry_storage::PhysicalOffset;
use gantry_storage::batch::{BatchBuilder, RowHead};
use gantry_storage::message::{MessageView, NewMessage};
use gantry_storage::planted::{Bug, planted};
use gantry_storage::tables::{Command, SubscriptionGroupConfig, Topic, TopicConfig};
use tokio::time::Instant;

use crate::appender::{Appended, OVERHEAD_BYTES};
use crate::broker::Broker;
use crate::catalog;
use crate::delays::When;
use crate::due::{self, WAITING_PROPERTIES};
use crate::error::Failure;
use crate::forward;
use crate::group::Group;
use crate::remoting::Request;
use crate::waiting::Waits;

/// Takes a sent-back message. Answers when its copy is on the disks of a majority.
pub async fn handle(broker: Arc<Broker>, group: Arc<Group>, request: Request) {
    forward::at_leader(
        broker,
        group,
        request,
        |broker, group, request, deadline| Box::pin(send_back(broker, group, request, deadline)),
    )
    .await;
}

async fn send_back(
    broker: &Broker,
    group: &Arc<Group>,
    request: &Request,
    deadline: Instant,
) -> Result<(), Failure> {
    let header = SendBackRequest::parse(&request.command.fields)?;
    let settings = &broker.config.broker;
    let known = catalog::consumer_group(group, settings, header.group, deadline).await?;
    if known.retry_queues <= 0 {
        return Ok(());
    }
    let host = broker
        .routes
        .store_host(request.caller.listener, request.caller.node, group.id);
    let offset = PhysicalOffset::new(header.offset.max(0) as u64);
    let Some(original) = catalog::message_at(group, offset, host).await? else {
        let reason = format!("there is no message at {offset}; it may have been removed");
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    };
    let message = MessageView::parse(&original)
        .map_err(|e| Failure::code(ResponseCode::SYSTEM_ERROR, e.to_string()))?;
    let id = OffsetMessageId {
        host: host.into(),
        physical_offset: header.offset,
    };
    let mut properties = returned_properties(&message, &id.to_string());
    let returned = Returned {
        name: names_of::retry_topic(header.group),
        queues: known.retry_queues.clamp(1, 1024) as u16,
        when: When::Now,
    };
    let returned = if is_given_up(&header, &known, message.reconsume_times()) {
        mark_dead(&mut properties, &message, &id.to_string());
        let name = names_of::dead_letter_topic(header.group);
        Returned {
            name,
            queues: 1,
            ..returned
        }
    } else {
        let times = message.reconsume_times();
        let now_ms = group.now_ms(&broker.clock);
        let policy = &known.retry_policy;
        let when = settings
            .delays
            .retry(policy, header.delay_level, times, now_ms);
        Returned { when, ..returned }
    };
    append(group, &message, (returned, properties), deadline).await
}

/// Where a message goes that was handed back.
struct Returned {
    name: String,
    /// Queues of that topic, if it must be created.
    queues: u16,
    when: When,
}

/// Whether a message was delivered often enough.
fn is_given_up(header: &SendBackRequest<'_>, group: &SubscriptionGroupConfig, times: i32) -> bool {
    let asked = header.max_reconsume_times.filter(|most| *most >= 0);
    times >= asked.unwrap_or(group.retry_max_times) || header.delay_level < 0
}

/// Properties of the copy: where the message came from, the first time it is handed back.
fn returned_properties(message: &MessageView<'_>, id: &str) -> Builder {
    let text = String::from_utf8_lossy(message.properties());
    let mut properties = Builder::from_text_without(&text, &WAITING_PROPERTIES);
    if message.property(names::RETRY_TOPIC).is_none() {
        properties.push(names::RETRY_TOPIC, message.topic());
    }
    if message.property(names::ORIGIN_MESSAGE_ID).is_none() {
        properties.push(names::ORIGIN_MESSAGE_ID, id);
    }
    properties
}

/// A dead letter says which message it was, also to those who do not know what a retry is.
fn mark_dead(properties: &mut Builder, message: &MessageView<'_>, id: &str) {
    let topic = message.property(names::RETRY_TOPIC);
    properties.push(names::DLQ_ORIGIN_TOPIC, topic.unwrap_or(message.topic()));
    let first = message.property(names::ORIGIN_MESSAGE_ID);
    properties.push(names::DLQ_ORIGIN_MESSAGE_ID, first.unwrap_or(id));
}

async fn ensure_topic(
    group: &Group,
    name: &str,
    queues: u16,
    deadline: Instant,
) -> Result<Arc<Topic>, Failure> {
    if let Some(topic) = group.store.tables().topic(name) {
        return Ok(topic);
    }
    let config = TopicConfig::new(name, queues);
    group
        .execute(vec![Command::CreateTopic { config }], deadline)
        .await?;
    group.store.tables().topic(name).ok_or(Failure::NotLeader)
}

async fn append(
    group: &Group,
    message: &MessageView<'_>,
    (returned, mut properties): (Returned, Builder),
    deadline: Instant,
) -> Result<(), Failure> {
    let topic = ensure_topic(group, &returned.name, returned.queues, deadline).await?;
    let spread = message.bytes().len() as u64 + message.physical_offset().get();
    let queue = (spread % u64::from(topic.config.write_queues.max(1))) as u16;
    let waits = Waits::until(group, returned.when)?;
    if let Some(waits) = &waits {
        for (name, value) in waits.properties(&returned.name, queue) {
            properties.push(name, &value);
        }
    }
    let (head, tags_code, (at, queue_id)) = match &waits {
        Some(waits) => {
            let at = (waits.topic.config.name.as_str(), waits.queue);
            (waits.head(), Some(waits.tags_code()), at)
        }
        None => {
            let head = RowHead {
                topic_id: topic.id,
                ..RowHead::default()
            };
            (head, None, (returned.name.as_str(), queue))
        }
    };
    let copy = NewMessage {
        topic: at,
        reconsume_times: match planted(Bug::RetryNotCounted) {
            true => message.reconsume_times(),
            false => message.reconsume_times().saturating_add(1),
        },
        prepared_offset: 0,
        ..due::copy(message, queue_id, properties.as_str().as_bytes())
    };
    let size = copy
        .encoded_len()
        .map_err(|e| Failure::code(ResponseCode::MESSAGE_ILLEGAL, e.to_string()))?;
    let encode = |batch: &mut BatchBuilder| {
        let pushed = match tags_code {
            Some(code) => batch.push_with_tags_code(head, &copy, code),
            None => batch.push_message(head, &copy),
        };
        pushed.expect("the size was checked above");
    };
    let bytes = size + OVERHEAD_BYTES;
    let appending = group.appender.append((1, bytes), encode, deadline);
    match appending.await?.first() {
        Some(Appended::At { .. }) => {
            let is_system = names_of::is_system(&returned.name);
            let metrics = &group.metrics;
            metrics.messages_in(&returned.name, is_system, 1, size as u64);
            Ok(())
        }
        _ => {
            let reason = format!("topic {} was just deleted", returned.name);
            Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason))
        }
    }
}
