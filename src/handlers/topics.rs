//! Topics as clients and tools manage them: 17, 18, 21, 215, 216, 217, 300, 305, 343, 351.

mod config;

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_protocol::bodies::{
    self, AllTopicConfig, DataVersion, GroupList, TopicConfigList, TopicList,
};
use gantry_protocol::headers::{
    AllTopicConfigRequest, AllTopicConfigResponse, CreateTopicRequest, GroupRequest, TopicRequest,
};
use gantry_protocol::{RemotingCommand, ResponseCode};
use gantry_storage::tables::{Command, Topic};
use tokio::time::Instant;

use super::Handled;
use crate::broker::Broker;
use crate::catalog;
use crate::config::Config;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::remoting::Request;
use crate::sessions::Sessions;
use config::{check_name, checked, to_body};

pub use crate::catalog::system_topics;

/// What a send says about a topic that it takes for granted.
pub struct AutoCreate<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The topic whose settings it takes over.
    pub default_topic: &'a str,
    /// Queues that the client would like it to have.
    pub queues: i32,
}

/// The topic of a send: what there is, or a new one in all groups of brokers. Code 17 if topics are
/// not created on their own.
pub async fn auto_create(
    broker: &Broker,
    group: &Arc<Group>,
    wanted: AutoCreate<'_>,
    deadline: Instant,
) -> Result<Arc<Topic>, Failure> {
    let settings = (wanted.topic, wanted.default_topic, wanted.queues);
    let groups = (group, broker.groups.as_slice());
    catalog::auto_create_topic(groups, &broker.config.broker, settings, deadline).await
}

/// 17: creates a topic in one group of brokers or changes it.
pub async fn create(group: &Group, config: &Config, request: &Request) -> Handled {
    let header = CreateTopicRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    group.catch_up(deadline).await?;
    let known = group.store.tables().topic(header.topic);
    let mut attributes = known
        .map(|known| known.config.attributes.clone())
        .unwrap_or_default();
    catalog::change_attributes(&mut attributes, header.attributes.unwrap_or_default())
        .map_err(|reason| Failure::code(ResponseCode::SYSTEM_ERROR, reason))?;
    let wanted = bodies::TopicConfig {
        attributes,
        order: header.order.unwrap_or(false),
        perm: header.perm,
        read_queue_nums: header.read_queue_nums,
        topic_filter_type: header.topic_filter_type.to_string(),
        topic_name: header.topic.to_string(),
        topic_sys_flag: header.topic_sys_flag.unwrap_or(0),
        write_queue_nums: header.write_queue_nums,
    };
    let put = Command::PutTopic {
        config: checked(wanted, config)?,
    };
    catalog::change(group, vec![put], deadline).await?;
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 18: the same for several topics, all of them or none.
pub async fn create_list(group: &Group, config: &Config, request: &Request) -> Handled {
    let list = TopicConfigList::decode(&request.command.body);
    let list = list.map_err(|error| catalog::unreadable(&error))?;
    let puts: Result<Vec<Command>, Failure> = list
        .topic_config_list
        .into_iter()
        .map(|wanted| {
            Ok(Command::PutTopic {
                config: checked(wanted, config)?,
            })
        })
        .collect();
    let puts = puts?;
    if !puts.is_empty() {
        catalog::change(group, puts, request.caller.received + HOLD).await?;
    }
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 215: forgets a topic, its messages, and the offsets in it, in one group of brokers.
pub async fn delete(group: &Group, config: &Config, request: &Request) -> Handled {
    let header = TopicRequest::parse(&request.command.fields)?;
    check_name(header.topic, config)?;
    let command = Command::DeleteTopic {
        name: header.topic.to_string(),
    };
    catalog::change(group, vec![command], request.caller.received + HOLD).await?;
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 216 and 217: name servers have no topics of their own here, so there is nothing to do.
pub fn nothing_to_do(request: &Request) -> Handled {
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 21: all topics of a group of brokers, or a page of them.
pub async fn all(group: &Group, request: &Request) -> Handled {
    let header = AllTopicConfigRequest::parse(&request.command.fields)?;
    group.catch_up(request.caller.received + HOLD).await?;
    let first = header.topic_seq.unwrap_or(0).max(0) as usize;
    let count = header.max_topic_num.filter(|count| *count > 0);
    let (total, body) = {
        let tables = group.store.tables();
        let page = tables
            .topics()
            .skip(first)
            .take(count.map_or(usize::MAX, |n| n as usize));
        let page = page.map(|topic| (topic.config.name.clone(), to_body(&topic.config)));
        let body = AllTopicConfig {
            data_version: data_version(group, tables.clock_ms()),
            topic_config_table: page.collect(),
        };
        (tables.topics().count(), body)
    };
    let mut response = RemotingCommand::success_to(&request.command).with_body(body.encode());
    AllTopicConfigResponse {
        total_topic_num: Some(total as i32),
    }
    .write(&mut response.fields);
    Ok(response.into())
}

/// 351: one topic, as it is now: who has just changed it sees the change on every node.
pub async fn get(group: &Group, request: &Request) -> Handled {
    let header = TopicRequest::parse(&request.command.fields)?;
    let deadline = request.caller.received + HOLD;
    group.catch_up(deadline).await?;
    let topic = catalog::topic(group, header.topic, deadline).await?;
    let body = to_body(&topic.config).encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

/// 300: the groups that have offsets in a topic or subscribe to it.
pub fn consumed_by(group: &Group, sessions: &Sessions, request: &Request) -> Handled {
    let header = TopicRequest::parse(&request.command.fields)?;
    let mut groups: BTreeSet<String> = sessions.groups_of(header.topic).into_iter().collect();
    let tables = group.store.tables();
    groups.extend(
        tables
            .groups_with_offsets_in(header.topic)
            .map(String::from),
    );
    drop(tables);
    let body = GroupList {
        group_list: groups.into_iter().collect(),
    }
    .encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

/// 343: the topics that a consumer group has offsets in.
pub fn of_group(group: &Group, request: &Request) -> Handled {
    let header = GroupRequest::parse(&request.command.fields)?;
    let topics: BTreeSet<String> = {
        let tables = group.store.tables();
        tables
            .offsets_of(header.group)
            .map(|(topic, _, _)| topic.to_string())
            .collect()
    };
    let body = TopicList {
        broker_addr: None,
        topic_list: topics.into_iter().collect(),
    }
    .encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

/// 305: the topics that the broker has for itself.
pub fn system(group: &Group, config: &Config, request: &Request) -> Handled {
    let own = system_topics(config, &group.name);
    let topic_list = own.into_iter().map(|topic| topic.name).collect();
    let body = TopicList {
        broker_addr: None,
        topic_list,
    }
    .encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

/// State of a group's tables, as tools compare it.
fn data_version(group: &Group, clock_ms: u64) -> DataVersion {
    let counter = *group.applied.borrow() as i64;
    DataVersion {
        counter,
        state_version: 0,
        timestamp: clock_ms as i64,
    }
}
