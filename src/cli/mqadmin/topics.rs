//! Topics: topicList, topicRoute, topicStatus, topicClusterList, updateTopic, updateTopicPerm, deleteTopic.

use std::collections::BTreeSet;

use gantry_protocol::RequestCode;
use gantry_protocol::bodies::{QueueMap, TopicConfig, TopicRoute, TopicStats};
use gantry_protocol::headers::{CreateTopicRequest, TopicRequest};
use gantry_protocol::topic::{DEAD_LETTER_PREFIX, DEFAULT_TOPIC, RETRY_PREFIX};
use serde_json::json;

use super::call::{Call, body, master, request};
use super::format;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::client::BrokerGroup;

/// Queues of a topic when nobody says how many.
const QUEUES: i32 = 8;

pub(super) async fn list(call: Call) -> Outcome {
    let topics = call.client.topics().await?;
    if !call.has('c') {
        return Ok(output::line(&topics.join("\n"))?);
    }
    output::line(&format!(
        "{:<20}  {:<48}  {:<48}",
        "#Cluster Name", "#Topic", "#Consumer Group"
    ))?;
    let is_derived =
        |name: &str| name.starts_with(RETRY_PREFIX) || name.starts_with(DEAD_LETTER_PREFIX);
    for topic in topics.iter().filter(|topic| !is_derived(topic)) {
        let groups = call.client.groups_of(topic).await?.unwrap_or_default();
        let cluster = groups.first().map_or("", |group| &group.cluster);
        let mut consumers = call.consumers_of(topic, &groups).await?;
        if consumers.is_empty() {
            consumers.insert(String::new());
        }
        for consumer in consumers {
            let (cluster, topic) = (format::front(cluster, 20), format::front(topic, 64));
            let consumer = format::front(&consumer, 64);
            output::line(&format!("{cluster:<20}  {topic:<64}  {consumer:<64}"))?;
        }
    }
    Ok(())
}

async fn route_of(call: &Call, topic: &str) -> Result<TopicRoute, Failure> {
    let mut route = call
        .client
        .route(topic)
        .await?
        .ok_or_else(|| Failure::new(format!("topic {topic} does not exist")))?;
    route
        .broker_datas
        .sort_by(|a, b| a.broker_name.cmp(&b.broker_name));
    Ok(route)
}

pub(super) async fn route(call: Call) -> Outcome {
    let route = route_of(&call, call.text('t')).await?;
    if !call.has('l') {
        let brokers = route.broker_datas.iter().map(|data| {
            json!({ "brokerAddrs": data.broker_addrs, "brokerName": data.broker_name,
                "cluster": data.cluster, "enableActingMaster": data.enable_acting_master })
        });
        let queues = route.queue_datas.iter().map(|data| {
            json!({ "brokerName": data.broker_name, "perm": data.perm,
                "readQueueNums": data.read_queue_nums, "topicSysFlag": data.topic_sys_flag,
                "writeQueueNums": data.write_queue_nums })
        });
        let shown = json!({ "brokerDatas": brokers.collect::<Vec<_>>(), "filterServerTable": {},
            "queueDatas": queues.collect::<Vec<_>>() });
        let text = serde_json::to_string_pretty(&shown).map_err(std::io::Error::other)?;
        return Ok(output::line(&text)?);
    }
    let row = |cells: [&str; 6]| {
        let [cluster, broker, addresses, read, write, perm] = cells;
        output::line(&format!(
            "{cluster:<45} {broker:<32} {addresses:<50} {read:<10} {write:<11} {perm:<5}"
        ))
    };
    row([
        "#ClusterName",
        "#BrokerName",
        "#BrokerAddrs",
        "#ReadQueue",
        "#WriteQueue",
        "#Perm",
    ])?;
    let (mut read, mut write) = (0, 0);
    for broker in &route.broker_datas {
        let queues = route
            .queue_datas
            .iter()
            .find(|queues| queues.broker_name == broker.broker_name);
        let Some(queues) = queues else { continue };
        read += queues.read_queue_nums;
        write += queues.write_queue_nums;
        row([
            &broker.cluster,
            &broker.broker_name,
            &format::map(&broker.broker_addrs),
            &queues.read_queue_nums.to_string(),
            &queues.write_queue_nums.to_string(),
            &queues.perm.to_string(),
        ])?;
    }
    output::line(&"-".repeat(158))?;
    let brokers = route.broker_datas.len().to_string();
    Ok(row([
        "Total:",
        &brokers,
        "",
        &read.to_string(),
        &write.to_string(),
        "",
    ])?)
}

pub(super) async fn status(call: Call) -> Outcome {
    let topic = call.text('t');
    let groups = match call.option('c') {
        Some(cluster) => call.groups_of_cluster(cluster).await?,
        None => call.groups_of_topic(topic).await?,
    };
    let (mut offsets, mut tps) = (QueueMap::new(), 0.0);
    for group in &groups {
        let stats = stats_of(&call, group, topic).await?;
        tps += stats.topic_put_tps;
        offsets.extend(stats.offset_table);
    }
    output::line(&format!(
        "{:<32}  {:<4}  {:<20}  {:<20}    {}",
        "#Broker Name", "#QID", "#Min Offset", "#Max Offset", "#Last Updated"
    ))?;
    for (queue, bounds) in &offsets {
        let updated = match bounds.last_update_timestamp {
            0 => String::new(),
            ms => format::millis(ms),
        };
        output::line(&format!(
            "{:<32}  {:<4}  {:<20}  {:<20}    {updated}",
            format::front(&queue.broker_name, 32),
            queue.queue_id,
            bounds.min_offset,
            bounds.max_offset
        ))?;
    }
    Ok(output::line(&format!("\nTopic Put TPS: {tps}"))?)
}

async fn stats_of(call: &Call, group: &BrokerGroup, topic: &str) -> Result<TopicStats, Failure> {
    let asked = request(RequestCode::GET_TOPIC_STATS_INFO, |fields| {
        TopicRequest { topic }.write(fields)
    });
    let answer = call.ask_group(group, asked).await?;
    body(TopicStats::decode(&answer.body))
}

pub(super) async fn clusters(call: Call) -> Outcome {
    let groups = call.groups_of_topic(call.text('t')).await?;
    let clusters: BTreeSet<String> = groups.into_iter().map(|group| group.cluster).collect();
    for cluster in clusters {
        output::line(&cluster)?;
    }
    Ok(())
}

pub(super) async fn update(call: Call) -> Outcome {
    let unit = i32::from(call.flag('u', false)?) | i32::from(call.flag('s', false)?) << 1;
    let config = TopicConfig {
        topic_name: call.text('t').to_string(),
        read_queue_nums: call.number('r', QUEUES)?,
        write_queue_nums: call.number('w', QUEUES)?,
        perm: call.number('p', 6)?,
        order: call.flag('o', false)?,
        topic_sys_flag: unit,
        ..TopicConfig::default()
    };
    for address in call.targets().await? {
        put(&call, &address, &config).await?;
        output::line(&format!("create topic to {address} success."))?;
    }
    Ok(output::line(&shown(&config))?)
}

async fn put(call: &Call, address: &str, config: &TopicConfig) -> Outcome {
    let header = CreateTopicRequest {
        topic: &config.topic_name,
        default_topic: DEFAULT_TOPIC,
        read_queue_nums: config.read_queue_nums,
        write_queue_nums: config.write_queue_nums,
        perm: config.perm,
        topic_filter_type: &config.topic_filter_type,
        topic_sys_flag: Some(config.topic_sys_flag),
        order: Some(config.order),
        attributes: call.option('a'),
        ..CreateTopicRequest::default()
    };
    let asked = request(RequestCode::UPDATE_AND_CREATE_TOPIC, |fields| {
        header.write(fields)
    });
    call.ask(address, asked).await.map(|_| ())
}

/// Settings as Java prints them.
fn shown(config: &TopicConfig) -> String {
    let perm = [(4, 'R'), (2, 'W'), (1, 'X')]
        .map(|(bit, letter)| if config.perm & bit == 0 { '-' } else { letter });
    let perm: String = perm.iter().collect();
    format!(
        "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={perm}, \
         topicFilterType={}, topicSysFlag={}, order={}, attributes={}]",
        config.topic_name,
        config.read_queue_nums,
        config.write_queue_nums,
        config.topic_filter_type,
        config.topic_sys_flag,
        config.order,
        format::map(&config.attributes)
    )
}

pub(super) async fn update_perm(call: Call) -> Outcome {
    let topic = call.text('t');
    let perm = call.number('p', 6)?;
    let targets = call.targets().await?;
    for group in call.groups_of_topic(topic).await? {
        let Some(address) = master(&group).filter(|address| targets.contains(address)) else {
            continue;
        };
        let asked = request(RequestCode::GET_TOPIC_CONFIG, |fields| {
            TopicRequest { topic }.write(fields)
        });
        let answer = call.ask_group(&group, asked).await?;
        let mut config = body(TopicConfig::decode(&answer.body))?;
        if config.perm == perm {
            output::line("new perm equals to the old one!")?;
            continue;
        }
        let old = std::mem::replace(&mut config.perm, perm);
        put(&call, &address, &config).await?;
        output::line(&format!(
            "update topic perm from {old} to {perm} in {address} success."
        ))?;
        output::line(&format!("{}.", shown(&config)))?;
    }
    Ok(())
}

pub(super) async fn delete(call: Call) -> Outcome {
    let (topic, cluster) = (call.text('t'), call.text('c'));
    for group in call.groups_of_cluster(cluster).await? {
        let asked = request(RequestCode::DELETE_TOPIC_IN_BROKER, |fields| {
            TopicRequest { topic }.write(fields)
        });
        call.ask_group(&group, asked).await?;
    }
    output::line(&format!(
        "delete topic [{topic}] from cluster [{cluster}] success."
    ))?;
    // A topic goes from the routes with its brokers.
    Ok(output::line(&format!(
        "delete topic [{topic}] from NameServer success."
    ))?)
}
