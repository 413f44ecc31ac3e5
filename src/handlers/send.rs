//! Sends: 10, 310, 320. The message goes into the group's open batch from here, and the answer goes
//! out when its record is applied; no task is made for a send that finds a leader and its topic.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

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
use crate::message_types;
use crate::permissions;
use crate::remoting::Request;

/// RocketMQ's limit of a message's body, and of a batch's.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// RocketMQ's default region, which clients expect back.
const REGION: &str = "DefaultRegion";

/// How long a send waits for room among the bytes under way, from the moment it was read: as long as RocketMQ
/// lets one wait in its queue. What was read behind it has waited as long, and is refused at once.
const ROOM_WAIT: Duration = Duration::from_millis(200);

/// Rows, hashes and heads that a message costs in the log beside its parts, about.
const OVERHEAD_BYTES: usize = 200;

/// The properties that the broker adds to a message, about.
const ADDED_BYTES: usize = 128;

/// A send whose header and sizes are right, borrowed from its request.
struct Checked<'r> {
    header: SendRequest<'r>,
    given: Given,
}

/// What becomes of a send.
enum Step {
    Append(Accepted),
    CreateTopic,
    Relay,
}

/// Takes a send. Returns when it is admitted or answered; waits only for room.
pub async fn handle(broker: &Arc<Broker>, group: &Arc<Group>, request: Request) {
    match next_step(broker, group, &request) {
        Ok(Step::Append(accepted)) => submit(broker, group, accepted, request).await,
        Ok(Step::Relay) => spawn_relay(broker.clone(), group.clone(), request, false),
        Ok(Step::CreateTopic) => {
            let (broker, group) = (broker.clone(), group.clone());
            tokio::spawn(async move {
                match create_topic(&broker, &group, &request).await {
                    Ok(accepted) => submit(&broker, &group, accepted, request).await,
                    Err(failure) => refuse(&group, request, &failure),
                }
            });
        }
        Err(failure) => refuse(group, request, &failure),
    }
}

fn next_step(broker: &Broker, group: &Group, request: &Request) -> Result<Step, Failure> {
    let checked = check(request)?;
    if !group.leads() {
        return Ok(Step::Relay);
    }
    let known = group.store.tables().topic(checked.header.topic);
    match known {
        Some(topic) => {
            check_broker_permission(group, &topic)?;
            accept(broker, topic, &checked, request).map(Step::Append)
        }
        None => Ok(Step::CreateTopic),
    }
}

/// RocketMQ refuses ordered topics alone: producers of the others see the routes and go elsewhere, and what
/// still comes is written.
fn check_broker_permission(group: &Group, topic: &Topic) -> Result<(), Failure> {
    let writable = || permissions::of_broker(&group.store.tables()) & PERM_WRITE != 0;
    if topic.config.order && !writable() {
        let reason = format!(
            "the broker {} takes no messages of ordered topics now",
            group.name
        );
        return Err(Failure::code(ResponseCode::NO_PERMISSION, reason));
    }
    Ok(())
}

fn refuse(group: &Group, request: Request, failure: &Failure) {
    group.metrics.refused(failure);
    let response = failure.to_response(&request.command);
    request.reply(response);
}

/// Takes the send to the leader, or holds it until there is one. On a forwarded request the other
/// node does that. One that `came_back` was refused by this node as its leader.
fn spawn_relay(broker: Arc<Broker>, group: Arc<Group>, request: Request, came_back: bool) {
    let Some(request) = request.refuse_if_forwarded() else {
        return;
    };
    tokio::spawn(async move {
        if came_back {
            forward::pause_after_refusal(&group, &request).await;
        }
        let again = {
            let (broker, group) = (broker, group.clone());
            move |request: Request| {
                tokio::spawn(async move { Box::pin(handle(&broker, &group, request)).await });
            }
        };
        forward::relay(group, request, again).await;
    });
}

fn check(request: &Request) -> Result<Checked<'_>, Failure> {
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
    let given = Given::of(text);
    check_supported(&header, &given)?;
    Ok(Checked { header, given })
}

/// What is not there yet is refused: a delayed message that came at once would be served wrong. A
/// consumer's own retry carries a delay that only says when it would like it back.
fn check_supported(header: &SendRequest<'_>, given: &Given) -> Result<(), Failure> {
    let Some(feature) = given.unsupported else {
        return Ok(());
    };
    if names_of::group_of_retry_topic(header.topic).is_some() {
        return Ok(());
    }
    let reason = format!("{feature} are not supported by this version of the broker");
    Err(Failure::code(ResponseCode::MESSAGE_ILLEGAL, reason))
}

/// Which properties with a meaning to the broker a message came with, from one pass over them.
#[derive(Default)]
struct Given {
    region: bool,
    trace_on: bool,
    cluster: bool,
    unique_key: bool,
    /// The first feature asked for that is not there yet.
    unsupported: Option<&'static str>,
}

impl Given {
    fn of(text: &str) -> Self {
        let mut given = Given::default();
        for (name, value) in properties::iter(text) {
            let feature = match name {
                names::MSG_REGION => {
                    given.region = true;
                    continue;
                }
                names::TRACE_ON => {
                    given.trace_on = true;
                    continue;
                }
                names::CLUSTER => {
                    given.cluster = true;
                    continue;
                }
                names::UNIQ_KEY => {
                    given.unique_key = true;
                    continue;
                }
                names::DELAY_LEVEL if value != "0" => "delay levels",
                names::TIMER_DELAY_SEC | names::TIMER_DELAY_MS | names::TIMER_DELIVER_MS => {
                    "timers"
                }
                names::TRANSACTION_PREPARED if value.eq_ignore_ascii_case("true") => "transactions",
                _ => continue,
            };
            given.unsupported.get_or_insert(feature);
        }
        given
    }
}

async fn create_topic(
    broker: &Arc<Broker>,
    group: &Arc<Group>,
    request: &Request,
) -> Result<Accepted, Failure> {
    let checked = check(request)?;
    let deadline = request.caller.received + forward::hold_budget(request.code());
    let wanted = topics::AutoCreate {
        topic: checked.header.topic,
        default_topic: checked.header.default_topic,
        queues: checked.header.default_topic_queue_nums,
    };
    let topic = topics::auto_create(broker, group, wanted, deadline).await?;
    accept(broker, topic, &checked, request)
}

/// A send with all that will be stored of it, apart from the request it came in.
struct Accepted {
    topic: Arc<Topic>,
    queue_id: u16,
    sys_flag: i32,
    born_timestamp: i64,
    reconsume_times: i32,
    messages: Messages,
}

/// The messages of a send: nearly always one, which needs no list.
enum Messages {
    One(Part),
    Batch(Vec<Part>),
}

/// What one message has of its own.
struct Part {
    flag: i32,
    body: Bytes,
    properties: Vec<u8>,
}

impl Accepted {
    fn parts(&self) -> &[Part] {
        match &self.messages {
            Messages::One(part) => std::slice::from_ref(part),
            Messages::Batch(parts) => parts,
        }
    }

    /// Bytes that it takes in the log, about.
    fn bytes(&self) -> usize {
        let bytes_of = |part: &Part| part.body.len() + part.properties.len() + OVERHEAD_BYTES;
        self.parts().iter().map(bytes_of).sum()
    }
}

async fn submit(broker: &Arc<Broker>, group: &Arc<Group>, accepted: Accepted, request: Request) {
    let bytes = accepted.bytes();
    if let Some(reason) = group.disk.refuses(bytes) {
        let failure = Failure::code(ResponseCode::SERVICE_NOT_AVAILABLE, reason);
        return refuse(group, request, &failure);
    }
    let born_host = request.caller.peer;
    let deadline = request.caller.received + ROOM_WAIT;
    let mut done = answer_when_done(broker, group, request, &accepted);
    loop {
        let encode = |batch: &mut BatchBuilder| {
            for part in accepted.parts() {
                push(batch, &accepted, part, born_host);
            }
        };
        let size = (accepted.parts().len(), bytes);
        match group.appender.submit(size, encode, done) {
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

fn push(batch: &mut BatchBuilder, send: &Accepted, part: &Part, born_host: SocketAddr) {
    let message = NewMessage {
        topic: &send.topic.config.name,
        queue_id: send.queue_id,
        flag: part.flag,
        sys_flag: send.sys_flag,
        born_timestamp: send.born_timestamp,
        born_host,
        reconsume_times: send.reconsume_times,
        prepared_offset: 0,
        body: &part.body,
        properties: &part.properties,
    };
    let head = RowHead {
        topic_id: send.topic.id,
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

/// The send as it will be stored, with the properties that the broker adds.
fn accept(
    broker: &Broker,
    topic: Arc<Topic>,
    checked: &Checked<'_>,
    request: &Request,
) -> Result<Accepted, Failure> {
    let header = &checked.header;
    let queue_id = choose_queue(&topic, header.queue_id)?;
    let body = &request.command.body;
    let messages = if header.is_batch() {
        Messages::Batch(unpack(broker, &topic, header, body)?)
    } else {
        message_types::check(&topic.config, header.properties.unwrap_or_default())?;
        Messages::One(Part {
            flag: header.flag,
            body: body.clone(),
            properties: complete(
                broker,
                header.properties.unwrap_or_default(),
                &checked.given,
            )?,
        })
    };
    Ok(Accepted {
        topic,
        queue_id,
        sys_flag: header.sys_flag,
        born_timestamp: header.born_timestamp,
        reconsume_times: header.reconsume_times.unwrap_or(0),
        messages,
    })
}

/// The messages of a batch.
fn unpack(
    broker: &Broker,
    topic: &Topic,
    header: &SendRequest<'_>,
    body: &Bytes,
) -> Result<Vec<Part>, Failure> {
    if names_of::group_of_retry_topic(header.topic).is_some() {
        let reason = "a retry topic takes no batches";
        return Err(Failure::code(ResponseCode::MESSAGE_ILLEGAL, reason));
    }
    let mut parts = Vec::new();
    for message in batch::decode(body) {
        let message =
            message.map_err(|e| Failure::code(ResponseCode::MESSAGE_ILLEGAL, e.to_string()))?;
        let given = Given::of(message.properties);
        check_supported(header, &given)?;
        message_types::check(&topic.config, message.properties)?;
        parts.push(Part {
            flag: message.flag,
            body: body.slice_ref(message.body),
            properties: complete(broker, message.properties, &given)?,
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
fn complete(broker: &Broker, text: &str, given: &Given) -> Result<Vec<u8>, Failure> {
    let mut complete = Vec::with_capacity(text.len() + ADDED_BYTES);
    complete.extend_from_slice(text.as_bytes());
    let mut add = |is_given: bool, name: &str, value: &str| {
        if !is_given {
            gantry_storage::message::push_property(&mut complete, name, value);
        }
    };
    add(given.region, names::MSG_REGION, REGION);
    add(given.trace_on, names::TRACE_ON, "true");
    add(given.cluster, names::CLUSTER, &broker.config.cluster);
    if !given.unique_key {
        add(false, names::UNIQ_KEY, &broker.next_unique_key());
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
    accepted: &Accepted,
) -> Done {
    let (broker, group) = (broker.clone(), group.clone());
    let (topic, queue_id) = (accepted.topic.clone(), accepted.queue_id);
    let bytes = accepted.bytes();
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
        Err(Failure::NotLeader) => spawn_relay(broker, group, request, true),
        Err(failure) => refuse(&group, request, &failure),
    })
}

fn format_answer(
    request: &Request,
    appended: &[Appended],
    queue_id: u16,
    host: SocketAddrV4,
) -> RemotingCommand {
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
        id.append_to(&mut ids);
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
