//! Pulls with SQL92 filters: only what matches comes, from memory and from disk, a parked pull waits behind
//! what does not match, and what is no expression is refused with RocketMQ's code.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use gantry_protocol::bodies::{ConsumerData, Heartbeat, Subscription, SubscriptionCheck};
use gantry_protocol::headers::{PullRequest, PullResponse, SendRequest, pull_flags};
use gantry_protocol::message::Message;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::Instant;

use support::{Connection, OneNode};

const TOPIC: &str = "Filtered";

async fn send(client: &mut Connection, body: Vec<u8>, properties: &str) {
    let header = SendRequest {
        producer_group: "P",
        topic: TOPIC,
        default_topic: "TBW102",
        default_topic_queue_nums: 1,
        born_timestamp: 1,
        properties: Some(properties),
        ..SendRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, 0);
    header.write(RequestCode::SEND_MESSAGE_V2, &mut request.fields);
    let answer = client.ask(request.with_body(body)).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
}

fn pull(expression: Option<&str>, offset: i64, park_ms: i64) -> RemotingCommand {
    let mut flags = 0;
    if expression.is_some() {
        flags |= pull_flags::SUBSCRIPTION;
    }
    if park_ms > 0 {
        flags |= pull_flags::SUSPEND;
    }
    let header = PullRequest {
        consumer_group: "C",
        topic: TOPIC,
        queue_id: 0,
        queue_offset: offset,
        max_msg_nums: 32,
        sys_flag: flags,
        suspend_timeout_millis: park_ms,
        subscription: expression,
        expression_type: expression.map(|_| "SQL92"),
        ..PullRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::PULL_MESSAGE, 0);
    header.write(&mut request.fields);
    request
}

/// Queue offsets of the messages in an answer, and where to go on.
fn found(answer: &RemotingCommand) -> (Vec<i64>, i64) {
    let header = PullResponse::parse(&answer.fields).unwrap();
    let messages = Message::decode_all(answer.body.clone()).unwrap();
    let offsets = messages.iter().map(|message| message.queue_offset);
    (offsets.collect(), header.next_begin_offset)
}

/// Twenty messages; `n` counts, the odd ones are red, and some bodies are too large to be read for nothing.
async fn fill(client: &mut Connection) {
    for n in 0..20 {
        let color = if n % 2 == 1 { "red" } else { "blue" };
        let body = vec![b'x'; if n % 5 == 0 { 20_000 } else { 100 }];
        send(
            client,
            body,
            &format!("n\u{1}{n}\u{2}color\u{1}{color}\u{2}"),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_matches_comes() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    fill(&mut client).await;
    for (expression, expected) in [
        ("n >= 17", vec![17, 18, 19]),
        ("color = 'red' AND n BETWEEN 3 AND 8", vec![3, 5, 7]),
        ("n IN ('0', '15') OR gone IS NOT NULL", vec![0, 15]),
        ("color NOT STARTSWITH 'r' AND n < 3", vec![0, 2]),
        ("TRUE", (0..20).collect()),
    ] {
        let answer = client.ask(pull(Some(expression), 0, 0)).await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
        assert_eq!(found(&answer), (expected, 20), "{expression}");
    }
    let answer = client.ask(pull(Some("n > 100"), 0, 0)).await;
    assert_eq!(answer.response_code(), ResponseCode::PULL_RETRY_IMMEDIATELY);
    assert_eq!(found(&answer), (Vec::new(), 20));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_pull_waits_behind_what_does_not_match() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    fill(&mut client).await;
    let mut waiting = node.connect().await;
    let parked = tokio::spawn(async move {
        let answer = waiting.ask(pull(Some("n >= 100"), 0, 15_000)).await;
        (answer, Instant::now(), waiting)
    });
    for n in [21, 22, 23] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        send(&mut client, vec![1], &format!("n\u{1}{n}\u{2}")).await;
    }
    assert!(!parked.is_finished(), "answered with nothing that matches");
    send(&mut client, vec![1], "n\u{1}100\u{2}").await;
    let sent = Instant::now();
    let (answer, answered, mut waiting) = parked.await.unwrap();
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    assert_eq!(found(&answer), (vec![23], 24));
    assert!(
        answered < sent + Duration::from_secs(5),
        "woken, not timed out"
    );

    let answer = waiting.ask(pull(Some("n > 1000"), 20, 200)).await;
    assert_eq!(
        answer.response_code(),
        ResponseCode::PULL_NOT_FOUND,
        "{answer:?}"
    );
    assert_eq!(
        found(&answer),
        (Vec::new(), 24),
        "the client need not see them again"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_subscription_of_a_heartbeat_filters_too() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    fill(&mut client).await;
    let heartbeat = |expression: &str, version| Heartbeat {
        client_id: "c@1".into(),
        consumer_data_set: vec![ConsumerData {
            group_name: "C".into(),
            subscription_data_set: vec![Subscription {
                topic: TOPIC.into(),
                expression_type: "SQL92".into(),
                sub_string: expression.into(),
                sub_version: version,
                ..Subscription::default()
            }],
            ..ConsumerData::default()
        }],
        ..Heartbeat::default()
    };
    let told = |body: Vec<u8>| RemotingCommand::request(RequestCode::HEART_BEAT, 0).with_body(body);
    client.ask(told(heartbeat("n = 4", 1).encode())).await;
    let answer = client.ask(pull(None, 0, 0)).await;
    assert_eq!(found(&answer), (vec![4], 20), "{answer:?}");
    client.ask(told(heartbeat("n = ", 2).encode())).await;
    let answer = client.ask(pull(None, 0, 0)).await;
    assert_eq!(
        answer.response_code(),
        ResponseCode::SUBSCRIPTION_PARSE_FAILED
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_expression_is_refused() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    send(&mut client, vec![1], "n\u{1}1\u{2}").await;
    let too_long = "n = 1 OR ".repeat(1000);
    for expression in ["", "n", "n >", "n LIKE 'x'", too_long.as_str()] {
        let answer = client.ask(pull(Some(expression), 0, 0)).await;
        assert_eq!(
            answer.response_code(),
            ResponseCode::SUBSCRIPTION_PARSE_FAILED
        );
        let remark = answer.remark.unwrap_or_default();
        let expected = remark.starts_with("parse the consumer's subscription failed");
        assert!(expected, "{expression}: {remark}");
    }
    for (kind, expression, expected) in [
        ("SQL92", "n > 1", ResponseCode::SUCCESS),
        ("TAG", "*", ResponseCode::SUCCESS),
        ("SQL92", "n >", ResponseCode::SUBSCRIPTION_PARSE_FAILED),
        ("OTHER", "n > 1", ResponseCode::SYSTEM_ERROR),
    ] {
        let check = SubscriptionCheck {
            subscription_data: Subscription {
                topic: TOPIC.into(),
                expression_type: kind.into(),
                sub_string: expression.into(),
                ..Subscription::default()
            },
            ..SubscriptionCheck::default()
        };
        let asked = RemotingCommand::request(RequestCode::CHECK_CLIENT_CONFIG, 0);
        let answer = client.ask(asked.with_body(check.encode())).await;
        assert_eq!(
            answer.response_code(),
            expected,
            "{kind} {expression}: {answer:?}"
        );
    }
    node.stop().await;
}
