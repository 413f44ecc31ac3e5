//! Messages as a client sends and reads them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_protocol::headers::{CreateTopicRequest, PullRequest, SendRequest, pull_flags};
use gantry_protocol::message::Message;
use gantry_protocol::properties::Builder;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::{Instant, sleep};

use super::Connection;

/// The machine's clock; milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

/// Creates a topic with these attributes, in the form of RocketMQ's tools, or changes it.
pub fn create_topic(topic: &str, queues: i32, attributes: &str) -> RemotingCommand {
    let header = CreateTopicRequest {
        topic,
        default_topic: "TBW102",
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm: 6,
        topic_filter_type: "SINGLE_TAG",
        attributes: Some(attributes),
        ..CreateTopicRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::UPDATE_AND_CREATE_TOPIC, 0);
    header.write(&mut request.fields);
    request
}

/// A send to queue 0 of a topic with one queue.
pub fn send(topic: &str, body: &str, properties: &[(&str, &str)]) -> RemotingCommand {
    send_with(SendRequest::default(), topic, body, properties)
}

/// The same with some more of the header given.
pub fn send_with(
    header: SendRequest<'_>,
    topic: &str,
    body: &str,
    properties: &[(&str, &str)],
) -> RemotingCommand {
    let mut text = Builder::new();
    for (name, value) in properties {
        text.push(name, value);
    }
    let header = SendRequest {
        producer_group: "P",
        topic,
        default_topic: "TBW102",
        default_topic_queue_nums: 1,
        born_timestamp: 1,
        properties: Some(text.as_str()),
        ..header
    };
    let mut request = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, 0);
    header.write(RequestCode::SEND_MESSAGE_V2, &mut request.fields);
    request.with_body(body.as_bytes().to_vec())
}

/// Sends what must be taken.
pub async fn sent(client: &mut Connection, request: RemotingCommand) -> RemotingCommand {
    let answer = client.ask(request).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    answer
}

/// All messages of queue 0 of a topic, once there are `count`; none comes for a while after that.
pub async fn arrived(client: &mut Connection, topic: &str, count: usize) -> Vec<Message> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let messages = pull_all(client, topic).await;
        if messages.len() >= count {
            sleep(Duration::from_millis(300)).await;
            let messages = pull_all(client, topic).await;
            assert_eq!(messages.len(), count, "{topic}");
            return messages;
        }
        let came = messages.len();
        assert!(
            Instant::now() < deadline,
            "{came} of {count} messages came to {topic}"
        );
        sleep(Duration::from_millis(10)).await;
    }
}

/// What is in queue 0 of a topic now.
pub async fn pull_all(client: &mut Connection, topic: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let header = PullRequest {
            consumer_group: "C",
            topic,
            queue_offset: messages.len() as i64,
            max_msg_nums: 32,
            sys_flag: pull_flags::SUBSCRIPTION,
            subscription: Some("*"),
            ..PullRequest::default()
        };
        let mut request = RemotingCommand::request(RequestCode::PULL_MESSAGE, 0);
        header.write(&mut request.fields);
        let answer = client.ask(request).await;
        match answer.response_code() {
            ResponseCode::SUCCESS => {}
            ResponseCode::PULL_NOT_FOUND
            | ResponseCode::PULL_OFFSET_MOVED
            | ResponseCode::TOPIC_NOT_EXIST => return messages,
            _ => panic!("{answer:?}"),
        }
        messages.extend(Message::decode_all(answer.body.clone()).unwrap());
    }
}

/// Bodies as texts.
pub fn bodies(messages: &[Message]) -> Vec<String> {
    let text = |message: &Message| String::from_utf8(message.body.to_vec()).unwrap();
    messages.iter().map(text).collect()
}
