//! Clients that come, stay and leave: 34, 35, 38, 46.

use std::time::Duration;

use gantry_protocol::bodies::{ConsumerList, Heartbeat, SubscriptionCheck};
use gantry_protocol::headers::{ConsumerListRequest, HeartbeatResponse, UnregisterClientRequest};
use gantry_protocol::{RemotingCommand, ResponseCode, topic as names};
use tokio::time::Instant;

use super::Handled;
use crate::broker::Broker;
use crate::catalog;
use crate::error::Failure;
use crate::filters::{self, Filters};
use crate::remoting::Request;
use crate::sessions::Sessions;

/// How long a heartbeat waits for its consumer groups to be created.
const CREATE_WAIT: Duration = Duration::from_secs(2);

/// 34: notes the client and its groups; consumer groups that are new are created.
pub async fn heartbeat(broker: &Broker, request: &Request) -> Handled {
    let mut heartbeat =
        Heartbeat::decode(&request.command.body).map_err(|error| catalog::unreadable(&error))?;
    if heartbeat.client_id.is_empty() {
        return Err(Failure::code(
            ResponseCode::SYSTEM_ERROR,
            "the heartbeat has no clientID",
        ));
    }
    let Some(channel) = request.channel() else {
        let reason = "a heartbeat is answered by the node that the client is connected to";
        return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
    };
    keep_legal_groups(&mut heartbeat);
    let groups: Vec<String> = heartbeat
        .consumer_data_set
        .iter()
        .map(|data| data.group_name.clone())
        .collect();
    if !broker.config.broker.auto_create_group {
        keep_known_groups(broker, &mut heartbeat);
    }
    let client = (request.command.language, request.command.version);
    if broker.config.broker.auto_create_group {
        let deadline = Instant::now() + CREATE_WAIT;
        catalog::auto_create_groups(&broker.groups, &groups, deadline).await;
    }
    // Members that hear of each other look for the retry topic at once, so it must be there.
    let subscription_changed = broker.sessions.heartbeat(channel, client, heartbeat);
    let mut response = RemotingCommand::success_to(&request.command);
    let header = HeartbeatResponse {
        supports_v2: Some(true),
        subscription_changed: Some(subscription_changed),
    };
    header.write(&mut response.fields);
    Ok(response.into())
}

/// Groups that cannot exist are left out; the rest of the heartbeat counts.
fn keep_legal_groups(heartbeat: &mut Heartbeat) {
    let is_legal = |name: &str| match names::check_group(name) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(group = name, %error, "a group of a heartbeat is left out");
            false
        }
    };
    heartbeat
        .consumer_data_set
        .retain(|data| is_legal(&data.group_name));
    heartbeat
        .producer_data_set
        .retain(|data| is_legal(&data.group_name));
}

/// Without automatic creation, consumer groups that nobody created are left out.
fn keep_known_groups(broker: &Broker, heartbeat: &mut Heartbeat) {
    let is_known = |name: &str| {
        names::SYSTEM_GROUPS.contains(&name)
            || broker
                .groups
                .iter()
                .any(|group| group.store.tables().group(name).is_some())
    };
    heartbeat
        .consumer_data_set
        .retain(|data| is_known(&data.group_name));
}

/// 35: a client leaves its groups.
pub fn unregister(sessions: &Sessions, request: &Request) -> Handled {
    let header = UnregisterClientRequest::parse(&request.command.fields)?;
    sessions.unregister(
        header.client_id,
        header.producer_group,
        header.consumer_group,
    );
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 38: the members of a consumer group. An error makes the client keep the queues it has, so that is
/// what a node says that does not know all members yet.
pub async fn members(sessions: &Sessions, request: &Request) -> Handled {
    let header = ConsumerListRequest::parse(&request.command.fields)?;
    let group = header.consumer_group;
    if let Some(channel) = request.channel() {
        sessions.until_member(channel, group).await;
    }
    let refused = |reason: String| Failure::code(ResponseCode::SYSTEM_ERROR, reason);
    let Some(members) = sessions.members(group) else {
        let reason = format!("the members of group {group} are not all known yet, ask again");
        return Err(refused(reason));
    };
    if members.is_empty() {
        return Err(refused(format!("no consumer of group {group} is online")));
    }
    let body = ConsumerList {
        consumer_id_list: members,
    }
    .encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

/// 46: whether a subscription could be served.
pub fn check_subscription(filters: &Filters, request: &Request) -> Handled {
    let body = &request.command.body;
    let check = SubscriptionCheck::decode(body).map_err(|error| catalog::unreadable(&error))?;
    let subscription = &check.subscription_data;
    match subscription.expression_type.as_str() {
        filters::TAG | "" => {}
        filters::SQL92 => {
            let parsed = filters.selector(&subscription.sub_string);
            parsed.map_err(|error| {
                Failure::code(ResponseCode::SUBSCRIPTION_PARSE_FAILED, error.to_string())
            })?;
        }
        other => {
            let reason = filters::unknown_kind(other);
            return Err(Failure::code(ResponseCode::SYSTEM_ERROR, reason));
        }
    }
    Ok(RemotingCommand::success_to(&request.command).into())
}

#[cfg(test)]
mod tests {
    use gantry_protocol::bodies::{ConsumerData, ProducerData};

    use super::*;

    #[test]
    fn a_group_that_cannot_exist_costs_only_itself() {
        let consumer = |name: &str| ConsumerData {
            group_name: name.into(),
            ..ConsumerData::default()
        };
        let mut heartbeat = Heartbeat {
            consumer_data_set: vec![consumer("a b"), consumer("g")],
            producer_data_set: vec![ProducerData {
                group_name: "p".repeat(121),
            }],
            ..Heartbeat::default()
        };
        keep_legal_groups(&mut heartbeat);
        assert_eq!(heartbeat.consumer_data_set, [consumer("g")]);
        assert!(heartbeat.producer_data_set.is_empty());
    }
}
