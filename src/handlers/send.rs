//! Sends: 10, 310, 320. The message goes into the group's open batch from here, and the answer goes
//! out when its record is applied; no task is made for a send that finds a leader and its topic.

use std::net::SocketAddrV4;
use std::sync::Arc;

use bytes::Bytes;
use gantry_protocol::headers::SendRequest;
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::properties::{self, names};
use gantry_protocol::{RemotingCommand, ResponseCode, batch, topic as names_of};
use gantry_storage::batch::{BatchBuilder, RowHead};
use gantry_storage::message::NewMessage;
use gantry_storage::tables::{PERM_WRITE, Topic};
use tokio::time::timeout_at;

use super::topics;
use crate::appender::{Appended, Done, NotAdmitted};
use crate::broker::Broker;
use crate::error::Failure;
use crate::forward;
use crate::group::Group;
use crate::remoting::Request;

/// RocketMQ's limit of a message's body, and of a batch's.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// RocketMQ's default region, which clients expect back.
const REGION: &str = "DefaultRegion";

/// Rows, hashes and heads that a message costs in the log beside its parts, about.
const OVERHEAD_BYTES: usize = 200;

/// A send whose header and sizes are right.
struct Checked {
    topic: String,
    default_topic: String,
    default_queues: i32,
    queue_id: i32,
    is_batch: bool,
    sys_flag: i32,
    born_timestamp: i64,
    reconsume_times: i32,
}

/// Takes a send. Returns when it is admitted or answered; waits only for room.
pub async fn handle(broker: &Arc<Broker>, group: &Arc<Group>, request: Request) {
    let checked = match check(&request) {
        Ok(checked) => checked,
        Err(failure) => return refuse(group, request, &failure),
    };
    if !group.leads() {
        return spawn_relay(broker.clone(), group.clone(), request);
    }
    let known = group.store.tables().topic(&checked.topic);
    match known {
        Some(topic) => submit(broker, group, &topic, &checked, request).await,
        None => {
            let (broker, group) = (broker.clone(), group.clone());
            tokio::spawn(async move {
                match create_topic(&broker, &group, &checked, &request).await {
                    Ok(topic) => submit(&broker, &group, &topic, &checked, request).await,
                    Err(failure) => refuse(&group, request, &failure),
                }
            });
        }
    }
}

fn refuse(group: &Group, request: Request, failure: &Failure) {
    group.metrics.refused(failure);
    let response = failure.to_response(&request.command);
    request.reply(response);
}

/// Takes the send to the leader, or holds it until there is one. On a forwarded request the other
/// node does that.
fn spawn_relay(broker: Arc<Broker>, group: Arc<Group>, request: Request) {
    let Some(request) = request.refuse_if_forwarded() else {
        return;
    };
    tokio::spawn(async move {
        let again = {
            let (broker, group) = (broker, group.clone());
            move |request: Request| {
                tokio::spawn(async move { Box::pin(handle(&broker, &group, request)).await });
            }
        };
        forward::relay(group, request, again).await;
    });
}

fn check(request: &Request) -> Result<Checked, Failure> {
    let header = SendRequest::parse(request.code(), &request.command.fields)?;
    let illegal = |reason: String| Failure::code(ResponseCode::MESSAGE_ILLEGAL, reason);
    names_of::check_topic(header.topic).map_err(|error| {
        let reason = format!("topic {:?}: {error}", header.topic);
        Failure::code(ResponseCode::INVALID_PARAMETER, reason)
    })?;
    if !names_of::is_sendable(header.topic) {
        let reason = format!("topic {} takes no messages from clients", header.topic);
        return Err(Failure::code(ResponseCode::NO_PERMISSION, reason));
    }
    let body_bytes = request.command.body.len();
    if body_bytes == 0 {
        return Err(illegal("the message has no body".to_string()));
    }
    if body_bytes > BODY_BYTES_MAX {
        return Err(illegal(format!(
            "a body of {body_bytes} bytes is over {BODY_BYTES_MAX}"
        )));
    }
    let text = header.properties.unwrap_or_default();
    if text.len() > properties::PROPERTIES_BYTES_MAX {
        let limit = properties::PROPERTIES_BYTES_MAX;
        return Err(illegal(format!(
            "properties of {} bytes are over {limit}",
            text.len()
        )));
    }
    check_supported(&header, text)?;
    Ok(Checked {
        topic: header.topic.to_string(),
        default_topic: header.default_topic.to_string(),
        default_queues: header.default_topic_queue_nums,
        queue_id: header.queue_id,
        is_batch: header.is_batch(),
        sys_flag: header.sys_flag,
        born_timestamp: header.born_timestamp,
        reconsume_times: header.reconsume_times.unwrap_or(0),
    })
}

/// What is not there yet is refused: a delayed message that came at once would be served wrong. A
/// consumer's own retry carries a delay that only says when it would like it back.
fn check_supported(header: &SendRequest<'_>, text: &str) -> Result<(), Failure> {
    if names_of::group_of_retry_topic(header.topic).is_some() {
        return Ok(());
    }
    for (name, value) in properties::iter(text) {
        let feature = match name {
            names::DELAY_LEVEL if value != "0" => "delay levels",
            names::TIMER_DELAY_SEC | names::TIMER_DELAY_MS | names::TIMER_DELIVER_MS => "timers",
            names::TRANSACTION_PREPARED if value.eq_ignore_ascii_case("true") => "transactions",
            _ => continue,
        };
        let reason = format!("{feature} are not supported by this version of the broker");
        return Err(Failure::code(ResponseCode::MESSAGE_ILLEGAL, reason));
    }
    Ok(())
}

async fn create_topic(
    broker: &Arc<Broker>,
    group: &Arc<Group>,
    checked: &Checked,
    request: &Request,
) -> Result<Arc<Topic>, Failure> {
    let deadline = request.caller.received + forward::hold_budget(request.code());
    let wanted = topics::AutoCreate {
        topic: &checked.topic,
        default_topic: &checked.default_topic,
        queues: checked.default_queues,
    };
    topics::auto_create(broker, group, wanted, deadline).await
}

/// A message's parts as they will be stored, apart from the request they came in.
struct Part {
    flag: i32,
    body: Bytes,
    properties: Vec<u8>,
}

/// What is the same for all messages of a send.
struct Shape {
    topic: Arc<Topic>,
    queue_id: u16,
    sys_flag: i32,
    born_timestamp: i64,
    reconsume_times: i32,
}

async fn submit(
    broker: &Arc<Broker>,
    group: &Arc<Group>,
    topic: &Arc<Topic>,
    checked: &Checked,
    request: Request,
) {
    let prepared = choose_queue(topic, checked.queue_id)
        .and_then(|queue_id| Ok((queue_id, prepare(broker, checked, &request)?)));
    let (queue_id, parts) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return refuse(group, request, &failure),
    };
    let shape = Shape {
        topic: topic.clone(),
        queue_id,
        sys_flag: checked.sys_flag,
        born_timestamp: checked.born_timestamp,
        reconsume_times: checked.reconsume_times,
    };
    let born_host = request.caller.peer;
    let bytes = parts
        .iter()
        .map(|p| p.body.len() + p.properties.len() + OVERHEAD_BYTES)
        .sum();
    if let Some(reason) = group.disk.refuses(bytes) {
        let failure = Failure::code(ResponseCode::SERVICE_NOT_AVAILABLE, reason);
        return refuse(group, request, &failure);
    }
    let deadline = request.caller.received + forward::hold_budget(request.code());
    let mut done = answer_when_done(broker, group, request, &shape, bytes);
    loop {
        let encode = |batch: &mut BatchBuilder| {
            for part in &parts {
                push(batch, &shape, part, born_host);
            }
        };
        match group.appender.submit((parts.len(), bytes), encode, done) {
            Ok(()) => return,
            Err((NotAdmitted::NotLeader, back)) => return back(Err(Failure::NotLeader)),
            Err((NotAdmitted::Full, back)) => done = back,
        }
        if timeout_at(deadline, group.appender.room()).await.is_err() {
            let reason = "broker busy: as many bytes of sends are under way as \
                          broker.send_bytes_max allows; send more slowly or raise it";
            return done(Err(Failure::code(
                ResponseCode::SERVICE_NOT_AVAILABLE,
                reason,
            )));
        }
    }
}

fn push(batch: &mut BatchBuilder, shape: &Shape, part: &Part, born_host: std::net::SocketAddr) {
    let message = NewMessage {
        topic: &shape.topic.config.name,
        queue_id: shape.queue_id,
        flag: part.flag,
        sys_flag: shape.sys_flag,
        born_timestamp: shape.born_timestamp,
        born_host,
        reconsume_times: shape.reconsume_times,
        prepared_offset: 0,
        body: &part.body,
        properties: &part.properties,
    };
    let head = RowHead {
        topic_id: shape.topic.id,
        ..RowHead::default()
    };
    batch
        .push_message(head, &message)
        .expect("sizes were checked when the send came in");
}

/// The queue asked for, or one at random for a negative number.
fn choose_queue(topic: &Topic, wanted: i32) -> Result<u16, Failure> {
    let config = &topic.config;
    if config.perm & PERM_WRITE == 0 {
        let reason = format!("topic {} may not be written", config.name);
        return Err(Failure::code(ResponseCode::NO_PERMISSION, reason));
    }
    let queues = config.write_queues.max(config.read_queues);
    if wanted < 0 {
        let any = std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .subsec_nanos();
        return Ok((any % u32::from(config.write_queues.max(1))) as u16);
    }
    match u16::try_from(wanted) {
        Ok(queue) if queue < queues => Ok(queue),
        _ => {
            let reason = format!(
                "topic {} has {queues} queues, not a queue {wanted}",
                config.name
            );
            Err(Failure::code(ResponseCode::INVALID_PARAMETER, reason))
        }
    }
}

/// The messages of a send with the properties that the broker adds.
fn prepare(broker: &Broker, checked: &Checked, request: &Request) -> Result<Vec<Part>, Failure> {
    let header = SendRequest::parse(request.code(), &request.command.fields)?;
    let body = &request.command.body;
    if !checked.is_batch {
        let properties = complete(broker, header.properties.unwrap_or_default())?;
        return Ok(vec![Part {
            flag: header.flag,
            body: body.clone(),
            properties,
        }]);
    }
    if names_of::group_of_retry_topic(&checked.topic).is_some() {
        let reason = "a retry topic takes no batches";
        return Err(Failure::code(ResponseCode::MESSAGE_ILLEGAL, reason));
    }
    let mut parts = Vec::new();
    for message in batch::decode(body) {
        let message =
            message.map_err(|e| Failure::code(ResponseCode::MESSAGE_ILLEGAL, e.to_string()))?;
        check_supported(&header, message.properties)?;
        parts.push(Part {
            flag: message.flag,
            body: body.slice_ref(message.body),
            properties: complete(broker, message.properties)?,
        });
    }
    if parts.is_empty() {
        return Err(Failure::code(
            ResponseCode::MESSAGE_ILLEGAL,
            "the batch holds no message",
        ));
    }
    Ok(parts)
}

/// Adds what RocketMQ's broker adds: region, trace switch, cluster, and a unique key if none is there.
fn complete(broker: &Broker, text: &str) -> Result<Vec<u8>, Failure> {
    let mut complete = Vec::with_capacity(text.len() + 128);
    complete.extend_from_slice(text.as_bytes());
    let mut add = |name: &str, value: &str| {
        if properties::get(text, name).is_none() {
            gantry_storage::message::push_property(&mut complete, name, value);
        }
    };
    add(names::MSG_REGION, REGION);
    add(names::TRACE_ON, "true");
    add(names::CLUSTER, &broker.config.cluster);
    if properties::get(text, names::UNIQ_KEY).is_none() {
        add(names::UNIQ_KEY, &broker.next_unique_key());
    }
    let limit = properties::PROPERTIES_BYTES_MAX;
    if complete.len() > limit {
        let reason = format!("with those that the broker adds, properties are over {limit} bytes");
        return Err(Failure::code(ResponseCode::MESSAGE_ILLEGAL, reason));
    }
    Ok(complete)
}

fn answer_when_done(
    broker: &Arc<Broker>,
    group: &Arc<Group>,
    request: Request,
    shape: &Shape,
    bytes: usize,
) -> Done {
    let (broker, group) = (broker.clone(), group.clone());
    let (topic, queue_id) = (shape.topic.clone(), shape.queue_id);
    let host = broker
        .routes
        .store_host(request.caller.listener, request.caller.node, group.id);
    Box::new(move |outcome| match outcome {
        Ok(appended) => {
            let name = &topic.config.name;
            let is_system = names_of::is_system(name);
            let count = appended.len() as u64;
            group
                .metrics
                .messages_in(name, is_system, count, bytes as u64);
            let response = format_answer(&request, &appended, queue_id, host);
            request.reply(response);
        }
        Err(Failure::NotLeader) => spawn_relay(broker, group, request),
        Err(failure) => refuse(&group, request, &failure),
    })
}

fn format_answer(
    request: &Request,
    appended: &[Appended],
    queue_id: u16,
    host: SocketAddrV4,
) -> RemotingCommand {
    use std::fmt::Write;
    let mut ids = String::with_capacity(appended.len() * 33);
    let mut first = None;
    for one in appended {
        let Appended::At {
            queue_offset,
            physical_offset,
        } = one
        else {
            let gone = Failure::code(ResponseCode::TOPIC_NOT_EXIST, "the topic was just deleted");
            return gone.to_response(&request.command);
        };
        first.get_or_insert(*queue_offset);
        if !ids.is_empty() {
            ids.push(',');
        }
        let id = OffsetMessageId {
            host: host.into(),
            physical_offset: physical_offset.get() as i64,
        };
        write!(ids, "{id}").expect("writing to a string cannot fail");
    }
    let mut response = RemotingCommand::success_to(&request.command);
    let header = gantry_protocol::headers::SendResponse {
        msg_id: &ids,
        queue_id: i32::from(queue_id),
        queue_offset: first.unwrap_or(0) as i64,
        region: Some(REGION),
        trace_on: Some(true),
        ..Default::default()
    };
    header.write(&mut response.fields);
    response
}
