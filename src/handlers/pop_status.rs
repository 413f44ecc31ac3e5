//! Looking at what a pop would bring, without taking it: 200052, 200054, 200055.

use std::sync::Arc;
use std::time::Duration;

use gantry_protocol::headers::{
    NotificationRequest, NotificationResponse, PeekRequest, PollingInfoRequest,
    PollingInfoResponse, PopResponse,
};
use gantry_protocol::{RemotingCommand, ResponseCode};
use gantry_storage::tables::{PERM_READ, Topic};
use tokio::time::{Instant, timeout_at};

use super::{Handled, Response};
use crate::broker::Broker;
use crate::catalog;
use crate::error::Failure;
use crate::filters::Filter;
use crate::group::{Group, HOLD};
use crate::pop::{self, Source};
use crate::reading::Reading;
use crate::remoting::Request;

/// The longest that a notification waits.
const PARK_MAX: Duration = Duration::from_secs(25);
/// Messages of one peek.
const MESSAGES_MAX: i32 = 32;
const BYTES_MAX: usize = 1024 * 1024;

/// 200054: whether a pop would bring something, at once or when it does.
pub async fn notification(broker: &Broker, group: &Arc<Group>, request: &Request) -> Handled {
    let header = NotificationRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    let (topic, queue) = find(group, (header.topic, header.queue_id), deadline).await?;
    let consumer = header.consumer_group;
    let known = catalog::consumer_group(group, &broker.config.broker, consumer, deadline);
    known.await?;
    let again_for = (header.order != Some(true)).then_some(consumer);
    let park = Duration::from_millis(header.poll_time.max(0) as u64).min(PARK_MAX);
    let until = request.caller.received + park;
    let mut waiter = None;
    loop {
        let sources = pop::sources(group, &topic, queue, again_for);
        let now_ms = broker.clock.now_ms();
        let attempt_id = header.attempt_id.unwrap_or_default();
        let may_take = |source: &Source| {
            again_for.is_some() || !is_taken(group, consumer, (source, attempt_id), now_ms)
        };
        let has_msg = sources
            .iter()
            .any(|source| source.waiting(group, consumer) > 0 && may_take(source));
        if has_msg {
            // This one does not take it: whoever waits to do so must not have been passed over.
            group.pops.waiters.wake_next(consumer, topic.id);
        }
        if has_msg || Instant::now() >= until {
            return Ok(notified(request, has_msg, false));
        }
        let Some(waiting) = waiter.take() else {
            let again_in =
                again_for.and_then(|consumer| pop::topic_of_redelivery(group, &topic, consumer));
            let again_in = again_in.map(|topic| topic.id);
            let waiters = &group.pops.waiters;
            let parked = waiters.park(consumer, (topic.id, queue), again_in);
            let Ok(parked) = parked else {
                return Ok(notified(request, false, true));
            };
            waiter = Some(parked);
            continue;
        };
        drop(timeout_at(until, waiting.woken()).await);
    }
}

fn notified(request: &Request, has_msg: bool, is_full: bool) -> Response {
    let mut response = RemotingCommand::success_to(&request.command);
    let polling_full = Some(is_full);
    NotificationResponse {
        has_msg,
        polling_full,
    }
    .write(&mut response.fields);
    response.into()
}

/// Whether another attempt has the messages of a queue.
fn is_taken(
    group: &Group,
    consumer: &str,
    (source, attempt_id): (&Source, &str),
    now_ms: u64,
) -> bool {
    let tables = group.store.tables();
    let now_ms = now_ms.max(tables.clock_ms());
    let batch = tables.leases().order(consumer, source.key);
    let batch = batch.filter(|batch| !batch.is_attempt(attempt_id));
    batch.is_some_and(|batch| batch.blocked_until(now_ms).is_some())
}

/// 200055: how many pops wait.
pub async fn polling_info(group: &Group, request: &Request) -> Handled {
    let header = PollingInfoRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    let (topic, queue) = find(group, (header.topic, header.queue_id), deadline).await?;
    let waiters = &group.pops.waiters;
    let count = waiters.count(header.consumer_group, topic.id, queue);
    let mut response = RemotingCommand::success_to(&request.command);
    let polling_num = count as i32;
    PollingInfoResponse { polling_num }.write(&mut response.fields);
    Ok(response.into())
}

/// 200052: messages that a pop would bring, which stay where they are.
pub async fn peek(broker: &Broker, group: &Arc<Group>, request: &Request) -> Handled {
    let header = PeekRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    let (topic, queue) = find(group, (header.topic, header.queue_id), deadline).await?;
    let wanted = header.max_msg_nums;
    if !(1..=MESSAGES_MAX).contains(&wanted) {
        let reason = format!("{wanted} messages: 1 to {MESSAGES_MAX} may be looked at");
        return Err(Failure::code(ResponseCode::INVALID_PARAMETER, reason));
    }
    let caller = &request.caller;
    let store_host = broker
        .routes
        .store_host(caller.listener, caller.node, group.id);
    let consumer = header.consumer_group;
    let (mut pieces, mut count, mut rest) = (Vec::new(), 0, 0);
    for source in pop::sources(group, &topic, queue, Some(consumer)) {
        rest += source.waiting(group, consumer);
        let room = wanted as usize - count;
        if room == 0 {
            continue;
        }
        let bounds = source.bounds(group);
        let position = source.position(group, consumer).unwrap_or(bounds.min);
        let reading = Reading {
            key: source.key,
            offset: position.max(bounds.min),
            max_messages: room,
            max_bytes: BYTES_MAX,
            filter: Filter::All,
            whole: true,
            store_host,
        };
        if let Some(read) = reading.read(group, deadline).await? {
            count += read.count;
            rest = rest.saturating_sub(read.count as u64);
            pieces.push(read.body);
        }
    }
    let code = match count {
        0 => ResponseCode::PULL_NOT_FOUND,
        _ => ResponseCode::SUCCESS,
    };
    let mut command = RemotingCommand::response_to(&request.command, code, "");
    let header = PopResponse {
        pop_time: broker.clock.now_ms() as i64,
        rest_num: rest as i64,
        ..PopResponse::default()
    };
    header.write(&mut command.fields);
    Ok(Response { command, pieces })
}

/// A topic that may be read, and the queue of it, or any.
async fn find(
    group: &Group,
    (name, queue_id): (&str, i32),
    deadline: Instant,
) -> Result<(Arc<Topic>, Option<u16>), Failure> {
    let topic = catalog::topic(group, name, deadline).await?;
    if topic.config.perm & PERM_READ == 0 {
        let reason = format!("topic {name} may not be read");
        return Err(Failure::code(ResponseCode::NO_PERMISSION, reason));
    }
    let queue = match queue_id {
        -1 => None,
        id => Some(catalog::queue_of(&topic, id)?),
    };
    Ok((topic, queue))
}
