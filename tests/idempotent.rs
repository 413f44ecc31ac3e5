//! Topics that keep one copy of a message: whoever sends it again, to whichever node and group, gets the
//! place of the first copy; also when the leader is killed, and after a restart of all nodes.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use gantry_protocol::batch::{self, BatchMessage};
use gantry_protocol::bodies::{TopicRoute, perm};
use gantry_protocol::headers::{EndTransactionRequest, RouteRequest, SendRequest, SendResponse};
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::properties::Builder;
use gantry_protocol::recall::RecallHandle;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::{Instant, sleep};

use support::cluster::Cluster;
use support::messages::{arrived, bodies, create_topic, now_ms, pull_all, send, send_with, sent};
use support::{Connection, OneNode};

/// Where the sender of a message is told that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    queue: i32,
    offset: i64,
    id: String,
}

/// Sends a message with a unique key that must be taken.
async fn told(client: &mut Connection, topic: &str, key: &str, body: &str) -> Told {
    told_of(sent(client, send(topic, body, &[("UNIQ_KEY", key)])).await)
}

fn told_of(answer: RemotingCommand) -> Told {
    let header = SendResponse::parse(&answer.fields).unwrap();
    Told {
        queue: header.queue_id,
        offset: header.queue_offset,
        id: header.msg_id.to_string(),
    }
}

/// The place in the log that a message id names; its address is that of the node that was asked.
fn place(told: &Told) -> &str {
    &told.id[16..]
}

/// Sends again while the group has no leader; stock clients do so, too.
async fn told_at_last(client: &mut Connection, topic: &str, key: &str, body: &str) -> Told {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = client.ask(send(topic, body, &[("UNIQ_KEY", key)])).await;
        match answer.response_code() {
            ResponseCode::SUCCESS => return told_of(answer),
            _ => assert!(Instant::now() < deadline, "{answer:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_gets_the_place_of_the_first_and_another_body_one_of_its_own() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    sent(&mut client, create_topic("T", 2, "+idempotent.window=10m")).await;
    let first = told(&mut client, "T", "K", "body").await;
    let other_queue = SendRequest {
        queue_id: 1,
        ..SendRequest::default()
    };
    let copy = send_with(other_queue, "T", "body", &[("UNIQ_KEY", "K")]);
    assert_eq!(told_of(sent(&mut client, copy).await), first);
    let collision = told(&mut client, "T", "K", "other").await;
    assert_eq!((collision.queue, collision.offset), (0, 1));
    assert_ne!(collision.id, first.id);
    assert_eq!(told(&mut client, "T", "K", "other").await, collision);
    for offset in 2..4 {
        let answer = sent(&mut client, send("T", "no key", &[])).await;
        assert_eq!(told_of(answer).offset, offset, "each is a message");
    }
    for offset in 0..2 {
        let ordinary = told(&mut client, "Ordinary", "K", "body").await;
        assert_eq!(ordinary.offset, offset, "other topics keep everything");
    }
    let kept = bodies(&pull_all(&mut client, "T").await);
    assert_eq!(kept, ["body", "other", "no key", "no key"]);
    let refused = client
        .ask(create_topic("T", 2, "+idempotent.window=true"))
        .await;
    assert_eq!(refused.response_code(), ResponseCode::INVALID_PARAMETER);
    let node = node.restart().await;
    let mut client = node.connect().await;
    assert_eq!(told(&mut client, "T", "K", "body").await, first);
    assert_eq!(pull_all(&mut client, "T").await.len(), 4);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_window_is_over_a_message_is_a_new_one() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    sent(&mut client, create_topic("T", 1, "+idempotent.window=1s")).await;
    let first = told(&mut client, "T", "K", "body").await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let again = told(&mut client, "T", "K", "body").await;
        if again != first {
            assert_eq!(again.offset, 1);
            break;
        }
        assert!(Instant::now() < deadline, "the window has no end");
        sleep(Duration::from_millis(20)).await;
    }
    let messages = pull_all(&mut client, "T").await;
    let apart = messages[1].store_timestamp - messages[0].store_timestamp;
    assert!(apart >= 1_000, "{apart} ms are within the window");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_waits_is_kept_once_until_it_is_recalled() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    sent(&mut client, create_topic("T", 1, "+idempotent.window=10m")).await;
    let soon = [("UNIQ_KEY", "soon"), ("TIMER_DELAY_MS", "1200")];
    let first = told_of(sent(&mut client, send("T", "soon", &soon)).await);
    let far = [("UNIQ_KEY", "far"), ("TIMER_DELAY_SEC", "3600")];
    let began = now_ms();
    let answer = sent(&mut client, send("T", "far", &far)).await;
    while now_ms() == began {
        sleep(Duration::from_millis(1)).await;
    }
    let copy = sent(&mut client, send("T", "far", &far)).await;
    let handle = |answer: &RemotingCommand| {
        let header = SendResponse::parse(&answer.fields).unwrap();
        header.recall_handle.unwrap().to_string()
    };
    assert_eq!(handle(&copy), handle(&answer), "that of the first");
    let due_ms = RecallHandle::decode(&handle(&copy)).unwrap().deliver_ms;
    assert!(due_ms >= began + 3_600_000);
    let cancel = [
        ("UNIQ_KEY", "cancels"),
        ("TIMER_DELAY_SEC", "3600"),
        ("TIMER_DEL_UNIQKEY", "far"),
    ];
    sent(&mut client, send("T", "cancels", &cancel)).await;
    let anew = told_of(sent(&mut client, send("T", "far", &far)).await);
    assert_ne!(anew, told_of(answer), "it was taken back");
    assert_eq!(bodies(&arrived(&mut client, "T", 1).await), ["soon"]);
    let late = told_of(sent(&mut client, send("T", "soon", &soon)).await);
    assert_eq!(late, first, "it has come already");
    node.stop().await;
}

/// A batch for topic `T` of messages whose keys are their bodies.
fn batch_of(bodies: &[&str]) -> RemotingCommand {
    let mut bytes = BytesMut::new();
    for body in bodies {
        let mut properties = Builder::new();
        properties.push("UNIQ_KEY", body);
        let part = BatchMessage {
            flag: 0,
            body: body.as_bytes(),
            properties: &properties.finish(),
        };
        batch::encode(&part, &mut bytes);
    }
    let header = SendRequest {
        producer_group: "P",
        topic: "T",
        default_topic: "TBW102",
        default_topic_queue_nums: 1,
        born_timestamp: 1,
        batch: Some(true),
        ..SendRequest::default()
    };
    let code = RequestCode::SEND_BATCH_MESSAGE;
    let mut request = RemotingCommand::request(code, 0);
    header.write(code, &mut request.fields);
    request.with_body(bytes.freeze())
}

/// The places in the log that the answer to a batch names.
fn places(told: &Told) -> Vec<&str> {
    told.id.split(',').map(|id| &id[16..]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_of_a_batch_is_looked_at_by_itself() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    sent(&mut client, create_topic("T", 1, "+idempotent.window=10m")).await;
    let single = told(&mut client, "T", "b", "b").await;
    let first = told_of(sent(&mut client, batch_of(&["a", "b", "c", "a"])).await);
    let at = places(&first);
    assert_eq!(first.offset, 1, "the first of them is new");
    assert_eq!((at[1], at[3]), (place(&single), at[0]));
    let again = told_of(sent(&mut client, batch_of(&["a", "b", "c", "a"])).await);
    assert_eq!(again, first);
    let mixed = told_of(sent(&mut client, batch_of(&["c", "d"])).await);
    assert_eq!((mixed.offset, places(&mixed)[0]), (2, at[2]));
    let single = told(&mut client, "T", "d", "d").await;
    assert_eq!(place(&single), places(&mixed)[1]);
    let kept = bodies(&pull_all(&mut client, "T").await);
    assert_eq!(kept, ["b", "a", "c", "d"]);
    node.stop().await;
}

/// A half message for topic `T`, whose key is its body; where it is.
async fn half(client: &mut Connection, body: &str) -> Told {
    let header = SendRequest {
        sys_flag: 4,
        ..SendRequest::default()
    };
    let given = [("TRAN_MSG", "true"), ("PGROUP", "P"), ("UNIQ_KEY", body)];
    let answer = sent(client, send_with(header, "T", body, &given)).await;
    let header = SendResponse::parse(&answer.fields).unwrap();
    assert_eq!(header.transaction_id, Some(body));
    told_of(answer)
}

/// Commits (8) or rolls back (12) what the sender of a half message was told of.
fn end(half: &Told, how: i32) -> RemotingCommand {
    let id: OffsetMessageId = half.id.parse().unwrap();
    let header = EndTransactionRequest {
        producer_group: "P",
        tran_state_table_offset: half.offset,
        commit_log_offset: id.physical_offset,
        commit_or_rollback: how,
        msg_id: "id",
        ..EndTransactionRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::END_TRANSACTION, 0);
    header.write(&mut request.fields);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_message_is_kept_once_until_it_is_rolled_back() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    sent(&mut client, create_topic("T", 1, "+idempotent.window=10m")).await;
    let first = half(&mut client, "kept").await;
    let copy = half(&mut client, "kept").await;
    assert_eq!(copy, first, "what it is ended with, too");
    sent(&mut client, end(&copy, 8)).await;
    assert_eq!(half(&mut client, "kept").await, first);
    let ended = client.ask(end(&first, 8)).await;
    assert_eq!(ended.response_code(), ResponseCode::ILLEGAL_OPERATION);
    let dropped = half(&mut client, "dropped").await;
    sent(&mut client, end(&dropped, 12)).await;
    let anew = half(&mut client, "dropped").await;
    assert_ne!(anew, dropped, "what was rolled back is forgotten");
    sent(&mut client, end(&anew, 8)).await;
    let kept = bodies(&arrived(&mut client, "T", 2).await);
    assert_eq!(kept, ["kept", "dropped"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_are_sent_at_the_same_time_become_one() {
    let cluster = Cluster::start("").await;
    let mut client = cluster.connect(1).await;
    sent(&mut client, create_topic("T", 1, "+idempotent.window=10m")).await;
    let mut sending = Vec::new();
    for number in 0..24 {
        let mut client = cluster.connect(number % 3 + 1).await;
        sending.push(tokio::spawn(async move {
            let mut places = Vec::new();
            for message in 0..20 {
                let body = format!("m{message}");
                let told = told_at_last(&mut client, "T", &body, &body).await;
                places.push((told.offset, place(&told).to_string()));
            }
            places
        }));
    }
    let mut all = Vec::new();
    for sending in sending {
        all.push(sending.await.unwrap());
    }
    assert!(all.iter().all(|places| *places == all[0]), "{all:?}");
    assert_eq!(arrived(&mut client, "T", 20).await.len(), 20);
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_known_after_a_killed_leader_and_a_restart_of_all() {
    let mut cluster = Cluster::start("").await;
    let mut client = cluster.connect(1).await;
    sent(&mut client, create_topic("T", 1, "+idempotent.window=10m")).await;
    let mut first = Vec::new();
    for number in 0..20 {
        let key = format!("k{number}");
        first.push(told(&mut client, "T", &key, "body").await);
    }
    let leader = cluster.leader("T").await;
    cluster.kill(leader);
    let other = (1..=3).find(|node| *node != leader).unwrap();
    check(&cluster, other, &first).await;
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.kill(node);
    }
    for node in 1..=3 {
        cluster.run(node);
    }
    for node in 1..=3 {
        cluster.wait_until_ready(node).await;
    }
    check(&cluster, leader, &first).await;
    cluster.stop();
}

/// All are sent again through a node, and found where they were.
async fn check(cluster: &Cluster, node: u16, first: &[Told]) {
    let mut client = cluster.connect(node).await;
    for (number, first) in first.iter().enumerate() {
        let key = format!("k{number}");
        let again = told_at_last(&mut client, "T", &key, "body").await;
        assert_eq!((again.offset, place(&again)), (first.offset, place(first)));
    }
    assert_eq!(
        arrived(&mut client, "T", first.len()).await.len(),
        first.len()
    );
}

async fn writable_groups(cluster: &Cluster, topic: &str) -> Vec<String> {
    let header = RouteRequest {
        topic,
        accept_standard_json_only: Some(true),
    };
    let mut request = RemotingCommand::request(RequestCode::GET_ROUTEINFO_BY_TOPIC, 0);
    header.write(&mut request.fields);
    let answer = sent(&mut cluster.connect(1).await, request).await;
    let route = TopicRoute::decode(&answer.body).unwrap();
    assert_eq!(route.queue_datas.len(), 2, "both may be read");
    let writable = route.queue_datas.into_iter();
    let writable = writable.filter(|data| data.perm & perm::WRITE != 0);
    writable.map(|data| data.broker_name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_sent_to_another_group_is_known_there() {
    let cluster = Cluster::start_with_two_groups().await;
    let mut homes = std::collections::BTreeSet::new();
    for topic in ["T0", "T1", "T2", "T3", "T4", "T5", "T6", "T7"] {
        for group in 0..2 {
            let mut client = cluster.connect_to(1, group).await;
            sent(
                &mut client,
                create_topic(topic, 1, "+idempotent.window=10m"),
            )
            .await;
        }
        let writable = writable_groups(&cluster, topic).await;
        assert_eq!(writable.len(), 1, "{topic}: {writable:?}");
        let mut places = Vec::new();
        for node in 1..=3 {
            for group in 0..2 {
                let mut client = cluster.connect_to(node, group).await;
                let told = told_at_last(&mut client, topic, "K", "body").await;
                places.push((told.queue, told.offset, place(&told).to_string()));
            }
        }
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
        let home = u16::from(writable == ["broker-b"]);
        let mut client = cluster.connect_to(2, home).await;
        assert_eq!(arrived(&mut client, topic, 1).await.len(), 1, "{topic}");
        let mut client = cluster.connect_to(2, 1 - home).await;
        assert!(pull_all(&mut client, topic).await.is_empty(), "{topic}");
        homes.insert(home);
    }
    assert_eq!(homes.len(), 2, "topics spread");
    cluster.stop();
}
