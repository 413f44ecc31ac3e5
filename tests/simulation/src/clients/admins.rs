//! Topics that come and go.

use std::time::Duration;

use gantry_protocol::headers::{CreateTopicRequest, TopicRequest};
use gantry_protocol::{RequestCode, ResponseCode};
use tokio::time::sleep;

use super::{Client, Stage, queue, repeaters, request};
use crate::cluster::{FEATURE_TOPICS, QUEUES, TOPICS};

const LIMIT: Duration = Duration::from_secs(3);

/// Creates the topics of the load, then others, which get a message or two and are deleted again.
pub(super) async fn run(mut client: Client) {
    for topic in TOPICS {
        create_at_last(&mut client, topic).await;
    }
    let features = FEATURE_TOPICS
        .iter()
        .filter(|_| client.around.shape.features);
    let features: Vec<&str> = features.map(|(topic, _)| *topic).collect();
    for topic in features {
        create_at_last(&mut client, topic).await;
    }
    for number in 0u32.. {
        if client.stage() != Stage::Load {
            return;
        }
        let topic = format!("passing{number}");
        if create(&mut client, &topic).await {
            for _ in 0..client.rng.below(4) {
                let (node, message) = (client.node(), client.message());
                client.send(node, &queue(&topic, 0), vec![message]).await;
            }
        }
        let pause = client.rng.between(50, 600);
        sleep(Duration::from_millis(pause)).await;
        // Where a late send would bring it back under its old name, it stays.
        if !client.around.shape.auto_create && client.rng.per_mille(800) {
            delete(&mut client, &topic).await;
        }
    }
}

/// Creates a topic, unless the load ends before.
pub(super) async fn create_at_last(client: &mut Client, topic: &str) {
    while client.stage() == Stage::Load && !create(client, topic).await {
        sleep(Duration::from_millis(50)).await;
    }
}

async fn create(client: &mut Client, topic: &str) -> bool {
    let known = FEATURE_TOPICS.iter().find(|(name, _)| *name == topic);
    let queues = known.map_or(QUEUES, |(_, queues)| *queues);
    let header = CreateTopicRequest {
        topic,
        default_topic: "TBW102",
        read_queue_nums: i32::from(queues),
        write_queue_nums: i32::from(queues),
        perm: 6,
        topic_filter_type: "SINGLE_TAG",
        attributes: repeaters::attributes(topic),
        ..CreateTopicRequest::default()
    };
    let node = client.node();
    let asked = request(RequestCode::UPDATE_AND_CREATE_TOPIC, |f| header.write(f));
    let answer = client.call(node, asked, LIMIT).await;
    answer.is_ok_and(|answer| answer.response_code() == ResponseCode::SUCCESS)
}

async fn delete(client: &mut Client, topic: &str) {
    let header = TopicRequest { topic };
    let node = client.node();
    let asked = request(RequestCode::DELETE_TOPIC_IN_BROKER, |f| header.write(f));
    // Whether it is gone or not, nobody uses it again.
    drop(client.call(node, asked, LIMIT).await);
}
