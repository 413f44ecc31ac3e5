//! What tools ask of a consumer group's members, wherever they are connected: 223, 307, 309.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_protocol::bodies::{ClientOffsets, GroupOffsets};
use gantry_protocol::headers::{
    ClientOffsetsRequest, ConsumeDirectlyRequest, GroupOffsetsRequest, RunningInfoRequest,
};
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use gantry_storage::PhysicalOffset;
use gantry_storage::message::MessageView;
use tokio::task::JoinSet;

use super::Handled;
use crate::broker::Broker;
use crate::catalog;
use crate::client_calls;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::remoting::Request;
use crate::sessions::Whom;

/// How long a member that is asked for its state or to consume a message is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// How long members that are asked for their offsets are waited for.
const OFFSETS_WAIT: Duration = Duration::from_secs(5);

/// 307: what a consumer is doing, in its own words.
pub async fn running_info(broker: &Broker, request: &Request) -> Handled {
    let header = RunningInfoRequest::parse(&request.command.fields)?;
    let mut asked = RemotingCommand::request(RequestCode::GET_CONSUMER_RUNNING_INFO, 0);
    asked.fields = request.command.fields.clone();
    let whom = member(header.consumer_group, header.client_id);
    relay(broker, &whom, &asked, request).await
}

/// 309: a consumer is given one message of the log, and says what came of it.
pub async fn consume_directly(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let header = ConsumeDirectlyRequest::parse(&request.command.fields)?;
    let Some(client_id) = header.client_id.filter(|id| !id.is_empty()) else {
        let reason = "clientId is missing: which consumer is to consume the message?";
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    };
    let mut asked = RemotingCommand::request(RequestCode::CONSUME_MESSAGE_DIRECTLY, 0);
    asked.fields = request.command.fields.clone();
    asked.fields.set("brokerName", &group.name);
    if let Some(id) = header.msg_id.filter(|id| !id.is_empty()) {
        let message = load(broker, group, id, request).await?;
        let view = MessageView::parse(&message)
            .map_err(|error| Failure::code(ResponseCode::SYSTEM_ERROR, error.to_string()))?;
        let topic = group.store.tables().topic(view.topic());
        let topic_flag = topic.map_or(0, |topic| topic.config.sys_flag);
        let settings = group.store.tables().group(header.consumer_group);
        let group_flag = settings.map_or(0, |settings| settings.group_sys_flag);
        asked.fields.set("topicSysFlag", &topic_flag.to_string());
        asked.fields.set("groupSysFlag", &group_flag.to_string());
        asked.body = message;
    }
    let whom = member(header.consumer_group, client_id);
    relay(broker, &whom, &asked, request).await
}

/// 223: where members say they are, all of them or one. Those that cannot say are left out.
pub async fn offsets(broker: &Arc<Broker>, request: &Request) -> Handled {
    let header = GroupOffsetsRequest::parse(&request.command.fields)?;
    let mut members = broker.sessions.members_with_language(header.group);
    if let Some(only) = header.client_addr.filter(|only| !only.is_empty()) {
        members.retain(|member| member.client_id == only);
    }
    if members.is_empty() {
        let reason = format!("no consumer of group {} is online", header.group);
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    }
    let mut asking = JoinSet::new();
    for asked in members {
        let mut command = RemotingCommand::request(RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT, 0);
        let (topic, group) = (header.topic, header.group);
        ClientOffsetsRequest { topic, group }.write(&mut command.fields);
        let (broker, whom) = (broker.clone(), member(group, &asked.client_id));
        asking.spawn(async move {
            let answer = client_calls::ask(&broker, &whom, &command, OFFSETS_WAIT).await;
            (whom.client_id, answer)
        });
    }
    let mut body = GroupOffsets::default();
    let mut refusal = String::new();
    while let Some(asked) = asking.join_next().await {
        let Ok((client_id, answer)) = asked else {
            continue;
        };
        match answer.and_then(|answer| offsets_of(&answer)) {
            Ok(offsets) => {
                let table = offsets.message_queue_table;
                body.consumer_table.insert(client_id, table);
            }
            Err(failure) => refusal = format!("{client_id}: {failure}"),
        }
    }
    if body.consumer_table.is_empty() {
        let reason = format!("no member told its offsets; {refusal}");
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    }
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}

fn offsets_of(answer: &RemotingCommand) -> Result<ClientOffsets, Failure> {
    if answer.response_code() != ResponseCode::SUCCESS {
        let remark = answer.remark.as_deref().unwrap_or("no reason given");
        return Err(Failure::code(
            answer.response_code(),
            format!("{}: {remark}", answer.response_code()),
        ));
    }
    ClientOffsets::decode(&answer.body).map_err(|error| catalog::unreadable(&error))
}

/// A member of a consumer group.
pub fn member(group: &str, client_id: &str) -> Whom {
    Whom {
        client_id: client_id.to_string(),
        consumer_group: Some(group.to_string()),
    }
}

/// Asks, and answers what the client answered.
async fn relay(
    broker: &Broker,
    whom: &Whom,
    asked: &RemotingCommand,
    request: &Request,
) -> Handled {
    let answer = client_calls::ask(broker, whom, asked, ANSWER_WAIT).await?;
    let remark = answer.remark.as_deref().unwrap_or_default().to_string();
    let mut response =
        RemotingCommand::response_to(&request.command, answer.response_code(), remark)
            .with_body(answer.body);
    response.fields = answer.fields;
    Ok(response.into())
}

/// The message that an offsetMsgId names.
async fn load(
    broker: &Broker,
    group: &Group,
    id: &str,
    request: &Request,
) -> Result<Bytes, Failure> {
    let failed = |reason: String| Failure::code(ResponseCode::SYSTEM_ERROR, reason);
    let id: OffsetMessageId = id
        .parse()
        .map_err(|_| failed(format!("{id} is not the id of a place in the log")))?;
    let offset = PhysicalOffset::new(id.physical_offset.max(0) as u64);
    let caller = &request.caller;
    let host = broker
        .routes
        .store_host(caller.listener, caller.node, group.id);
    group.catch_up(caller.received + HOLD).await?;
    let found = catalog::message_at(group, offset, host).await?;
    found.ok_or_else(|| failed(format!("there is no message at offset {offset}")))
}
