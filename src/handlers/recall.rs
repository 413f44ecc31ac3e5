//! A producer takes back a message that is not due yet: 370.

use gantry_protocol::RemotingCommand;
use gantry_protocol::headers::{RecallRequest, RecallResponse};
use gantry_protocol::recall::RecallHandle;

use super::Handled;
use crate::group::{Group, HOLD};
use crate::recalls::{cancel, find, nothing};
use crate::remoting::Request;

/// 370: recalls the message that a handle stands for. Code 604 if there is none that waits.
pub async fn recall(group: &Group, request: &Request) -> Handled {
    let header = RecallRequest::parse(&request.command.fields)?;
    let handle = RecallHandle::decode(header.recall_handle)
        .map_err(|error| nothing(&format!("the handle is wrong: {error}")))?;
    if handle.topic != header.topic {
        return Err(nothing("the handle is of another topic"));
    }
    if handle.broker_name != group.name {
        return Err(nothing("the handle is of another broker"));
    }
    let deadline = request.caller.received + HOLD;
    let wanted = (handle.topic.as_str(), handle.unique_key.as_str());
    let place = find(group, wanted, Some(handle.deliver_ms), deadline).await?;
    cancel(group, place, deadline).await?;
    let mut response = RemotingCommand::success_to(&request.command);
    RecallResponse {
        msg_id: &handle.unique_key,
    }
    .write(&mut response.fields);
    Ok(response.into())
}
