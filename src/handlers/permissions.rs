//! Permissions of whole groups of brokers and of consumer groups: 25, 205, 327, 353.

use std::sync::Arc;

use gantry_protocol::bodies::GroupForbidden;
use gantry_protocol::headers::{
    AddWritePermResponse, BrokerWritePermRequest, ForbiddenRequest, WipeWritePermResponse,
};
use gantry_protocol::{RemotingCommand, ResponseCode};
use gantry_storage::tables::{Command, PERM_WRITE};

use super::Handled;
use crate::broker::Broker;
use crate::catalog;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::permissions;
use crate::remoting::Request;

/// 205: routes show producers no queue of a group of brokers any more.
pub async fn wipe_write(broker: &Broker, request: &Request) -> Handled {
    let wipe_topic_count = set_wiped(broker, request, true).await?;
    let mut response = RemotingCommand::success_to(&request.command);
    WipeWritePermResponse { wipe_topic_count }.write(&mut response.fields);
    Ok(response.into())
}

/// 327: routes show them again.
pub async fn add_write(broker: &Broker, request: &Request) -> Handled {
    let add_topic_count = set_wiped(broker, request, false).await?;
    let mut response = RemotingCommand::success_to(&request.command);
    AddWritePermResponse { add_topic_count }.write(&mut response.fields);
    Ok(response.into())
}

/// How many topics this concerns; none of a group that there is not, as RocketMQ's name server has it.
async fn set_wiped(broker: &Broker, request: &Request, wiped: bool) -> Result<i32, Failure> {
    let header = BrokerWritePermRequest::parse(&request.command.fields)?;
    let named = |group: &&Arc<Group>| group.name == header.broker_name;
    let Some(group) = broker.groups.iter().find(named) else {
        return Ok(0);
    };
    let command = permissions::set_wiped(wiped);
    catalog::change(group, vec![command], request.caller.received + HOLD).await?;
    let tables = group.store.tables();
    let writable = tables
        .topics()
        .filter(|topic| topic.config.perm & PERM_WRITE != 0);
    Ok(writable.count() as i32)
}

/// 353: whether a consumer group may read a topic; changes it first if the request says so.
pub async fn forbidden(group: &Group, request: &Request) -> Handled {
    let header = ForbiddenRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    match header.readable {
        Some(readable) => {
            catalog::topic(group, header.topic, deadline).await?;
            let command = permissions::set_may_read(header.group, header.topic, readable);
            catalog::change(group, vec![command], deadline).await?;
        }
        None => group.catch_up(deadline).await?,
    }
    let readable = permissions::may_read(&group.store.tables(), header.group, header.topic);
    let body = GroupForbidden {
        group: header.group.to_string(),
        readable,
        topic: header.topic.to_string(),
    };
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}

/// 25: settings that may be changed while the broker runs, in the whole group and for good. All of a request
/// or nothing.
pub async fn update_settings(group: &Group, request: &Request) -> Handled {
    let text = String::from_utf8_lossy(&request.command.body).into_owned();
    let mut commands: Vec<Command> = Vec::new();
    let lines = text.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        commands.push(setting(line)?);
    }
    if !commands.is_empty() {
        catalog::change(group, commands, request.caller.received + HOLD).await?;
    }
    Ok(RemotingCommand::success_to(&request.command).into())
}

fn setting(line: &str) -> Result<Command, Failure> {
    let (name, value) = line.split_once('=').unwrap_or((line, ""));
    if name.trim() != permissions::BROKER_PERMISSION {
        let reason = format!(
            "{} is a setting of the configuration file; the only one that a request may change is {}",
            name.trim(),
            permissions::BROKER_PERMISSION
        );
        return Err(Failure::code(ResponseCode::NO_PERMISSION, reason));
    }
    permissions::set_of_broker(value.trim())
        .map_err(|reason| Failure::code(ResponseCode::INVALID_PARAMETER, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_setting_may_be_changed() {
        assert!(setting("brokerPermission=4").is_ok());
        for (line, code) in [
            ("brokerPermission=9", ResponseCode::INVALID_PARAMETER),
            ("brokerPermission", ResponseCode::INVALID_PARAMETER),
            ("storePathRootDir=/", ResponseCode::NO_PERMISSION),
            ("autoCreateTopicEnable=false", ResponseCode::NO_PERMISSION),
        ] {
            let refused = matches!(setting(line), Err(Failure::Code(given, _)) if given == code);
            assert!(refused, "{line}");
        }
    }
}
