//! Looking without taking, and who asks how.

use std::time::Duration;

use gantry_protocol::bodies::{
    Assignments, ConsumerData, Heartbeat, QueryAssignment, RequestModeName, RequestModeTable,
    SetRequestMode,
};
use gantry_protocol::headers::{
    NotificationRequest, NotificationResponse, PeekRequest, PollingInfoRequest, PollingInfoResponse,
};
use gantry_protocol::message::Message;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::Instant;

use super::requests::*;
use super::support::{Connection, OneNode};

const TOPIC: &str = "Looked";

/// How many pops wait.
pub async fn polling(client: &mut Connection, topic: &str, queue_id: i32) -> i32 {
    let header = PollingInfoRequest {
        consumer_group: GROUP,
        topic,
        queue_id,
    };
    let mut request = RemotingCommand::request(RequestCode::POLLING_INFO, 0);
    header.write(&mut request.fields);
    let answer = client.ask(request).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    PollingInfoResponse::parse(&answer.fields)
        .unwrap()
        .polling_num
}

async fn notified(client: &mut Connection, poll_time: i64) -> bool {
    let header = NotificationRequest {
        consumer_group: GROUP,
        topic: TOPIC,
        queue_id: -1,
        poll_time,
        born_time: now_ms(),
        ..NotificationRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::NOTIFICATION, 0);
    header.write(&mut request.fields);
    let answer = client.ask(request).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    NotificationResponse::parse(&answer.fields).unwrap().has_msg
}

async fn peek(client: &mut Connection) -> (ResponseCode, usize) {
    let header = PeekRequest {
        topic: TOPIC,
        queue_id: -1,
        max_msg_nums: 32,
        consumer_group: GROUP,
    };
    let mut request = RemotingCommand::request(RequestCode::PEEK_MESSAGE, 0);
    header.write(&mut request.fields);
    let answer = client.ask(request).await;
    let count = Message::decode_all(answer.body.clone()).unwrap().len();
    (answer.response_code(), count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_takes_nothing() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    send(&mut client, TOPIC, 0, "m0", "A").await;
    assert!(notified(&mut client, 0).await);
    assert_eq!(peek(&mut client).await, (ResponseCode::SUCCESS, 1));
    assert_eq!(bodies(&pop(&mut client, pop_of(TOPIC)).await), ["m0"]);
    assert!(!notified(&mut client, 0).await);
    assert_eq!(peek(&mut client).await, (ResponseCode::PULL_NOT_FOUND, 0));
    let mut other = node.connect().await;
    let waiting = tokio::spawn(async move {
        let has_msg = notified(&mut other, 15_000).await;
        (has_msg, Instant::now())
    });
    while polling(&mut client, TOPIC, -1).await == 0 {}
    assert_eq!(polling(&mut client, TOPIC, 0).await, 0);
    send(&mut client, TOPIC, 3, "m1", "A").await;
    let sent = Instant::now();
    let (has_msg, at) = waiting.await.unwrap();
    assert!(has_msg && at < sent + Duration::from_secs(10));
    assert_eq!(bodies(&pop(&mut client, pop_of(TOPIC)).await), ["m1"]);
    node.stop().await;
}

async fn heartbeat(client: &mut Connection, client_id: &str) {
    let body = Heartbeat {
        client_id: client_id.into(),
        consumer_data_set: vec![ConsumerData {
            group_name: GROUP.into(),
            ..ConsumerData::default()
        }],
        ..Heartbeat::default()
    };
    let request = RemotingCommand::request(RequestCode::HEART_BEAT, 0).with_body(body.encode());
    let answer = client.ask(request).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
}

async fn assigned(client: &mut Connection, client_id: &str) -> Option<Vec<(i32, RequestModeName)>> {
    let body = QueryAssignment {
        client_id: client_id.into(),
        consumer_group: GROUP.into(),
        message_model: "CLUSTERING".into(),
        strategy_name: "AVG".into(),
        topic: TOPIC.into(),
    };
    let request = RemotingCommand::request(RequestCode::QUERY_ASSIGNMENT, 0);
    let answer = client.ask(request.with_body(body.encode())).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    let assignments = Assignments::decode(&answer.body).unwrap();
    let list = assignments.message_queue_assignments?;
    Some(
        list.iter()
            .map(|one| (one.message_queue.queue_id, one.mode))
            .collect(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_told_how_to_ask() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    send(&mut client, TOPIC, 0, "m0", "A").await;
    assert_eq!(assigned(&mut client, "a").await, None, "nobody is known");
    let mut second = node.connect().await;
    heartbeat(&mut client, "a").await;
    heartbeat(&mut second, "b").await;
    let pull = |queue| (queue, RequestModeName::Pull);
    assert_eq!(
        assigned(&mut client, "a").await,
        Some(vec![pull(0), pull(1)])
    );
    assert_eq!(
        assigned(&mut client, "b").await,
        Some(vec![pull(2), pull(3)])
    );
    let set = |topic: &str| {
        let body = SetRequestMode {
            consumer_group: GROUP.into(),
            mode: RequestModeName::Pop,
            pop_share_queue_num: 0,
            topic: topic.into(),
        };
        let request = RemotingCommand::request(RequestCode::SET_MESSAGE_REQUEST_MODE, 0);
        request.with_body(body.encode())
    };
    let refused = client.ask(set("%RETRY%G")).await;
    assert_eq!(refused.response_code(), ResponseCode::NO_PERMISSION);
    let answer = client.ask(set(TOPIC)).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    let any = vec![(-1, RequestModeName::Pop)];
    assert_eq!(assigned(&mut client, "a").await, Some(any.clone()));
    assert_eq!(assigned(&mut client, "b").await, Some(any));
    let request = RemotingCommand::request(RequestCode::GET_ALL_MESSAGE_REQUEST_MODE, 0);
    let answer = client.ask(request).await;
    let table = RequestModeTable::decode(&answer.body).unwrap();
    let mode = &table.message_request_mode_map[TOPIC][GROUP];
    assert_eq!(mode.mode, RequestModeName::Pop);
    node.stop().await;
}

/// What `gantry status` says to wait in the only broker group.
fn waiting(node: &OneNode) -> serde_json::Value {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gantry"));
    let http = node.http.to_string();
    let output = command.args(["status", "-o", "json", "--http", &http]);
    let output = output.output().unwrap().stdout;
    let status: serde_json::Value = serde_json::from_slice(&output).unwrap();
    status["nodes"][0]["groups"][0]["waiting"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_counts_what_is_handed_out() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    for body in ["m0", "m1"] {
        send(&mut client, TOPIC, 0, body, "A").await;
    }
    let mut messages = pop(&mut client, pop_of(TOPIC)).await;
    assert_eq!(bodies(&messages), ["m0", "m1"]);
    let held = |count: u64| {
        serde_json::json!([{
            "group": GROUP, "in_flight": count, "retries": 0, "dead_letters": 0
        }])
    };
    assert_eq!(waiting(&node)["leases"], 2);
    assert_eq!(waiting(&node)["consumers"], held(2));
    ack(&mut client, &messages.remove(0)).await;
    assert_eq!(waiting(&node)["leases"], 1);
    assert_eq!(waiting(&node)["consumers"], held(1));
    node.stop().await;
}
