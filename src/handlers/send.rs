//! Sends: 10, 310, 320. The message goes into the group's open batch from here, and the answer goes
//! out when its record is applied; no task is made for a send that finds a leader and its topic.

mod answer;
mod given;
mod queues;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_protocol::headers::SendRequest;
use gantry_protocol::properties::{self, names};
use gantry_protocol::{RemotingCommand, ResponseCode, batch, topic as names_of};
use gantry_storage::batch::{BatchBuilder, RowHead};
use gantry_storage::message::{FLAG_TRANSACTION_MASK, NewMessage};
use gantry_storage::tables::{
    Command, GIVEN_UP_MS, Once, PERM_WRITE, SubscriptionGroupConfig, Topic,
};
use tokio::time::timeout_at;

use self::answer::{REGION, Told, told};
use self::given::Given;
use self::queues::choose_queue;
use super::topics;
use crate::appender::{Appended, Done, NotAdmitted, OVERHEAD_BYTES, too_late};
use crate::broker::Broker;
use crate::catalog;
use crate::delays::Wishes;
use crate::error::Failure;
use crate::forward;
use crate::group::Group;
use crate::idempotent;
use crate::message_types;
use crate::permissions;
use crate::recalls;
use crate::remoting::Request;
use crate::waiting::Waits;

/// RocketMQ's limit of a message's body, and of a batch's.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a send waits for room among the bytes under way, from the moment it was read: a commit or two, so
/// that a refusal comes within 10 ms. What was read behind it has waited as long, and is refused at once.
const ROOM_WAIT: Duration = Duration::from_millis(5);

/// The properties that the broker adds to a message, about.
const ADDED_BYTES: usize = 192;

/// A send whose header and sizes are right, borrowed from its request.
struct Checked<'r> {
    header: SendRequest<'r>,
    /// Where the message goes: the header's topic, or dead letters.
    topic: Cow<'r, str>,
    given: Given,
}

/// What becomes of a send.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every send is of that variant, and a box would cost each of them"
)]
enum Step {
    Append(Accepted),
    CreateTopic,
    /// It belongs to this group, whichever the client chose.
    Elsewhere(Arc<Group>),
    /// It takes back another message.
    Cancel,
    Relay,
}

/// Takes a send. Returns when it is admitted or answered; waits only for room.
pub async fn handle(broker: &Arc<Broker>, group: &Arc<Group>, request: Request) {
    match next_step(broker, group, &request) {
        Ok(Step::Elsewhere(home)) => {
            // A node that has not heard of the topic's attribute forwards to the leader of the wrong group,
            // and one more hop is due.
            match next_step(broker, &home, &request) {
                Ok(Step::Relay) => relay(broker.clone(), home, request, false),
                step => take(broker, &home, request, step).await,
            }
        }
        step => take(broker, group, request, step).await,
    }
}

async fn take(
    broker: &Arc<Broker>,
    group: &Arc<Group>,
    request: Request,
    step: Result<Step, Failure>,
) {
    match step {
        Ok(Step::Append(accepted)) => submit(broker, group, accepted, request).await,
        Ok(Step::Cancel) => {
            let group = group.clone();
            tokio::spawn(async move {
                match cancel(&group, &request).await {
                    Ok(response) => request.reply(response),
                    Err(failure) => refuse(&group, request, &failure),
                }
            });
        }
        Ok(Step::Relay | Step::Elsewhere(_)) => {
            spawn_relay(broker.clone(), group.clone(), request, false);
        }
        Ok(Step::CreateTopic) => spawn_create(broker.clone(), group.clone(), request),
        Err(failure) => refuse(group, request, &failure),
    }
}

fn next_step(broker: &Broker, group: &Group, request: &Request) -> Result<Step, Failure> {
    let mut checked = check(request)?;
    let mut known = group.store.tables().topic(&checked.topic);
    if let Some(topic) = &known
        && let Some(home) = idempotent::elsewhere(&broker.groups, group, &topic.config)
    {
        return Ok(Step::Elsewhere(home.clone()));
    }
    if !group.leads() {
        return Ok(Step::Relay);
    }
    redirect(broker, group, &mut checked)?;
    if checked.given.wishes.cancels() && waits((broker, group), &checked)?.is_some() {
        return Ok(Step::Cancel);
    }
    if checked.topic != checked.header.topic {
        known = group.store.tables().topic(&checked.topic);
    }
    match known {
        Some(topic) => {
            check_broker_permission(group, &topic)?;
            accept((broker, group), topic, &checked, request).map(Step::Append)
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

/// Takes back the message that a timer message names.
async fn cancel(group: &Group, request: &Request) -> Result<RemotingCommand, Failure> {
    let header = SendRequest::parse(request.code(), &request.command.fields)?;
    let text = header.properties.unwrap_or_default();
    let named = properties::get(text, names::TIMER_DEL_UNIQKEY).unwrap_or_default();
    let unique_key = recalls::named_key(header.topic, named);
    let deadline = request.caller.received + forward::hold_budget(request.code());
    let place = recalls::find(group, (header.topic, unique_key), None, deadline).await?;
    recalls::cancel(group, place, deadline).await?;
    let mut response = RemotingCommand::success_to(&request.command);
    let answer = gantry_protocol::headers::SendResponse {
        msg_id: unique_key,
        queue_id: header.queue_id,
        region: Some(REGION),
        trace_on: Some(true),
        ..Default::default()
    };
    answer.write(&mut response.fields);
    Ok(response)
}

/// Takes the send to the leader, or holds it until there is one. On a forwarded request the other
/// node does that. One that `came_back` was refused by this node as its leader.
fn spawn_relay(broker: Arc<Broker>, group: Arc<Group>, request: Request, came_back: bool) {
    if let Some(request) = request.refuse_if_forwarded() {
        relay(broker, group, request, came_back);
    }
}

fn relay(broker: Arc<Broker>, group: Arc<Group>, request: Request, came_back: bool) {
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
    Ok(Checked {
        topic: Cow::Borrowed(header.topic),
        header,
        given,
    })
}

/// A consumer that could not send a message back sends it to its group's retry topic itself. One that was
/// delivered often enough goes to the dead letters, and so does one of a group that consumes in order: its
/// consumer has given up.
fn redirect(broker: &Broker, group: &Group, checked: &mut Checked<'_>) -> Result<(), Failure> {
    let header = &checked.header;
    let Some(consumer) = names_of::group_of_retry_topic(header.topic) else {
        return Ok(());
    };
    let tables = group.store.tables();
    let settings = match tables.group(consumer) {
        Some(settings) => settings,
        None if broker.config.broker.auto_create_group => {
            Arc::new(SubscriptionGroupConfig::new(consumer))
        }
        None => {
            let reason = format!("consumer group {consumer} does not exist");
            return Err(Failure::code(
                ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
                reason,
            ));
        }
    };
    let most = header
        .max_reconsume_times
        .unwrap_or(settings.retry_max_times);
    if header.reconsume_times.unwrap_or(0) > most || tables.is_locked(consumer) {
        checked.topic = Cow::Owned(names_of::dead_letter_topic(consumer));
        checked.given.wishes = Wishes::default();
    }
    Ok(())
}

fn spawn_create(broker: Arc<Broker>, group: Arc<Group>, request: Request) {
    tokio::spawn(async move {
        match create_topic(&broker, &group, &request).await {
            // The topic may belong elsewhere.
            Ok(()) => Box::pin(handle(&broker, &group, request)).await,
            Err(failure) => refuse(&group, request, &failure),
        }
    });
}

async fn create_topic(
    broker: &Arc<Broker>,
    group: &Arc<Group>,
    request: &Request,
) -> Result<(), Failure> {
    let mut checked = check(request)?;
    redirect(broker, group, &mut checked)?;
    let deadline = request.caller.received + forward::hold_budget(request.code());
    if let Some(config) = idempotent::settings(&broker.groups, &checked.topic) {
        return catalog::create_if_absent(group, &config, deadline).await;
    }
    let wanted = topics::AutoCreate {
        topic: &checked.topic,
        default_topic: checked.header.default_topic,
        queues: checked.header.default_topic_queue_nums,
    };
    topics::auto_create(broker, group, wanted, deadline).await?;
    Ok(())
}

/// A send with all that will be stored of it, apart from the request it came in.
struct Accepted {
    topic: Arc<Topic>,
    queue_id: u16,
    sys_flag: i32,
    born_timestamp: i64,
    reconsume_times: i32,
    messages: Messages,
    /// Where it waits, if it is not to come at once.
    waits: Option<Waits>,
    told: Told,
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
    /// What keeps a copy of it out of an idempotent topic.
    once: Option<Box<Once>>,
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
            Err((NotAdmitted::TooLate(wait), back)) => return back(Err(too_late(wait))),
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
    let (topic, queue_id) = match &send.waits {
        None => (&send.topic, send.queue_id),
        Some(waits) => (&waits.topic, waits.queue),
    };
    let message = NewMessage {
        topic: &topic.config.name,
        queue_id,
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
        topic_id: topic.id,
        ..RowHead::default()
    };
    let pushed = match &send.waits {
        None => batch.push_message(head, &message),
        Some(waits) => batch.push_with_tags_code(waits.head(), &message, waits.tags_code()),
    };
    let row = pushed.expect("sizes were checked when the send came in") as u32;
    if let Some(once) = &part.once {
        let once = Once { row, ..**once };
        batch.push_command(&Command::StoreOnce { once });
    }
}

/// The send as it will be stored, with the properties that the broker adds.
fn accept(
    (broker, group): (&Broker, &Group),
    topic: Arc<Topic>,
    checked: &Checked<'_>,
    request: &Request,
) -> Result<Accepted, Failure> {
    let header = &checked.header;
    let queue_id = choose_queue(&topic, header.queue_id)?;
    let body = &request.command.body;
    let mut accepted = Accepted {
        topic,
        queue_id,
        sys_flag: header.sys_flag,
        born_timestamp: header.born_timestamp,
        reconsume_times: header.reconsume_times.unwrap_or(0),
        messages: Messages::Batch(Vec::new()),
        waits: None,
        told: Told::default(),
    };
    if header.is_batch() {
        accepted.messages =
            Messages::Batch(unpack(broker, (&accepted.topic, queue_id), header, body)?);
        return Ok(accepted);
    }
    let text = header.properties.unwrap_or_default();
    message_types::check(&accepted.topic.config, text)?;
    accepted.waits = waits((broker, group), checked)?;
    let mut added = Vec::new();
    if let Some(waits) = &accepted.waits {
        added = waits.properties(&accepted.topic.config.name, queue_id);
        if waits.is_half() {
            accepted.sys_flag &= !FLAG_TRANSACTION_MASK;
        }
    }
    let mut properties = complete(broker, text, &checked.given, &added)?;
    if let Some(waits) = &accepted.waits {
        let of = (accepted.topic.config.name.as_str(), group.name.as_str());
        accepted.told = told(waits, of, &properties);
        if let Some(id) = &accepted.told.transaction_id {
            gantry_storage::message::push_property(&mut properties, names::TRANSACTION_ID, id);
            check_completed(&properties)?;
        }
    }
    accepted.messages = Messages::One(Part {
        flag: header.flag,
        body: body.clone(),
        properties,
        once: idempotent::once(&accepted.topic, queue_id, text, body).map(Box::new),
    });
    Ok(accepted)
}

/// Where a message waits, if it does. The clock is only asked if it says anything about that.
fn waits(
    (broker, group): (&Broker, &Group),
    checked: &Checked<'_>,
) -> Result<Option<Waits>, Failure> {
    let (header, given) = (&checked.header, &checked.given);
    let settings = &broker.config.broker;
    if given.is_half(header.reconsume_times.unwrap_or(0)) {
        let immunity_ms = given.immunity_seconds.unwrap_or(0).saturating_mul(1000);
        let wait_ms = immunity_ms.max(settings.checks.timeout.as_millis() as u64);
        let check_ms = group.now_ms(&broker.clock).saturating_add(wait_ms);
        return Waits::half(group, check_ms.min(GIVEN_UP_MS - 1)).map(Some);
    }
    if !given.wishes.any() {
        return Ok(None);
    }
    let now_ms = group.now_ms(&broker.clock);
    Waits::until(group, settings.delays.when(&given.wishes, now_ms)?)
}

/// The messages of a batch.
fn unpack(
    broker: &Broker,
    (topic, queue_id): (&Topic, u16),
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
        if given.waits() {
            let reason = "delayed and half messages are sent one by one, not in a batch";
            return Err(Failure::code(ResponseCode::MESSAGE_ILLEGAL, reason));
        }
        message_types::check(&topic.config, message.properties)?;
        parts.push(Part {
            flag: message.flag,
            body: body.slice_ref(message.body),
            properties: complete(broker, message.properties, &given, &[])?,
            once: idempotent::once(topic, queue_id, message.properties, message.body).map(Box::new),
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

/// Adds what RocketMQ's broker adds: region, trace switch, cluster, and a unique key if none is there; and
/// what a message carries that waits.
fn complete(
    broker: &Broker,
    text: &str,
    given: &Given,
    added: &[(&str, String)],
) -> Result<Vec<u8>, Failure> {
    let mut complete = Vec::with_capacity(text.len() + ADDED_BYTES);
    if given.receipt_handle {
        let kept = properties::iter(text).filter(|(name, _)| *name != names::POP_CK);
        for (name, value) in kept {
            gantry_storage::message::push_property(&mut complete, name, value);
        }
    } else {
        complete.extend_from_slice(text.as_bytes());
    }
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
    for (name, value) in added {
        add(false, name, value);
    }
    check_completed(&complete)?;
    Ok(complete)
}

fn check_completed(properties: &[u8]) -> Result<(), Failure> {
    let limit = properties::PROPERTIES_BYTES_MAX;
    if properties.len() > limit {
        let reason = format!("with those that the broker adds, properties are over {limit} bytes");
        return Err(Failure::code(ResponseCode::MESSAGE_ILLEGAL, reason));
    }
    Ok(())
}

fn answer_when_done(
    broker: &Arc<Broker>,
    group: &Arc<Group>,
    request: Request,
    accepted: &Accepted,
) -> Done {
    let (broker, group) = (broker.clone(), group.clone());
    let (topic, queue_id) = (accepted.topic.clone(), accepted.queue_id);
    let mut told = accepted.told.clone();
    let bytes = accepted.bytes();
    let host = broker
        .routes
        .store_host(request.caller.listener, request.caller.node, group.id);
    Box::new(move |outcome| match outcome {
        Ok(appended) => {
            let name = &topic.config.name;
            let is_system = names_of::is_system(name);
            let copies = appended.iter().filter_map(Appended::first_copy);
            let copies = copies.inspect(|first| told.of_copy(&group, *first)).count();
            group.metrics.idempotent.copies.inc_by(copies as u64);
            let count = (appended.len() - copies) as u64;
            let bytes = if count == 0 { 0 } else { bytes as u64 };
            group.metrics.messages_in(name, is_system, count, bytes);
            let response = answer::format(&request, &appended, (queue_id, &told), host);
            request.reply(response);
        }
        Err(Failure::NotLeader) => spawn_relay(broker, group, request, true),
        Err(failure) => refuse(&group, request, &failure),
    })
}
