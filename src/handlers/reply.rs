//! Replies to requests of producers: 324, 325. The reply goes to the producer that asked, through whichever
//! node it is connected to (326), and is stored in the cluster's reply topic.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_protocol::headers::{PushReplyRequest, SendRequest, SendResponse};
use gantry_protocol::properties::{self, names};
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode, frame};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Handled, send};
use crate::broker::Broker;
use crate::client_calls;
use crate::error::Failure;
use crate::forward;
use crate::group::Group;
use crate::remoting::{Answer, Relayed, Request};
use crate::sessions::Whom;

/// How long the producer that asked is waited for.
const PUSH_WAIT: Duration = Duration::from_millis(2000);

/// How long a producer that no node has told of is waited for, and how often it is looked for.
const KNOWN_WAIT: Duration = Duration::from_millis(500);
const KNOWN_INTERVAL: Duration = Duration::from_millis(20);

/// Hands a reply to the producer that asked for it. Success means that it has it; where the reply is stored
/// is told if it is.
pub async fn handle(broker: &Arc<Broker>, group: &Arc<Group>, request: &Request) -> Handled {
    let header = SendRequest::parse(request.code(), &request.command.fields)?;
    let text = header.properties.unwrap_or_default();
    let named = properties::iter(text).find(|(name, _)| *name == names::REPLY_TO_CLIENT);
    let Some((_, client_id)) = named else {
        let reason = "the reply does not say whom it is for: it has no property REPLY_TO_CLIENT";
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    };
    let whom = Whom {
        client_id: client_id.to_string(),
        consumer_group: None,
    };
    let push = push(broker, group, (&header, text), request);
    let (pushed, stored) = tokio::join!(
        push_when_known(broker, &whom, &push),
        store(broker, group, request)
    );
    let mut response = match pushed {
        Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => {
            RemotingCommand::success_to(&request.command)
        }
        Ok(answer) => {
            let remark = answer.remark.as_deref().unwrap_or("no reason given");
            let reason = format!("producer {client_id} did not take the reply: {remark}");
            Failure::code(ResponseCode::SYSTEM_ERROR, reason).to_response(&request.command)
        }
        // RocketMQ's code for a reply that did not arrive, whatever the cause.
        Err(failure) => Failure::code(ResponseCode::SYSTEM_ERROR, failure.to_string())
            .to_response(&request.command),
    };
    match stored {
        Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => {
            response.fields = answer.fields;
        }
        Ok(answer) => {
            tracing::debug!(remark = ?answer.remark, "a reply is not stored");
            nowhere().write(&mut response.fields);
        }
        Err(failure) => {
            tracing::debug!(%failure, "a reply is not stored");
            nowhere().write(&mut response.fields);
        }
    }
    Ok(response.into())
}

/// Pushes the reply. A producer says who it is right after its first request, and one node hears it
/// first: the others are given a moment to hear of it.
async fn push_when_known(
    broker: &Broker,
    whom: &Whom,
    push: &RemotingCommand,
) -> Result<RemotingCommand, Failure> {
    let until = Instant::now() + KNOWN_WAIT;
    let is_known = || {
        let sessions = &broker.sessions;
        sessions.channel_of(whom).is_some() || !sessions.nodes_with(whom).is_empty()
    };
    while !is_known() && Instant::now() < until {
        tokio::time::sleep(KNOWN_INTERVAL).await;
    }
    client_calls::ask(broker, whom, push, PUSH_WAIT).await
}

/// The fields of an answer to a send that stored nothing: clients read them in any case.
fn nowhere() -> SendResponse<'static> {
    SendResponse {
        msg_id: "",
        queue_id: 0,
        queue_offset: 0,
        ..SendResponse::default()
    }
}

/// The reply as the producer gets it.
fn push(
    broker: &Broker,
    group: &Group,
    (header, text): (&SendRequest<'_>, &str),
    request: &Request,
) -> RemotingCommand {
    let now_ms = broker.clock.now_ms();
    let mut properties = text.as_bytes().to_vec();
    let time = now_ms.to_string();
    gantry_storage::message::push_property(&mut properties, names::PUSH_REPLY_TIME, &time);
    let properties = String::from_utf8(properties).expect("text and text is text");
    let caller = &request.caller;
    let store_host = broker
        .routes
        .store_host(caller.listener, caller.node, group.id)
        .to_string();
    let born_host = caller.peer.to_string();
    let mut push = RemotingCommand::request(RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT, 0)
        .with_body(request.command.body.clone());
    PushReplyRequest {
        producer_group: header.producer_group,
        topic: header.topic,
        default_topic: header.default_topic,
        default_topic_queue_nums: header.default_topic_queue_nums,
        queue_id: header.queue_id,
        sys_flag: header.sys_flag,
        born_timestamp: header.born_timestamp,
        flag: header.flag,
        properties: Some(&properties),
        reconsume_times: header.reconsume_times,
        unit_mode: header.unit_mode,
        born_host: &born_host,
        store_host: &store_host,
        store_timestamp: now_ms as i64,
    }
    .write(&mut push.fields);
    push
}

/// Stores the reply as the send that it also is, at the leader; gives the answer to that send.
async fn store(
    broker: &Arc<Broker>,
    group: &Arc<Group>,
    request: &Request,
) -> Result<RemotingCommand, Failure> {
    let mut command = request.command.clone();
    let has_letters = request.code() == RequestCode::SEND_REPLY_MESSAGE_V2;
    let code = if has_letters {
        RequestCode::SEND_MESSAGE_V2
    } else {
        RequestCode::SEND_MESSAGE
    };
    command.code = code.0;
    let deadline = request.caller.received + forward::hold_budget(code);
    while Instant::now() < deadline {
        let (tell, answer) = oneshot::channel();
        let send = Request {
            command: command.clone(),
            caller: request.caller.clone(),
            answer: Answer::Forwarder(tell),
        };
        let (broker, hosted) = (broker.clone(), group.clone());
        let submit = move |send| {
            tokio::spawn(async move { send::handle(&broker, &hosted, send).await });
        };
        forward::relay(group.clone(), send, submit).await;
        match answer.await {
            Ok(Relayed::Frame(pieces)) => return decode(&pieces),
            // Leadership changed on the way.
            Ok(Relayed::NotLeader) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(_) => return Err(Failure::Unsettled),
        }
    }
    Err(Failure::NoLeader)
}

fn decode(pieces: &[Bytes]) -> Result<RemotingCommand, Failure> {
    let failed = |reason: String| Failure::code(ResponseCode::SYSTEM_ERROR, reason);
    let mut buffer = BytesMut::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
    }
    let cut = frame::cut(&mut buffer).map_err(|error| failed(error.to_string()))?;
    let cut = cut.ok_or_else(|| failed("an answer is cut short".to_string()))?;
    RemotingCommand::decode(cut).map_err(|error| failed(error.to_string()))
}
