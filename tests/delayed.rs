//! Messages that wait for a delay level or a time: never early, once, with what they were sent with, also
//! when the leader is killed.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_protocol::headers::{
    MinOffsetRequest, OffsetResponse, RecallRequest, RecallResponse, SendResponse,
};
use gantry_protocol::properties;
use gantry_protocol::recall::RecallHandle;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::sleep;

use support::cluster::Cluster;
use support::messages::{arrived, bodies, now_ms, pull_all, send, sent};
use support::{Connection, OneNode};

/// A delivery on a machine under load may come this late; what is aimed at is 100 ms.
const LATE_MS: u64 = 1_500;

async fn refused(client: &mut Connection, request: RemotingCommand) -> ResponseCode {
    client.ask(request).await.response_code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_comes_when_it_is_due_with_what_it_was_sent_with() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    let began = now_ms();
    let given = [
        ("DELAY", "1"),
        ("TAGS", "A"),
        ("KEYS", "k"),
        ("mine", "x"),
        ("UNIQ_KEY", "U"),
    ];
    let answer = sent(&mut client, send("T", "level", &given)).await;
    let header = SendResponse::parse(&answer.fields).unwrap();
    assert_eq!(header.recall_handle, None, "levels are not recalled");
    let due = began + 1_300;
    let at = due.to_string();
    let given = [("TIMER_DELIVER_MS", at.as_str()), ("UNIQ_KEY", "V")];
    let answer = sent(&mut client, send("T", "timer", &given)).await;
    let header = SendResponse::parse(&answer.fields).unwrap();
    let handle = RecallHandle::decode(header.recall_handle.unwrap()).unwrap();
    assert_eq!((handle.deliver_ms, handle.unique_key.as_str()), (due, "V"));
    sent(&mut client, send("T", "now", &[("TIMER_DELAY_MS", "0")])).await;
    assert_eq!(bodies(&pull_all(&mut client, "T").await), ["now"]);
    let messages = arrived(&mut client, "T", 3).await;
    assert_eq!(bodies(&messages), ["now", "level", "timer"]);
    for (message, due) in messages[1..].iter().zip([began + 1_000, due]) {
        let stored = message.store_timestamp as u64;
        assert!(stored >= due, "{} ms early", due - stored);
        assert!(stored < due + LATE_MS, "{} ms late", stored - due);
        assert_eq!((message.queue_id, message.born_timestamp), (0, 1));
        for gone in [
            "DELAY",
            "TIMER_DELIVER_MS",
            "TIMER_OUT_MS",
            "REAL_TOPIC",
            "REAL_QID",
        ] {
            assert_eq!(properties::get(&message.properties, gone), None);
        }
    }
    for (name, value) in [
        ("TAGS", "A"),
        ("KEYS", "k"),
        ("mine", "x"),
        ("UNIQ_KEY", "U"),
    ] {
        assert_eq!(properties::get(&messages[1].properties, name), Some(value));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_delayed_is_refused_and_costs_nothing() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    let far = (now_ms() + 4 * 24 * 3_600_000).to_string();
    for given in [
        [("TIMER_DELIVER_MS", far.as_str())],
        [("TIMER_DELAY_SEC", "259201")],
        [("TIMER_DELAY_MS", "soon")],
        [("DELAY", "x")],
        [("TIMER_DEL_UNIQKEY", "k")],
    ] {
        let code = refused(&mut client, send("T", "x", &given)).await;
        assert_eq!(code, ResponseCode::MESSAGE_ILLEGAL, "{given:?}");
    }
    for topic in ["SCHEDULE_TOPIC_XXXX", "rmq_sys_wheel_timer"] {
        let code = refused(&mut client, send(topic, "x", &[])).await;
        assert_eq!(code, ResponseCode::NO_PERMISSION, "{topic}");
    }
    sent(&mut client, send("T", "fine", &[("DELAY", "0")])).await;
    assert_eq!(bodies(&arrived(&mut client, "T", 1).await), ["fine"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_message_that_is_due_earlier_comes_earlier() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    let began = now_ms();
    for (body, wait) in [("third", 1_200), ("first", 400), ("second", 800)] {
        let at = (began + wait).to_string();
        sent(&mut client, send("T", body, &[("TIMER_DELIVER_MS", &at)])).await;
    }
    let messages = arrived(&mut client, "T", 3).await;
    assert_eq!(bodies(&messages), ["first", "second", "third"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_outlive_their_leader_and_come_once() {
    let mut cluster = Cluster::start("").await;
    let mut client = cluster.connect(1).await;
    sent(&mut client, send("T", "first", &[])).await;
    let leader = cluster.leader("T").await;
    let began = now_ms();
    let mut due = std::collections::BTreeMap::from([("first".to_string(), 0)]);
    for number in 0..200 {
        let body = format!("m{number}");
        let at = began + 2_000 + number * 10;
        let given = at.to_string();
        sent(
            &mut client,
            send("T", &body, &[("TIMER_DELIVER_MS", &given)]),
        )
        .await;
        due.insert(body, at);
    }
    let others: Vec<u16> = (1..=3).filter(|node| *node != leader).collect();
    let mut client = cluster.connect(others[0]).await;
    while pull_all(&mut client, "T").await.len() < 30 {
        assert!(now_ms() < began + 30_000, "nothing comes");
        sleep(Duration::from_millis(5)).await;
    }
    cluster.kill(leader);
    let messages = arrived(&mut client, "T", due.len()).await;
    let came: BTreeSet<String> = bodies(&messages).into_iter().collect();
    assert_eq!(came.len(), messages.len(), "nothing comes twice");
    for message in &messages {
        let body = String::from_utf8(message.body.to_vec()).unwrap();
        assert!(
            message.store_timestamp as u64 >= due[&body],
            "{body} is early"
        );
    }
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_outlive_a_restart_of_all_nodes() {
    let mut cluster = Cluster::start("").await;
    let mut client = cluster.connect(1).await;
    let began = now_ms();
    let soon = (began + 3_000).to_string();
    sent(
        &mut client,
        send("T", "waited", &[("TIMER_DELIVER_MS", &soon)]),
    )
    .await;
    for node in 1..=3 {
        cluster.kill(node);
    }
    for node in 1..=3 {
        cluster.run(node);
    }
    for node in 1..=3 {
        cluster.wait_until_ready(node).await;
    }
    let mut client = cluster.connect(2).await;
    let messages = arrived(&mut client, "T", 1).await;
    assert_eq!(bodies(&messages), ["waited"]);
    assert!(messages[0].store_timestamp as u64 >= began + 3_000);
    cluster.stop();
}

fn recall(topic: &str, handle: &str) -> RemotingCommand {
    let header = RecallRequest {
        producer_group: Some("P"),
        topic,
        recall_handle: handle,
    };
    let mut request = RemotingCommand::request(RequestCode::RECALL_MESSAGE, 0);
    header.write(&mut request.fields);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recalled_message_never_comes() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    let at = (now_ms() + 1_500).to_string();
    let mut handles = Vec::new();
    for key in ["K1", "K2", "K3"] {
        let given = [("TIMER_DELIVER_MS", at.as_str()), ("UNIQ_KEY", key)];
        let answer = sent(&mut client, send("T", key, &given)).await;
        let header = SendResponse::parse(&answer.fields).unwrap();
        handles.push(header.recall_handle.unwrap().to_string());
    }
    let answer = sent(&mut client, recall("T", &handles[0])).await;
    let header = RecallResponse::parse(&answer.fields).unwrap();
    assert_eq!(header.msg_id, "K1");
    let foreign = RecallHandle {
        broker_name: "broker-b".to_string(),
        ..RecallHandle::decode(&handles[1]).unwrap()
    };
    for (topic, handle) in [
        ("T", handles[0].as_str()),
        ("other", handles[1].as_str()),
        ("T", foreign.encode().as_str()),
        ("T", "no handle"),
    ] {
        let code = refused(&mut client, recall(topic, handle)).await;
        assert_eq!(code, ResponseCode::ILLEGAL_OPERATION, "{handle}");
    }
    let cancel = [
        ("TIMER_DELIVER_MS", at.as_str()),
        ("TIMER_DEL_UNIQKEY", "K2"),
        ("UNIQ_KEY", "C"),
    ];
    sent(&mut client, send("T", "cancels", &cancel)).await;
    let messages = arrived(&mut client, "T", 1).await;
    assert_eq!(bodies(&messages), ["K3"]);
    let late = refused(&mut client, recall("T", &handles[2])).await;
    assert_eq!(late, ResponseCode::ILLEGAL_OPERATION);
    node.stop().await;
}

/// The first offset of queue 0; 0 while there is no such topic.
async fn min_offset(client: &mut Connection, topic: &str) -> i64 {
    let header = MinOffsetRequest { topic, queue_id: 0 };
    let mut request = RemotingCommand::request(RequestCode::GET_MIN_OFFSET, 0);
    header.write(&mut request.fields);
    let answer = client.ask(request).await;
    let header = OffsetResponse::parse(&answer.fields);
    header.map_or(0, |header| header.offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_carries_what_waits_forward() {
    let node = OneNode::start_of(r#", retention_bytes = "32MiB""#, "").await;
    let mut client = node.connect().await;
    let due = now_ms() + 12_000;
    let at = due.to_string();
    let given = [
        ("TIMER_DELIVER_MS", at.as_str()),
        ("UNIQ_KEY", "U"),
        ("mine", "x"),
    ];
    sent(&mut client, send("Late", "carried", &given)).await;
    let filler = "x".repeat(1 << 20);
    while min_offset(&mut client, "Filler").await == 0 {
        assert!(
            now_ms() < due,
            "nothing was removed while the message waited"
        );
        for _ in 0..8 {
            sent(&mut client, send("Filler", &filler, &[])).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let messages = arrived(&mut client, "Late", 1).await;
    assert_eq!(bodies(&messages), ["carried"]);
    assert!(messages[0].store_timestamp as u64 >= due);
    assert_eq!(messages[0].property("mine"), Some("x"));
    node.stop().await;
}
