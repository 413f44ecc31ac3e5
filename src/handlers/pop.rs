//! Handing messages out: 200050. Nobody else gets them until they are acknowledged or their time has passed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_protocol::headers::{PopRequest, PopResponse};
use gantry_protocol::properties::names;
use gantry_protocol::{RemotingCommand, ResponseCode, topic as topics};
use gantry_storage::message::{self as stored, MessageView, NewMessage};
use gantry_storage::tables::{PERM_READ, Topic};
use tokio::time::{Instant, timeout_at};

use super::{Handled, Response};
use crate::broker::Broker;
use crate::catalog;
use crate::error::Failure;
use crate::filters::{Filter, TAG};
use crate::group::{Group, HOLD};
use crate::pop::{
    self, Full, Handle, IN_ORDER, INVISIBLE_MS_MAX, RetryKind, Start, Taken, TakenQueue, Taking,
    Waiter,
};
use crate::remoting::Request;

/// Messages of one answer.
const MESSAGES_MAX: i32 = 32;

/// The longest that a pop waits; clients give up 10 s after the time that they ask for.
const PARK_MAX: Duration = Duration::from_secs(25);

/// A pop that comes later than this after its client gave up is not worth an answer; milliseconds.
const LATE_MS: i64 = 500;

/// How often a group looks again that has too many messages.
const FULL_LOOK: Duration = Duration::from_secs(1);

/// What a pop asks for, checked.
struct Wanted<'a> {
    header: PopRequest<'a>,
    topic: Arc<Topic>,
    /// `None`: any.
    queue: Option<u16>,
    filter: Filter,
    deadline: Instant,
}

/// Hands messages out, at once or when there are some.
pub async fn handle(broker: &Broker, group: &Arc<Group>, request: &Request) -> Handled {
    let header = PopRequest::parse(&request.command.fields)?;
    let wanted = check(broker, group, header, request).await?;
    let outcome = wait(broker, group, &wanted, request).await;
    let taken = match outcome {
        Ok(taken) => taken,
        Err(failure) => {
            // It may have been this one's turn.
            group
                .pops
                .waiters
                .wake_next(header.consumer_group, wanted.topic.id);
            return Err(failure);
        }
    };
    let Some(taken) = taken else {
        return Ok(nothing(request, &wanted, ResponseCode::POLLING_FULL));
    };
    if taken.queues.is_empty() {
        return Ok(nothing(request, &wanted, ResponseCode::POLLING_TIMEOUT));
    }
    if taken.rest > 0 {
        group
            .pops
            .waiters
            .wake_next(header.consumer_group, wanted.topic.id);
    }
    Ok(respond(broker, group, &wanted, request, &taken))
}

/// Takes what there is or comes until the deadline; `None` if too many wait.
async fn wait(
    broker: &Broker,
    group: &Arc<Group>,
    wanted: &Wanted<'_>,
    request: &Request,
) -> Result<Option<Taken>, Failure> {
    let consumer = wanted.header.consumer_group;
    let mut waiter: Option<Waiter<'_>> = None;
    loop {
        // A client that sends many pops and reads no answers must not have them all in our memory.
        if let Some(channel) = request.channel() {
            channel.wait_for_room().await;
        }
        let taken = match take(broker, group, wanted, request).await {
            Ok(taken) => taken,
            // It has waited for a leader; there may be one before the deadline.
            Err(Failure::NoLeader) => Taken::default(),
            Err(failure) => return Err(failure),
        };
        if !taken.queues.is_empty() || Instant::now() >= wanted.deadline {
            return Ok(Some(taken));
        }
        let Some(waiting) = waiter.take() else {
            // Registered, and then looked once more: a message that comes in between wakes it.
            let place = (wanted.topic.id, wanted.queue);
            let again_for = again_for(&wanted.header);
            let again_in = again_for
                .and_then(|consumer| pop::topic_of_redelivery(group, &wanted.topic, consumer));
            let again_in = again_in.map(|topic| topic.id);
            match group.pops.waiters.park(consumer, place, again_in) {
                Ok(parked) => waiter = Some(parked),
                Err(Full) => return Ok(None),
            }
            continue;
        };
        let until = look_again_at(broker, group, &taken, wanted.deadline);
        // Woken or not, the next turn looks again; the last one answers what it finds.
        drop(timeout_at(until, waiting.woken()).await);
    }
}

/// When it is worth to look again although nothing came.
fn look_again_at(broker: &Broker, group: &Group, taken: &Taken, deadline: Instant) -> Instant {
    let mut until = deadline;
    if let Some(blocked_until_ms) = taken.blocked_until_ms {
        let now_ms = broker.clock.now_ms().max(group.store.tables().clock_ms());
        let blocked = Duration::from_millis(blocked_until_ms.saturating_sub(now_ms));
        until = until.min(Instant::now() + blocked);
    }
    if taken.is_full {
        until = until.min(Instant::now() + FULL_LOOK);
    }
    until
}

async fn take(
    broker: &Broker,
    group: &Arc<Group>,
    wanted: &Wanted<'_>,
    request: &Request,
) -> Result<Taken, Failure> {
    let (header, caller) = (&wanted.header, &request.caller);
    let in_order = header.order == Some(true);
    let taking = Taking {
        group,
        consumer: header.consumer_group,
        filter: wanted.filter.clone(),
        max_messages: header.max_msg_nums as usize,
        invisible_ms: header.invisible_time as u64,
        in_order: in_order.then(|| header.attempt_id.unwrap_or_default().to_owned()),
        start: if header.init_mode == 0 {
            Start::Min
        } else {
            Start::Max
        },
        store_host: broker
            .routes
            .store_host(caller.listener, caller.node, group.id),
        now_ms: broker.clock.now_ms(),
    };
    let sources = pop::sources(group, &wanted.topic, wanted.queue, again_for(header));
    taking.take(&sources).await
}

/// The consumer group whose messages come again, unless they come again where they are.
fn again_for<'a>(header: &PopRequest<'a>) -> Option<&'a str> {
    (header.order != Some(true)).then_some(header.consumer_group)
}

async fn check<'a>(
    broker: &Broker,
    group: &Group,
    header: PopRequest<'a>,
    request: &Request,
) -> Result<Wanted<'a>, Failure> {
    let invalid = |reason: String| Failure::code(ResponseCode::INVALID_PARAMETER, reason);
    if is_late(broker, &header) {
        let reason = "the pop came after its client has given up, or the clocks differ";
        return Err(Failure::code(ResponseCode::POLLING_TIMEOUT, reason));
    }
    if !(1..=MESSAGES_MAX).contains(&header.max_msg_nums) {
        let wanted = header.max_msg_nums;
        return Err(invalid(format!(
            "{wanted} messages: 1 to {MESSAGES_MAX} may be popped"
        )));
    }
    if !(1..=INVISIBLE_MS_MAX).contains(&header.invisible_time) {
        let wanted = header.invisible_time;
        let reason =
            format!("an invisible time of {wanted} ms: 1 to {INVISIBLE_MS_MAX} are possible");
        return Err(invalid(reason));
    }
    let deadline = request.caller.received + HOLD;
    let topic = catalog::topic(group, header.topic, deadline).await?;
    let no_permission = |reason: String| Failure::code(ResponseCode::NO_PERMISSION, reason);
    if topic.config.perm & PERM_READ == 0 {
        return Err(no_permission(format!(
            "topic {} may not be read",
            header.topic
        )));
    }
    let queue = match header.queue_id {
        -1 => None,
        id => Some(catalog::queue_of(&topic, id)?),
    };
    let consumer = header.consumer_group;
    topics::check_group(consumer).map_err(|error| invalid(error.to_string()))?;
    if !header.topic.starts_with(topics::RETRY_PREFIX) {
        let retry = topics::pop_retry_topic(consumer, header.topic);
        topics::check_topic(&retry).map_err(|error| invalid(error.to_string()))?;
    }
    let known = catalog::consumer_group(group, &broker.config.broker, consumer, deadline).await?;
    if !known.consume_enable {
        return Err(no_permission(format!("group {consumer} may not consume")));
    }
    let filter = match header.exp {
        Some(expression) if !expression.is_empty() => {
            Filter::of(&broker.filters, header.exp_type.unwrap_or(TAG), expression)?
        }
        _ => Filter::All,
    };
    let park = Duration::from_millis(header.poll_time.max(0) as u64).min(PARK_MAX);
    Ok(Wanted {
        header,
        topic,
        queue,
        filter,
        deadline: request.caller.received + park,
    })
}

fn is_late(broker: &Broker, header: &PopRequest<'_>) -> bool {
    let since = (broker.clock.now_ms() as i64).saturating_sub(header.born_time);
    since.saturating_sub(header.poll_time) > LATE_MS
}

/// The answer without messages. It has the fields that are required: clients read them before they look at
/// the code.
fn nothing(request: &Request, wanted: &Wanted<'_>, code: ResponseCode) -> Response {
    let mut command = RemotingCommand::response_to(&request.command, code, "no message");
    let header = PopResponse {
        invisible_time: wanted.header.invisible_time,
        ..PopResponse::default()
    };
    header.write(&mut command.fields);
    command.into()
}

fn respond(
    broker: &Broker,
    group: &Group,
    wanted: &Wanted<'_>,
    request: &Request,
    taken: &Taken,
) -> Response {
    let in_order = wanted.header.order == Some(true);
    let mut infos = Infos::default();
    let mut pieces = Vec::with_capacity(taken.queues.len());
    for queue in &taken.queues {
        infos.add(queue);
        pieces.push(match queue.source.is_retry {
            true => as_of_topic(broker, group, wanted, request, queue),
            false => queue.body.clone(),
        });
        let labels = (wanted.header.topic, wanted.header.consumer_group);
        let flags = (topics::is_system(labels.0), queue.source.is_retry);
        let (count, bytes) = (queue.offsets.len() as u64, queue.body.len() as u64);
        group.metrics.messages_out(labels, flags, count, bytes);
    }
    let mut command =
        RemotingCommand::response_to(&request.command, ResponseCode::SUCCESS, "FOUND");
    let header = PopResponse {
        // Queues are granted by one record mostly, and the time of a record is one.
        pop_time: taken.queues[0].pop_ms as i64,
        invisible_time: wanted.header.invisible_time,
        revive_qid: if in_order { IN_ORDER } else { 0 },
        rest_num: taken.rest as i64,
        start_offset_info: Some(&infos.start),
        msg_offset_info: Some(&infos.messages),
        order_count_info: Some(&infos.counts),
    };
    header.write(&mut command.fields);
    Response { command, pieces }
}

/// The texts that clients make handles from.
#[derive(Default)]
struct Infos {
    start: String,
    messages: String,
    counts: String,
}

impl Infos {
    fn add(&mut self, queue: &TakenQueue) {
        let retry = retry_of(queue).as_str();
        let id = queue.source.key.queue;
        let first = queue.offsets[0];
        let listed: Vec<String> = queue.offsets.iter().map(ToString::to_string).collect();
        join(&mut self.start, &format!("{retry} {id} {first}"));
        join(
            &mut self.messages,
            &format!("{retry} {id} {}", listed.join(",")),
        );
        let least = queue.times.iter().copied().min().unwrap_or(0);
        join(&mut self.counts, &format!("{retry} {id} {least}"));
        let counted = queue.offsets.iter().zip(&queue.times);
        for (offset, times) in counted.filter(|(_, times)| **times > 0) {
            join(
                &mut self.counts,
                &format!("{retry} qo{id}%{offset} {times}"),
            );
        }
    }
}

fn retry_of(queue: &TakenQueue) -> RetryKind {
    if queue.source.is_retry {
        RetryKind::V1
    } else {
        RetryKind::None
    }
}

fn join(text: &mut String, part: &str) {
    if !text.is_empty() {
        text.push(';');
    }
    text.push_str(part);
}

/// Messages of the retry topic as messages of the topic that was asked for, with their handles.
fn as_of_topic(
    broker: &Broker,
    group: &Group,
    wanted: &Wanted<'_>,
    request: &Request,
    queue: &TakenQueue,
) -> Bytes {
    let caller = &request.caller;
    let host = broker
        .routes
        .store_host(caller.listener, caller.node, group.id);
    let mut body = BytesMut::with_capacity(queue.body.len() + 128 * queue.offsets.len());
    for message in queue.messages() {
        let handle = Handle {
            start_offset: queue.offsets[0].get() as i64,
            pop_time: queue.pop_ms as i64,
            invisible_time: wanted.header.invisible_time,
            revive_queue: 0,
            retry: retry_of(queue),
            broker_name: group.name.clone(),
            queue_id: i32::from(queue.source.key.queue),
            offset: Some(message.queue_offset().get() as i64),
        };
        let start = body.len();
        encode_as(wanted.header.topic, &message, &handle, &mut body);
        let whole = &mut body[start..];
        stored::patch_store_time(whole, message.store_timestamp());
        stored::patch(
            whole,
            message.queue_offset(),
            message.physical_offset(),
            host,
        )
        .expect("a message that was just encoded");
    }
    body.freeze()
}

fn encode_as(topic: &str, message: &MessageView<'_>, handle: &Handle, body: &mut BytesMut) {
    let mut properties = message.properties().to_vec();
    // One that a producer made up is hidden by it.
    stored::push_property(&mut properties, names::POP_CK, &handle.to_string());
    let mut copy = NewMessage {
        topic,
        queue_id: handle.queue_id as u16,
        flag: message.flag(),
        sys_flag: message.sys_flag(),
        born_timestamp: message.born_timestamp(),
        born_host: message.born_host(),
        reconsume_times: message.reconsume_times(),
        prepared_offset: message.prepared_offset(),
        body: message.body(),
        properties: &properties,
    };
    if copy.encoded_len().is_err() {
        // There is no room for one property more: the client makes the handle from the header.
        copy.properties = message.properties();
    }
    copy.encode(body)
        .expect("a shorter topic and the same properties");
}
