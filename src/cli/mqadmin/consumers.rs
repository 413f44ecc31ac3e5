//! Groups and their members: updateSubGroup, setConsumeMode, deleteSubGroup, getConsumerConfig,
//! consumerProgress, consumerConnection, producerConnection, consumerStatus.

use std::collections::BTreeMap;

use gantry_protocol::RequestCode;
use gantry_protocol::bodies::{
    AllGroupConfig, ConsumeStats, ConsumeType, ConsumerConnection, GroupConfig, MessageModel,
    MessageQueue, ProducerConnection, QueueProgress, RequestModeName, SetRequestMode,
};
use gantry_protocol::headers::{
    ConsumeStatsRequest, ConsumerConnectionRequest, DeleteGroupRequest, ProducerConnectionRequest,
    RunningInfoRequest, TopicRequest,
};
use gantry_protocol::topic;
use serde_json::Value;

use super::call::{Call, body, master, request};
use super::format;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::client::BrokerGroup;

pub(super) async fn update_group(call: Call) -> Outcome {
    let default = GroupConfig::default();
    let config = GroupConfig {
        group_name: call.text('g').to_string(),
        consume_enable: call.flag('s', default.consume_enable)?,
        consume_from_min_enable: call.flag('m', default.consume_from_min_enable)?,
        consume_broadcast_enable: call.flag('d', default.consume_broadcast_enable)?,
        consume_message_orderly: call.flag('o', default.consume_message_orderly)?,
        retry_queue_nums: call.number('q', default.retry_queue_nums)?,
        retry_max_times: call.number('r', default.retry_max_times)?,
        broker_id: call.number('i', default.broker_id)?,
        which_broker_when_consume_slowly: call
            .number('w', default.which_broker_when_consume_slowly)?,
        notify_consumer_ids_changed_enable: call
            .flag('a', default.notify_consumer_ids_changed_enable)?,
        ..default
    };
    for address in call.targets().await? {
        let code = RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        let asked = request(code, |_| {}).with_body(config.encode());
        call.ask(&address, asked).await?;
        output::line(&format!("create subscription group to {address} success."))?;
    }
    let settings = settings(&config)?;
    Ok(output::line(&format!(
        "SubscriptionGroupConfig{}",
        format::map(settings)
    ))?)
}

pub(super) async fn set_mode(call: Call) -> Outcome {
    let (topic, group, mode) = (call.text('t'), call.text('g'), call.text('m'));
    let share = call.number('q', 0)?;
    let body = SetRequestMode {
        consumer_group: group.to_string(),
        mode: match mode {
            "PULL" => RequestModeName::Pull,
            "POP" => RequestModeName::Pop,
            other => {
                return Err(Failure::usage(format!("-m {other}: PULL or POP is needed")));
            }
        },
        pop_share_queue_num: share,
        topic: topic.to_string(),
    };
    for address in call.targets().await? {
        let asked = request(RequestCode::SET_MESSAGE_REQUEST_MODE, |_| {});
        call.ask(&address, asked.with_body(body.encode())).await?;
        output::line(&format!("set consume mode to {address} success."))?;
    }
    Ok(output::line(&format!(
        "topic[{topic}] group[{group}] consume mode[{mode}] popShareQueueNum[{share}]"
    ))?)
}

/// Settings by RocketMQ's names.
fn settings(config: &GroupConfig) -> Result<BTreeMap<String, String>, Failure> {
    let value: Value = body(serde_json::from_slice(&config.encode()))?;
    let members = value.as_object().into_iter().flatten();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Ok(members
        .map(|(name, value)| (name.clone(), text(value)))
        .collect())
}

pub(super) async fn delete_group(call: Call) -> Outcome {
    let name = call.text('g');
    let clean_offset = Some(call.flag('r', false)?);
    for address in call.targets().await? {
        let asked = request(RequestCode::DELETE_SUBSCRIPTIONGROUP, |fields| {
            DeleteGroupRequest {
                group_name: name,
                clean_offset,
            }
            .write(fields)
        });
        call.ask(&address, asked).await?;
        let place = match call.option('c') {
            Some(cluster) => format!("broker [{address}] in cluster [{cluster}]"),
            None => format!("broker [{address}]"),
        };
        output::line(&format!(
            "delete subscription group [{name}] from {place} success."
        ))?;
        for derived in [topic::retry_topic(name), topic::dead_letter_topic(name)] {
            let asked = request(RequestCode::DELETE_TOPIC_IN_BROKER, |fields| {
                TopicRequest { topic: &derived }.write(fields)
            });
            call.ask(&address, asked).await?;
        }
    }
    Ok(())
}

pub(super) async fn config(call: Call) -> Outcome {
    let name = call.text('g');
    for group in call.client.groups().await? {
        let asked = request(RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, |_| {});
        let answer = call.ask_group(&group, asked).await?;
        let all = body(AllGroupConfig::decode(&answer.body))?;
        let Some(config) = all.subscription_group_table.get(name) else {
            continue;
        };
        let line = "=".repeat(29);
        output::line(&format!("{line}{}:{}{line}", group.cluster, group.name))?;
        for (name, value) in settings(config)? {
            output::line(&format!("{name:<40}=  {value}"))?;
        }
    }
    Ok(())
}

/// How a group is, over all brokers.
#[derive(Default)]
struct Standing {
    queues: BTreeMap<MessageQueue, QueueProgress>,
    tps: f64,
    members: Option<ConsumerConnection>,
}

impl Standing {
    fn diff(&self) -> i64 {
        let behind = |at: &QueueProgress| at.broker_offset - at.consumer_offset;
        self.queues.values().map(behind).sum()
    }
}

async fn standing(
    call: &Call,
    groups: &[BrokerGroup],
    consumer_group: &str,
) -> Result<Standing, Failure> {
    let mut standing = Standing::default();
    for group in groups {
        let header = ConsumeStatsRequest {
            consumer_group,
            topic: call.option('t'),
            ..ConsumeStatsRequest::default()
        };
        let asked = request(RequestCode::GET_CONSUME_STATS, |fields| {
            header.write(fields)
        });
        let answer = call.ask_group(group, asked).await?;
        let stats = body(ConsumeStats::decode(&answer.body))?;
        standing.tps += stats.consume_tps;
        standing.queues.extend(stats.offset_table);
    }
    standing.members = match groups.first() {
        Some(group) => members(call, group, consumer_group).await?,
        None => None,
    };
    Ok(standing)
}

/// The members of a consumer group; none if nobody is online. Any node knows those of all.
async fn members(
    call: &Call,
    group: &BrokerGroup,
    consumer_group: &str,
) -> Result<Option<ConsumerConnection>, Failure> {
    let asked = request(RequestCode::GET_CONSUMER_CONNECTION_LIST, |fields| {
        ConsumerConnectionRequest { consumer_group }.write(fields)
    });
    let answer = call
        .client
        .ask_group(group, asked, super::call::TIMEOUT)
        .await;
    match answer {
        Ok(answer) => body(ConsumerConnection::decode(&answer.body)).map(Some),
        Err(error) if error.code() == Some(gantry_protocol::ResponseCode::CONSUMER_NOT_ONLINE) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn progress(call: Call) -> Outcome {
    let groups = match call.option('c') {
        Some(cluster) => call.groups_of_cluster(cluster).await?,
        None => call.client.groups().await?,
    };
    match call.option('g') {
        Some(name) => progress_of(&call, &groups, name).await,
        None => progress_of_all(&call, &groups).await,
    }
}

async fn progress_of(call: &Call, groups: &[BrokerGroup], name: &str) -> Outcome {
    let standing = standing(call, groups, name).await?;
    let shows_clients = call.flag('s', false)?;
    let client = |text: &str| {
        if shows_clients {
            format!("{text:<20} ")
        } else {
            String::new()
        }
    };
    let owners = if shows_clients {
        owners(call, groups, name, standing.members.as_ref()).await?
    } else {
        BTreeMap::new()
    };
    output::line(&format!(
        "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {}{:<20} {:<20}#LastTime",
        "#Topic",
        "#Broker Name",
        "#QID",
        "#Broker Offset",
        "#Consumer Offset",
        client("#Client IP"),
        "#Diff",
        "#Inflight",
    ))?;
    let mut under_way = 0;
    for (queue, at) in &standing.queues {
        let inflight = at.pull_offset - at.consumer_offset;
        under_way += inflight;
        let last = match at.last_timestamp {
            0 => "N/A".to_string(),
            ms => format::seconds(ms),
        };
        let owner = owners.get(queue).map_or("N/A", String::as_str);
        output::line(&format!(
            "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {}{:<20} {:<20} {last}",
            format::front(&queue.topic, 64),
            format::front(&queue.broker_name, 32),
            queue.queue_id,
            at.broker_offset,
            at.consumer_offset,
            client(owner),
            at.broker_offset - at.consumer_offset,
            inflight,
        ))?;
    }
    output::line(&format!("\nConsume TPS: {:.2}", standing.tps))?;
    output::line(&format!("Consume Diff Total: {}", standing.diff()))?;
    Ok(output::line(&format!(
        "Consume Inflight Total: {under_way}"
    ))?)
}

/// Which member's address has which queue, as the members tell.
async fn owners(
    call: &Call,
    groups: &[BrokerGroup],
    name: &str,
    members: Option<&ConsumerConnection>,
) -> Result<BTreeMap<MessageQueue, String>, Failure> {
    let mut owners = BTreeMap::new();
    let (Some(members), Some(group)) = (members, groups.first()) else {
        return Ok(owners);
    };
    for member in &members.connection_set {
        let info = running_info(call, group, (name, &member.client_id), false).await?;
        let address = member.client_id.split('@').next().unwrap_or_default();
        let queues = info.get("mqTable").and_then(Value::as_object);
        for key in queues.into_iter().flat_map(serde_json::Map::keys) {
            if let Ok(queue) = gantry_protocol::json::read::<MessageQueue>(key.as_bytes()) {
                owners.insert(queue, address.to_string());
            }
        }
    }
    Ok(owners)
}

async fn progress_of_all(call: &Call, groups: &[BrokerGroup]) -> Outcome {
    output::line(&format!(
        "{:<64}  {:<6}  {:<24} {:<5}  {:<14}  {:<7}  #Diff Total",
        "#Group", "#Count", "#Version", "#Type", "#Model", "#TPS"
    ))?;
    for topic in call.client.topics().await? {
        let Some(name) = topic::group_of_retry_topic(&topic) else {
            continue;
        };
        let standing = standing(call, groups, name).await?;
        let members = standing.members.as_ref();
        let count = members.map_or(0, |members| members.connection_set.len());
        let versions = members.iter().flat_map(|members| &members.connection_set);
        let least = versions.map(|member| member.version).min();
        let (kind, model) = members.map_or(("", ""), |members| {
            let kind = match members.consume_type {
                ConsumeType::Actively => "PULL",
                ConsumeType::Passively => "PUSH",
                ConsumeType::Pop => "POP",
            };
            (kind, model(members.message_model))
        });
        output::line(&format!(
            "{:<64}  {count:<6}  {:<24} {kind:<5}  {model:<14}  {:<7}  {}",
            format::front(name, 64),
            least.map_or_else(|| "OFFLINE".to_string(), format::version),
            standing.tps as i64,
            standing.diff()
        ))?;
    }
    Ok(())
}

fn model(model: MessageModel) -> &'static str {
    match model {
        MessageModel::Broadcasting => "BROADCASTING",
        MessageModel::Clustering => "CLUSTERING",
    }
}

/// A group of brokers to ask about clients.
async fn any_group(call: &Call) -> Result<BrokerGroup, Failure> {
    let groups = call.client.groups().await?;
    let wanted = call.option('b');
    let named = groups
        .iter()
        .find(|group| wanted.is_some() && master(group).as_deref() == wanted);
    let first = named.or(groups.first()).cloned();
    first.ok_or_else(|| Failure::new("the cluster has no brokers"))
}

/// The members, or a failure that says that there are none.
async fn online(call: &Call, name: &str) -> Result<(BrokerGroup, ConsumerConnection), Failure> {
    let group = any_group(call).await?;
    let members = members(call, &group, name).await?;
    let members =
        members.ok_or_else(|| Failure::new(format!("no consumer of group {name} is online")))?;
    Ok((group, members))
}

pub(super) async fn connection(call: Call) -> Outcome {
    let (_, members) = online(&call, call.text('g')).await?;
    let row = |id: &str, address: &str, language: &str, version: &str| {
        output::line(&format!("{id:<36} {address:<22} {language:<10} {version}"))
    };
    row("#ClientId", "#ClientAddr", "#Language", "#Version")?;
    for member in &members.connection_set {
        let version = format::version(member.version);
        row(
            &member.client_id,
            &member.client_addr,
            &member.language,
            &version,
        )?;
    }
    output::line("\nBelow is subscription:")?;
    output::line(&format!("{:<20} #SubExpression", "#Topic"))?;
    for subscription in members.subscription_table.values() {
        let (topic, expression) = (&subscription.topic, &subscription.sub_string);
        output::line(&format!("{topic:<20} {expression}"))?;
    }
    let name = |value: Value| value.as_str().unwrap_or_default().to_string();
    let kind = name(body(serde_json::to_value(members.consume_type))?);
    let from = name(body(serde_json::to_value(members.consume_from_where))?);
    output::line(&format!("\nConsumeType: {kind}"))?;
    output::line(&format!("MessageModel: {}", model(members.message_model)))?;
    Ok(output::line(&format!("ConsumeFromWhere: {from}"))?)
}

pub(super) async fn producers(call: Call) -> Outcome {
    let groups = call.groups_of_topic(call.text('t')).await?;
    let Some(group) = groups.first() else {
        return Err(Failure::new("the topic has no brokers"));
    };
    let asked = request(RequestCode::GET_PRODUCER_CONNECTION_LIST, |fields| {
        ProducerConnectionRequest {
            producer_group: call.text('g'),
        }
        .write(fields)
    });
    let answer = call.ask_group(group, asked).await?;
    let producers = body(ProducerConnection::decode(&answer.body))?.connection_set;
    for (number, one) in (1..).zip(&producers) {
        output::line(&format!(
            "{number:04}  {:<32} {:<22} {:<8} {}",
            one.client_id,
            one.client_addr,
            one.language,
            format::version(one.version)
        ))?;
    }
    Ok(())
}

async fn running_info(
    call: &Call,
    group: &BrokerGroup,
    (consumer_group, client_id): (&str, &str),
    jstack: bool,
) -> Result<Value, Failure> {
    let header = RunningInfoRequest {
        consumer_group,
        client_id,
        jstack_enable: Some(jstack),
    };
    let asked = request(RequestCode::GET_CONSUMER_RUNNING_INFO, |fields| {
        header.write(fields)
    });
    let answer = call.ask_group(group, asked).await?;
    body(gantry_protocol::json::read(&answer.body))
}

pub(super) async fn status(call: Call) -> Outcome {
    let name = call.text('g');
    if let Some(client_id) = call.option('i') {
        let group = any_group(&call).await?;
        let info = running_info(&call, &group, (name, client_id), call.has('s')).await?;
        let text = serde_json::to_string_pretty(&info).map_err(std::io::Error::other)?;
        return Ok(output::line(&text)?);
    }
    let (group, members) = online(&call, name).await?;
    output::line(&format!(
        "{:<10} {:<40} {:<20} #ConsumerRunningInfo",
        "#Index", "#ClientId", "#Version"
    ))?;
    for (number, member) in (1..).zip(&members.connection_set) {
        // RocketMQ's tool writes a file here; the information itself is shown instead.
        let info = match running_info(&call, &group, (name, &member.client_id), call.has('s')).await
        {
            Ok(info) => info.to_string(),
            Err(failure) => failure.message,
        };
        let version = format::version(member.version);
        let id = &member.client_id;
        output::line(&format!("{number:<10} {id:<40} {version:<20} {info}"))?;
    }
    Ok(())
}
