//! Topics: those of the round, some that come and go, and one whose definition is changed and looked up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_checker::{Answer, Queue, Request};
use gantry_protocol::bodies::TopicConfig;
use gantry_protocol::headers::{CreateTopicRequest, TopicRequest};
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::{Instant, sleep};

use super::client::{Asker, Heard, command, group_of, is_success, parsed};
use super::{FEATURE_TOPICS, QUEUES, Round, producer};
use crate::net::NODES;
use crate::node::GROUPS;
use crate::shell::{Outcome, failure};

/// The attribute that holds a definition's value.
const VALUE: &str = "chaos.value";

fn create(topic: &str, queues: u16, attributes: Option<&str>) -> RemotingCommand {
    let header = CreateTopicRequest {
        topic,
        default_topic: "TBW102",
        read_queue_nums: i32::from(queues),
        write_queue_nums: i32::from(queues),
        perm: 6,
        topic_filter_type: "SINGLE_TAG",
        attributes,
        ..CreateTopicRequest::default()
    };
    command(RequestCode::UPDATE_AND_CREATE_TOPIC, |fields| {
        header.write(fields)
    })
}

/// Creates the round's topics in all groups; the cluster is whole.
pub async fn create_topics(round: &Arc<Round>) -> Outcome {
    let mut asker = round.asker("topics".to_string(), 0);
    let until = Instant::now() + Duration::from_secs(20);
    let plain = round.topics.iter().map(|topic| (topic.clone(), QUEUES));
    let features = FEATURE_TOPICS.iter();
    let features = features.map(|(name, queues)| (round.topic(name), *queues));
    for (topic, queues) in plain.chain(features) {
        for (group, name) in GROUPS.iter().enumerate() {
            loop {
                let node = asker.choose_node(group);
                let heard = asker.ask(node, group, create(&topic, queues, None)).await;
                if is_success(&heard).is_some() {
                    break;
                }
                if Instant::now() > until {
                    return failure(format!("topic {topic} cannot be created in {name}"));
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    Ok(())
}

/// Deletes the round's topics; its messages are then removed by retention.
pub async fn delete_topics(asker: &mut Asker) -> Outcome {
    let queues = asker.round.every_queue().into_iter();
    let topics: BTreeSet<(usize, String)> = queues
        .map(|queue| (group_of(&queue), queue.topic))
        .collect();
    for (group, topic) in topics {
        delete(asker, &topic, group).await;
    }
    Ok(())
}

async fn delete(asker: &mut Asker, topic: &str, group: usize) -> bool {
    let header = TopicRequest { topic };
    let request = command(RequestCode::DELETE_TOPIC_IN_BROKER, |fields| {
        header.write(fields)
    });
    let node = asker.choose_node(group);
    is_success(&asker.ask(node, group, request).await).is_some()
}

/// Creates topics, sends to them, reads them and deletes them, until the round ends.
pub async fn churn(mut asker: Asker) -> Outcome {
    let mut number = 0;
    while asker.round.sends() {
        number += 1;
        let group = asker.random.below(GROUPS.len());
        let topic = format!("chaos-{}-short-{number}", asker.round.number);
        let node = asker.choose_node(group);
        if is_success(&asker.ask(node, group, create(&topic, QUEUES, None)).await).is_some() {
            let arrived = producer::send_some(&mut asker, &topic, group, 5).await?;
            let queue = Queue {
                broker: GROUPS[group].to_string(),
                topic: topic.clone(),
                queue: 0,
            };
            if arrived > 0 {
                let node = asker.random.below(NODES);
                asker.pull(node, &queue, 0, 32).await?;
            }
            delete(&mut asker, &topic, group).await;
        }
        sleep(Duration::from_millis(asker.random.between(200, 1500))).await;
    }
    Ok(())
}

fn register(round: &Round, group: usize) -> (String, String) {
    let topic = format!("chaos-{}-defined", round.number);
    (format!("{}/{topic}", GROUPS[group]), topic)
}

/// Changes the definition of a topic again and again.
pub async fn define(mut asker: Asker) -> Outcome {
    let mut number = 0;
    while asker.round.sends() {
        number += 1;
        let group = asker.random.below(GROUPS.len());
        let (register, topic) = register(&asker.round, group);
        let value = format!("v{number}");
        let attribute = format!("+{VALUE}={value}");
        let node = asker.choose_node(group);
        let call = asker.begin(Request::Put { register, value })?;
        let heard = asker
            .ask(node, group, create(&topic, QUEUES, Some(&attribute)))
            .await;
        match is_success(&heard) {
            Some(_) => asker.succeed(call, Answer::Done)?,
            None => asker.end(call, &heard)?,
        }
        sleep(Duration::from_millis(asker.random.between(50, 300))).await;
    }
    Ok(())
}

/// Looks that definition up on any node.
pub async fn look_up(mut asker: Asker) -> Outcome {
    while asker.round.sends() {
        let group = asker.random.below(GROUPS.len());
        let (register, topic) = register(&asker.round, group);
        let header = TopicRequest { topic: &topic };
        let request = command(RequestCode::GET_TOPIC_CONFIG, |fields| header.write(fields));
        let node = asker.random.below(NODES);
        let call = asker.begin(Request::Get { register })?;
        let heard = asker.ask(node, group, request).await;
        match &heard {
            Heard::Answer(answer) if answer.response_code() == ResponseCode::SUCCESS => {
                let config = parsed(TopicConfig::decode(&answer.body))?;
                let value = config.attributes.get(VALUE).cloned();
                asker.succeed(call, Answer::Value(value))?;
            }
            Heard::Answer(answer) if answer.response_code() == ResponseCode::TOPIC_NOT_EXIST => {
                asker.succeed(call, Answer::Value(None))?;
            }
            _ => asker.end(call, &heard)?,
        }
        sleep(Duration::from_millis(asker.random.between(10, 60))).await;
    }
    Ok(())
}
