//! Queues that one consumer has for itself, for ordered consumption: 41, 42.

use std::collections::HashSet;
use std::time::Duration;

use gantry_protocol::bodies::{LockRequest, LockResponse, MessageQueue};
use gantry_protocol::{RemotingCommand, ResponseCode, topic as names};
use gantry_storage::tables::{Command, CommandResult};

use super::Handled;
use crate::catalog;
use crate::error::Failure;
use crate::group::Group;
use crate::remoting::Request;

/// Clients wait 1 s for these two.
const HOLD_LOCK: Duration = Duration::from_millis(800);

/// 41: gives the client those queues that no other member has; names those it now has.
pub async fn lock(group: &Group, request: &Request) -> Handled {
    let (asked, queues) = read(group, request)?;
    let mut locked = Vec::new();
    if !queues.is_empty() {
        let command = Command::LockQueues {
            group: asked.consumer_group.clone(),
            client: asked.client_id.clone(),
            queues,
        };
        let deadline = request.caller.received + HOLD_LOCK;
        let results = group.execute(vec![command], deadline).await?;
        locked = granted(group, asked.mq_set, &results)?;
    }
    let body = LockResponse { locked }.encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

/// 42: the client gives queues up.
pub async fn unlock(group: &Group, request: &Request) -> Handled {
    let (asked, queues) = read(group, request)?;
    if !queues.is_empty() {
        let (group_name, client) = (asked.consumer_group, asked.client_id);
        let command = Command::UnlockQueues {
            group: group_name,
            client,
            queues,
        };
        group
            .execute(vec![command], request.caller.received + HOLD_LOCK)
            .await?;
    }
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// The request, and which of its queues are of this group of brokers.
fn read(group: &Group, request: &Request) -> Result<(LockRequest, Vec<(String, u16)>), Failure> {
    let asked = LockRequest::decode(&request.command.body);
    let asked = asked.map_err(|error| catalog::unreadable(&error))?;
    names::check_group(&asked.consumer_group)
        .map_err(|error| Failure::code(ResponseCode::INVALID_PARAMETER, error.to_string()))?;
    if asked.client_id.is_empty() {
        return Err(Failure::code(
            ResponseCode::INVALID_PARAMETER,
            "there is no clientId",
        ));
    }
    let queues = own_queues(&group.name, &asked.mq_set);
    Ok((asked, queues))
}

/// Queues of another group of brokers are locked there, not here.
fn own_queues(group: &str, queues: &[MessageQueue]) -> Vec<(String, u16)> {
    let own = queues.iter().filter(|queue| queue.broker_name == group);
    own.filter_map(|queue| Some((queue.topic.clone(), u16::try_from(queue.queue_id).ok()?)))
        .collect()
}

/// The queues that were granted, as the client named them.
fn granted(
    group: &Group,
    asked: Vec<MessageQueue>,
    results: &[CommandResult],
) -> Result<Vec<MessageQueue>, Failure> {
    let [CommandResult::Locked(granted)] = results else {
        let reason = format!("group {} answered a lock with something else", group.name);
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    };
    let granted: HashSet<(&str, i32)> = granted
        .iter()
        .map(|(topic, queue)| (topic.as_str(), i32::from(*queue)))
        .collect();
    let is_granted = |queue: &MessageQueue| {
        queue.broker_name == group.name && granted.contains(&(queue.topic.as_str(), queue.queue_id))
    };
    Ok(asked.into_iter().filter(is_granted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_of_other_groups_are_not_locked_here() {
        let queue = |broker: &str, queue_id| MessageQueue {
            broker_name: broker.into(),
            queue_id,
            topic: "t".into(),
        };
        let asked = [
            queue("b", 0),
            queue("other", 1),
            queue("b", -1),
            queue("b", 65_536),
        ];
        assert_eq!(own_queues("b", &asked), [("t".to_string(), 0)]);
    }
}
