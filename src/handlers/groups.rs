//! Consumer groups as tools manage them: 200, 201, 207, 225, 345, 352.

mod config;

use gantry_protocol::RemotingCommand;
use gantry_protocol::bodies::{
    AllGroupConfig, DataVersion, GroupConfig, GroupConfigList, GroupSubscription,
};
use gantry_protocol::headers::{
    AllGroupConfigRequest, AllGroupConfigResponse, DeleteGroupRequest, GroupRequest,
    GroupTopicRequest,
};
use gantry_storage::tables::Command;

use super::Handled;
use crate::catalog;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::permissions;
use crate::remoting::Request;
use crate::sessions::Sessions;
use config::{checked, to_body};

/// 200: creates a consumer group in one group of brokers or changes it.
pub async fn update(group: &Group, request: &Request) -> Handled {
    let wanted = GroupConfig::decode(&request.command.body);
    put(
        group,
        vec![wanted.map_err(|error| catalog::unreadable(&error))?],
        request,
    )
    .await
}

/// 225: the same for several consumer groups, all of them or none.
pub async fn update_list(group: &Group, request: &Request) -> Handled {
    let wanted = GroupConfigList::decode(&request.command.body);
    let wanted = wanted.map_err(|error| catalog::unreadable(&error))?;
    put(group, wanted.group_config_list, request).await
}

async fn put(group: &Group, wanted: Vec<GroupConfig>, request: &Request) -> Handled {
    let puts: Result<Vec<Command>, Failure> = wanted
        .into_iter()
        .map(|wanted| {
            Ok(Command::PutGroup {
                config: checked(wanted)?,
            })
        })
        .collect();
    let puts = puts?;
    if !puts.is_empty() {
        catalog::change(group, puts, request.caller.received + HOLD).await?;
    }
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 207: forgets the settings of a consumer group, and where it was if that is asked for.
pub async fn delete(group: &Group, request: &Request) -> Handled {
    let header = DeleteGroupRequest::parse(&request.command.fields)?;
    let command = Command::DeleteGroup {
        name: header.group_name.to_string(),
        clean_offsets: header.clean_offset.unwrap_or(false),
    };
    catalog::change(group, vec![command], request.caller.received + HOLD).await?;
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 201: all consumer groups of a group of brokers, or a page of them.
pub async fn all(group: &Group, request: &Request) -> Handled {
    let header = AllGroupConfigRequest::parse(&request.command.fields)?;
    group.catch_up(request.caller.received + HOLD).await?;
    let first = header.group_seq.unwrap_or(0).max(0) as usize;
    let count = header.max_group_num.filter(|count| *count > 0);
    let counter = *group.applied.borrow() as i64;
    let (total, body) = {
        let tables = group.store.tables();
        let page = tables
            .groups()
            .skip(first)
            .take(count.map_or(usize::MAX, |n| n as usize));
        let page = page.map(|config| (config.name.clone(), to_body(config)));
        let timestamp = tables.clock_ms() as i64;
        let body = AllGroupConfig {
            data_version: DataVersion {
                counter,
                state_version: 0,
                timestamp,
            },
            forbidden_table: permissions::forbidden_reads(&tables),
            subscription_group_table: page.collect(),
        };
        (tables.groups().count(), body)
    };
    let mut response = RemotingCommand::success_to(&request.command).with_body(body.encode());
    AllGroupConfigResponse {
        total_group_num: Some(total as i32),
    }
    .write(&mut response.fields);
    Ok(response.into())
}

/// 352: one consumer group.
pub async fn get(group: &Group, request: &Request) -> Handled {
    let header = GroupRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    let found = catalog::configured_group(group, header.group, deadline).await?;
    let body = to_body(&found).encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

/// 345: what a consumer group subscribed to in a topic.
pub fn subscription(sessions: &Sessions, request: &Request) -> Handled {
    let header = GroupTopicRequest::parse(&request.command.fields)?;
    let found = sessions.subscription(header.group, header.topic);
    let body = GroupSubscription {
        group: header.group.to_string(),
        subscription_data: found.map(|found| (*found).clone()),
        topic: header.topic.to_string(),
    };
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}
