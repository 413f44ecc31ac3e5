//! A consumer hands a message back: 36. It becomes a new message of the group's retry topic, or of its
//! dead-letter topic when it was delivered often enough; the original stays where it is.

use std::pin::Pin;
use std::sync::Arc;

use gantry_protocol::headers::SendBackRequest;
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::properties::{Builder, names};
use gantry_protocol::{RemotingCommand, ResponseCode, topic as names_of};
use gantry_raft::aside;
use gantry_storage::PhysicalOffset;
use gantry_storage::batch::{BatchBuilder, RowHead};
use gantry_storage::message::{MessageView, NewMessage};
use gantry_storage::tables::{Command, Topic, TopicConfig};
use tokio::time::{Instant, timeout_at};

use super::send::too_late;
use crate::appender::NotAdmitted;
use crate::broker::Broker;
use crate::catalog;
use crate::error::Failure;
use crate::forward;
use crate::group::Group;
use crate::remoting::Request;

const OVERHEAD_BYTES: usize = 300;

/// Takes a sent-back message. Answers when its copy is on the disks of a majority.
pub async fn handle(broker: Arc<Broker>, group: Arc<Group>, request: Request) {
    if !group.leads() {
        let Some(request) = request.refuse_if_forwarded() else {
            return;
        };
        let again = {
            let group = group.clone();
            move |request: Request| drop(tokio::spawn(boxed(broker, group, request)))
        };
        return forward::relay(group, request, again).await;
    }
    let deadline = request.caller.received + forward::hold_budget(request.code());
    match send_back(&broker, &group, &request, deadline).await {
        Ok(()) => request.reply_ok(),
        Err(Failure::NotLeader) if Instant::now() < deadline => {
            forward::pause_after_refusal(&group, &request).await;
            boxed(broker, group, request).await;
        }
        Err(failure) => {
            group.metrics.refused(&failure);
            let response: RemotingCommand = failure.to_response(&request.command);
            request.reply(response);
        }
    }
}

/// The same, where the type of the future must be known before it is.
fn boxed(
    broker: Arc<Broker>,
    group: Arc<Group>,
    request: Request,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(handle(broker, group, request))
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
    let (retry_queues, retry_max) = (known.retry_queues, known.retry_max_times);
    if retry_queues <= 0 {
        return Ok(());
    }
    let host = broker
        .routes
        .store_host(request.caller.listener, request.caller.node, group.id);
    let offset = PhysicalOffset::new(header.offset.max(0) as u64);
    let store = group.store.clone();
    let read = aside(move || store.message_at(offset, host)).await;
    let original = read
        .map_err(|e| Failure::code(ResponseCode::SYSTEM_ERROR, e.to_string()))?
        .map_err(|e| Failure::code(ResponseCode::SYSTEM_ERROR, e.to_string()))?;
    let Some(original) = original else {
        let reason = format!("there is no message at {offset}; it may have been removed");
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    };
    let message = MessageView::parse(&original)
        .map_err(|e| Failure::code(ResponseCode::SYSTEM_ERROR, e.to_string()))?;
    let times = message.reconsume_times();
    let most = header
        .max_reconsume_times
        .filter(|most| *most >= 0)
        .unwrap_or(retry_max);
    let (name, queues) = if times >= most || header.delay_level < 0 {
        (names_of::dead_letter_topic(header.group), 1)
    } else {
        (
            names_of::retry_topic(header.group),
            retry_queues.clamp(1, 1024) as u16,
        )
    };
    let topic = ensure_topic(group, &name, queues, deadline).await?;
    let queue_id = (original.len() as u64 + offset.get()) as u16 % topic.config.write_queues.max(1);
    let id = OffsetMessageId {
        host: host.into(),
        physical_offset: header.offset,
    };
    let properties = returned_properties(&message, &id.to_string());
    let copy = NewMessage {
        topic: &name,
        queue_id,
        flag: message.flag(),
        sys_flag: message.sys_flag(),
        born_timestamp: message.born_timestamp(),
        born_host: message.born_host(),
        reconsume_times: times + 1,
        prepared_offset: 0,
        body: message.body(),
        properties: properties.as_bytes(),
    };
    append(group, &topic, &copy, deadline).await
}

/// Properties of the copy: where the message came from, the first time it is handed back.
fn returned_properties(message: &MessageView<'_>, id: &str) -> String {
    let text = String::from_utf8_lossy(message.properties());
    let drop = [names::DELAY_LEVEL];
    let mut properties = Builder::from_text_without(&text, &drop);
    if message.property(names::RETRY_TOPIC).is_none() {
        properties.push(names::RETRY_TOPIC, message.topic());
    }
    if message.property(names::ORIGIN_MESSAGE_ID).is_none() {
        properties.push(names::ORIGIN_MESSAGE_ID, id);
    }
    properties.finish()
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
    topic: &Topic,
    copy: &NewMessage<'_>,
    deadline: Instant,
) -> Result<(), Failure> {
    let bytes = copy.body.len() + copy.properties.len() + OVERHEAD_BYTES;
    copy.encoded_len()
        .map_err(|e| Failure::code(ResponseCode::MESSAGE_ILLEGAL, e.to_string()))?;
    loop {
        let (tell, outcome) = tokio::sync::oneshot::channel();
        let encode = |batch: &mut BatchBuilder| {
            let head = RowHead {
                topic_id: topic.id,
                ..RowHead::default()
            };
            batch
                .push_message(head, copy)
                .expect("the size was checked above");
        };
        let done = Box::new(move |result| drop(tell.send(result)));
        match group.appender.submit((1, bytes), encode, done) {
            Ok(()) => return outcome.await.unwrap_or(Err(Failure::Stopped)).map(drop),
            Err((NotAdmitted::NotLeader, _)) => return Err(Failure::NotLeader),
            Err((NotAdmitted::TooLate(wait), _)) => return Err(too_late(wait)),
            Err((NotAdmitted::Full, _)) => {}
        }
        if timeout_at(deadline, group.appender.room()).await.is_err() {
            let reason = "broker busy: too many bytes of sends are under way";
            return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
        }
    }
}
