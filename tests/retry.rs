//! What consumers hand back comes again after its delay, and ends as a dead letter when it came often enough.

#![allow(clippy::unwrap_used)]

mod support;

use gantry_protocol::bodies::{CounterStats, GroupConfig, LockRequest, MessageQueue};
use gantry_protocol::headers::{CounterRequest, SendBackRequest, SendRequest};
use gantry_protocol::message::Message;
use gantry_protocol::properties;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};

use serde_json::json;

use support::messages::{arrived, bodies, now_ms, pull_all, send, send_with, sent};
use support::{Connection, OneNode};

const LEVELS: &str = r#"message_delay_levels = "100ms 200ms 300ms 400ms 500ms""#;

/// Hands a message back for group `G`.
fn send_back(message: &Message, delay_level: i32) -> RemotingCommand {
    let header = SendBackRequest {
        offset: message.physical_offset,
        group: "G",
        delay_level,
        origin_topic: Some("T"),
        max_reconsume_times: Some(2),
        ..SendBackRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::CONSUMER_SEND_MSG_BACK, 0);
    header.write(&mut request.fields);
    request
}

/// How many messages of the topic the group has handed back within a minute.
async fn counted(client: &mut Connection) -> i64 {
    let header = CounterRequest {
        stats_name: "SNDBCK_PUT_NUMS",
        stats_key: "T@G",
    };
    let mut request = RemotingCommand::request(RequestCode::VIEW_BROKER_STATS_DATA, 0);
    header.write(&mut request.fields);
    let answer = sent(client, request).await;
    CounterStats::decode(&answer.body).unwrap().stats_minute.sum
}

/// A member of group `C` takes queue 0 of topic `T` for itself.
async fn lock(client: &mut Connection) {
    let queue = MessageQueue {
        topic: "T".to_string(),
        broker_name: "broker-a".to_string(),
        queue_id: 0,
    };
    let body = LockRequest {
        consumer_group: "C".to_string(),
        client_id: "c".to_string(),
        mq_set: vec![queue],
        only_this_broker: true,
    };
    let request = RemotingCommand::request(RequestCode::LOCK_BATCH_MQ, 0);
    sent(client, request.with_body(body.encode())).await;
}

fn property<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    properties::get(&message.properties, name)
}

/// What waits for consumers, as `gantry status` tells it; the words of its tables, line by line.
fn held_up(node: &OneNode) -> (serde_json::Value, Vec<Vec<String>>) {
    let http = node.http.to_string();
    let run = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gantry"));
        let output = command
            .args(["status", "--http", &http])
            .args(more)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let json: serde_json::Value = serde_json::from_str(&run(&["-o", "json"])).unwrap();
    let words = |line: &str| line.split_whitespace().map(String::from).collect();
    let waiting = json["nodes"][0]["groups"][0]["waiting"].clone();
    (waiting, run(&[]).lines().map(words).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_what_waits_and_for_whom() {
    let node = OneNode::start_with("message_delay_levels = \"100ms 1h\"").await;
    let mut client = node.connect().await;
    let nothing = json!({ "timers": 0, "half_messages": 0, "leases": 0, "consumers": [] });
    assert_eq!(held_up(&node).0, nothing);

    let group = GroupConfig {
        group_name: "G".to_string(),
        ..GroupConfig::default()
    };
    let create = RemotingCommand::request(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, 0);
    sent(&mut client, create.with_body(group.encode())).await;
    for body in ["dead", "soon", "late"] {
        sent(&mut client, send("T", body, &[])).await;
    }
    sent(
        &mut client,
        send("T", "half", &[("TRAN_MSG", "true"), ("PGROUP", "P")]),
    )
    .await;
    let messages = pull_all(&mut client, "T").await;
    for (message, level) in messages.iter().zip([-1, 1, 2]) {
        sent(&mut client, send_back(message, level)).await;
    }
    arrived(&mut client, "%RETRY%G", 1).await;
    let (waiting, lines) = held_up(&node);
    let of_group = json!({ "group": "G", "in_flight": 0, "retries": 1, "dead_letters": 1 });
    assert_eq!(waiting["timers"], 1);
    assert_eq!(waiting["half_messages"], 1);
    assert_eq!(waiting["consumers"], json!([of_group]));
    assert!(
        lines.contains(&["broker-a", "1", "1", "0"].map(String::from).to_vec()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&["G", "broker-a", "0", "1", "1"].map(String::from).to_vec()),
        "{lines:?}"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_handed_back_comes_again_later_each_time_and_then_is_dead() {
    let node = OneNode::start_with(LEVELS).await;
    let mut client = node.connect().await;
    sent(
        &mut client,
        send("T", "hard", &[("TAGS", "A"), ("UNIQ_KEY", "U")]),
    )
    .await;
    let mut message = arrived(&mut client, "T", 1).await.remove(0);
    let mut origin = None;
    // Levels 3 and 4 where the broker chooses.
    for (times, wait_ms) in [(1, 300), (2, 400)] {
        let began = now_ms();
        sent(&mut client, send_back(&message, 0)).await;
        let again = arrived(&mut client, "%RETRY%G", times as usize).await;
        message = again.last().unwrap().clone();
        assert!(message.store_timestamp as u64 >= began + wait_ms, "early");
        assert_eq!(message.reconsume_times, times);
        assert_eq!(property(&message, "RETRY_TOPIC"), Some("T"));
        assert_eq!(property(&message, "TAGS"), Some("A"));
        let first = property(&message, "ORIGIN_MESSAGE_ID").map(str::to_string);
        assert!(first.is_some() && (origin.is_none() || origin == first));
        origin = first;
    }
    assert_eq!(counted(&mut client).await, 2);
    let began = now_ms();
    sent(&mut client, send_back(&message, 0)).await;
    let dead = arrived(&mut client, "%DLQ%G", 1).await.remove(0);
    assert!(
        (dead.store_timestamp as u64) < began + 300,
        "it waits for nothing"
    );
    assert_eq!((dead.reconsume_times, &dead.body[..]), (3, &b"hard"[..]));
    assert_eq!(property(&dead, "DLQ_ORIGIN_TOPIC"), Some("T"));
    assert_eq!(property(&dead, "DLQ_ORIGIN_MESSAGE_ID"), origin.as_deref());
    assert_eq!(property(&dead, "UNIQ_KEY"), Some("U"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_consumer_may_choose_the_level_or_give_up() {
    let node = OneNode::start_with(LEVELS).await;
    let mut client = node.connect().await;
    sent(&mut client, send("T", "x", &[])).await;
    let message = arrived(&mut client, "T", 1).await.remove(0);
    let began = now_ms();
    sent(&mut client, send_back(&message, 1)).await;
    sent(&mut client, send_back(&message, -1)).await;
    let again = arrived(&mut client, "%RETRY%G", 1).await;
    let stored = again[0].store_timestamp as u64;
    assert!(
        (began + 100..began + 1_500).contains(&stored),
        "{}",
        stored - began
    );
    arrived(&mut client, "%DLQ%G", 1).await;
    let gone = Message {
        physical_offset: message.physical_offset + 1,
        ..message
    };
    let answer = client.ask(send_back(&gone, 0)).await;
    assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_sends_to_its_retry_topic_gets_it_back_and_then_dead_letters() {
    let node = OneNode::start_with(LEVELS).await;
    let mut client = node.connect().await;
    let attempt = |times, body| {
        let header = SendRequest {
            reconsume_times: Some(times),
            max_reconsume_times: Some(3),
            ..SendRequest::default()
        };
        send_with(
            header,
            "%RETRY%C",
            body,
            &[("DELAY", "5"), ("RETRY_TOPIC", "T")],
        )
    };
    let began = now_ms();
    sent(&mut client, attempt(3, "again")).await;
    sent(&mut client, attempt(4, "dead")).await;
    assert_eq!(bodies(&arrived(&mut client, "%DLQ%C", 1).await), ["dead"]);
    assert!(now_ms() < began + 500, "a dead letter does not wait");
    let messages = arrived(&mut client, "%RETRY%C", 1).await;
    assert_eq!(bodies(&messages), ["again"]);
    assert!(messages[0].store_timestamp as u64 >= began + 500);
    assert_eq!(messages[0].reconsume_times, 3);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_consumes_in_order_has_given_up_what_it_sends_back() {
    let node = OneNode::start_with(LEVELS).await;
    let mut client = node.connect().await;
    sent(&mut client, send("T", "x", &[])).await;
    lock(&mut client).await;
    let header = SendRequest {
        reconsume_times: Some(1),
        ..SendRequest::default()
    };
    let retry = send_with(header, "%RETRY%C", "given up", &[("DELAY", "1")]);
    sent(&mut client, retry).await;
    assert_eq!(
        bodies(&arrived(&mut client, "%DLQ%C", 1).await),
        ["given up"]
    );
    assert_eq!(pull_all(&mut client, "%RETRY%C").await, []);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_shown_and_sent_back_once() {
    let node = OneNode::start_with(LEVELS).await;
    let mut client = node.connect().await;
    for body in ["a", "b", "c"] {
        let given = [("KEYS", body), ("UNIQ_KEY", body)];
        sent(&mut client, send("T", body, &given)).await;
    }
    for message in arrived(&mut client, "T", 3).await {
        sent(&mut client, send_back(&message, -1)).await;
    }
    arrived(&mut client, "%DLQ%G", 3).await;
    let listed = node.gantry(&["dlq", "list"]).await;
    assert_eq!(listed, [json!([{ "group": "G", "messages": 3 }])]);
    let shown = node.gantry(&["dlq", "show", "G", "--count", "2"]).await;
    assert_eq!(shown.len(), 2);
    assert_eq!(
        (&shown[0]["topic"], &shown[0]["body"]),
        (&json!("T"), &json!("a"))
    );
    let two = node.gantry(&["dlq", "redrive", "G", "--count", "2"]).await;
    assert_eq!(two, [json!({ "sent": { "T": 2 } })]);
    for expected in [json!({ "T": 1 }), json!({})] {
        let rest = node.gantry(&["dlq", "redrive", "G"]).await;
        assert_eq!(rest, [json!({ "sent": expected })]);
    }
    let messages = arrived(&mut client, "T", 6).await;
    assert_eq!(bodies(&messages), ["a", "b", "c", "a", "b", "c"]);
    for message in &messages[3..] {
        assert_eq!(message.reconsume_times, 0);
        assert_eq!(property(message, "RETRY_TOPIC"), None);
        assert!(property(message, "KEYS").is_some());
    }
    node.stop().await;
}
