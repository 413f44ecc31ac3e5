//! Transactions: a half message is seen by nobody until it is committed, then once; its producer is asked
//! until it answers, by whoever leads and over whichever node it is connected to.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use gantry_protocol::bodies::{Heartbeat, ProducerData};
use gantry_protocol::headers::{
    CheckTransactionRequest, EndTransactionRequest, ResumeCheckRequest, SendRequest, SendResponse,
};
use gantry_protocol::message::Message;
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::sleep;

use support::cluster::Cluster;
use support::messages::{arrived, bodies, pull_all, send_with, sent};
use support::{Connection, OneNode};

const COMMIT: i32 = 8;
const ROLLBACK: i32 = 12;

/// Producers are asked soon, and twice.
const HASTY: &str = r#"
    transaction_timeout = "300ms"
    transaction_check_interval = "300ms"
    transaction_check_max = 2
"#;

/// Where a half message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Half {
    place: i64,
    offset: i64,
}

/// Opens a transaction of producer group `P` about a message for queue 0 of topic `T`.
async fn prepare(client: &mut Connection, body: &str) -> Half {
    let header = SendRequest {
        sys_flag: 4,
        ..SendRequest::default()
    };
    let given = [
        ("TRAN_MSG", "true"),
        ("PGROUP", "P"),
        ("UNIQ_KEY", body),
        ("TAGS", "A"),
    ];
    let answer = sent(client, send_with(header, "T", body, &given)).await;
    let header = SendResponse::parse(&answer.fields).unwrap();
    assert_eq!(header.transaction_id, Some(body));
    let id: OffsetMessageId = header.msg_id.parse().unwrap();
    Half {
        place: id.physical_offset,
        offset: header.queue_offset,
    }
}

fn end(half: Half, how: i32, checked: bool) -> RemotingCommand {
    let header = EndTransactionRequest {
        producer_group: "P",
        tran_state_table_offset: half.offset,
        commit_log_offset: half.place,
        commit_or_rollback: how,
        from_transaction_check: Some(checked),
        msg_id: "id",
        ..EndTransactionRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::END_TRANSACTION, 0);
    header.write(&mut request.fields);
    request
}

async fn code(client: &mut Connection, request: RemotingCommand) -> ResponseCode {
    client.ask(request).await.response_code()
}

/// Says that a producer of group `P` is here.
async fn heartbeat(client: &mut Connection) {
    let producer = ProducerData {
        group_name: "P".to_string(),
    };
    let body = Heartbeat {
        client_id: "producer".to_string(),
        producer_data_set: vec![producer],
        ..Heartbeat::default()
    };
    let request = RemotingCommand::request(RequestCode::HEART_BEAT, 0);
    sent(client, request.with_body(body.encode())).await;
}

/// The next question about a transaction: the half message that it is about, and its message.
async fn asked(client: &mut Connection) -> (Half, Message) {
    let question = client.request().await;
    assert_eq!(
        question.request_code(),
        RequestCode::CHECK_TRANSACTION_STATE
    );
    assert!(question.is_oneway());
    let header = CheckTransactionRequest::parse(&question.fields).unwrap();
    let message = Message::decode_all(question.body.clone())
        .unwrap()
        .remove(0);
    let half = Half {
        place: header.commit_log_offset,
        offset: header.tran_state_table_offset,
    };
    assert_eq!(
        (message.physical_offset, message.queue_offset),
        (half.place, half.offset)
    );
    assert_eq!(
        (message.topic.as_str(), message.property("PGROUP")),
        ("T", Some("P"))
    );
    (half, message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_seen_once_and_what_is_rolled_back_never() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    let kept = prepare(&mut client, "kept").await;
    let dropped = prepare(&mut client, "dropped").await;
    assert_eq!(pull_all(&mut client, "T").await, [], "not yet");
    assert_eq!(
        code(&mut client, end(kept, 0, false)).await,
        ResponseCode::SUCCESS
    );
    sent(&mut client, end(kept, COMMIT, false)).await;
    sent(&mut client, end(dropped, ROLLBACK, false)).await;
    for (half, how) in [
        (kept, COMMIT),
        (kept, ROLLBACK),
        (dropped, COMMIT),
        (dropped, ROLLBACK),
    ] {
        let again = code(&mut client, end(half, how, false)).await;
        assert_eq!(again, ResponseCode::ILLEGAL_OPERATION, "{half:?} {how}");
    }
    let messages = arrived(&mut client, "T", 1).await;
    assert_eq!(bodies(&messages), ["kept"]);
    let message = &messages[0];
    assert_eq!(
        (message.sys_flag & 12, message.prepared_transaction_offset),
        (8, kept.place)
    );
    assert_eq!(message.property("TRAN_MSG"), None);
    assert_eq!(message.property("REAL_TOPIC"), None);
    assert_eq!(message.property("__transactionId__"), Some("kept"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_speaks_of_something_else_is_refused() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    let half = prepare(&mut client, "half").await;
    let wrong = [
        Half {
            place: half.place + 1,
            ..half
        },
        Half { place: -1, ..half },
        Half {
            offset: half.offset + 1,
            ..half
        },
    ];
    for wrong in wrong {
        let refused = code(&mut client, end(wrong, COMMIT, false)).await;
        assert_eq!(refused, ResponseCode::SYSTEM_ERROR, "{wrong:?}");
    }
    let mut stranger = end(half, COMMIT, false);
    stranger.fields.remove("producerGroup");
    stranger.fields.push("producerGroup", "other");
    assert_eq!(
        code(&mut client, stranger).await,
        ResponseCode::SYSTEM_ERROR
    );
    assert_eq!(
        code(&mut client, end(half, 3, false)).await,
        ResponseCode::SYSTEM_ERROR
    );
    let header = SendRequest::default();
    let ordinary = sent(&mut client, send_with(header, "T", "ordinary", &[])).await;
    let header = SendResponse::parse(&ordinary.fields).unwrap();
    let id: OffsetMessageId = header.msg_id.parse().unwrap();
    let no_half = Half {
        place: id.physical_offset,
        offset: header.queue_offset,
    };
    let refused = code(&mut client, end(no_half, COMMIT, false)).await;
    assert_eq!(refused, ResponseCode::SYSTEM_ERROR);
    sent(&mut client, end(half, COMMIT, false)).await;
    assert_eq!(
        bodies(&arrived(&mut client, "T", 2).await),
        ["ordinary", "half"]
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_is_asked_until_it_answers() {
    let node = OneNode::start_with(HASTY).await;
    let mut client = node.connect().await;
    let half = prepare(&mut client, "forgotten").await;
    let mut producer = node.connect().await;
    heartbeat(&mut producer).await;
    let (first, message) = asked(&mut producer).await;
    assert_eq!((first, &message.body[..]), (half, &b"forgotten"[..]));
    let (second, _) = asked(&mut producer).await;
    assert_eq!(second, half);
    sent(&mut producer, end(half, COMMIT, true)).await;
    assert_eq!(bodies(&arrived(&mut client, "T", 1).await), ["forgotten"]);
    assert!(
        !producer.is_asked_within(Duration::from_secs(1)).await,
        "it has ended"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_nobody_ends_is_given_up_and_can_be_taken_up_again() {
    let node = OneNode::start_with(HASTY).await;
    let mut client = node.connect().await;
    let half = prepare(&mut client, "lost").await;
    let mut producer = node.connect().await;
    heartbeat(&mut producer).await;
    asked(&mut producer).await;
    asked(&mut producer).await;
    let given_up = arrived(&mut client, "TRANS_CHECK_MAX_TIME_TOPIC", 1).await;
    assert_eq!(bodies(&given_up), ["lost"]);
    assert!(!producer.is_asked_within(Duration::from_secs(1)).await);
    let late = code(&mut client, end(half, COMMIT, false)).await;
    assert_eq!(
        late,
        ResponseCode::ILLEGAL_OPERATION,
        "it waits elsewhere now"
    );
    let id = given_up[0].offset_message_id().to_string();
    let header = ResumeCheckRequest {
        topic: None,
        msg_id: &id,
    };
    let mut request = RemotingCommand::request(RequestCode::RESUME_CHECK_HALF_MESSAGE, 0);
    header.write(&mut request.fields);
    sent(&mut client, request).await;
    let (again, _) = asked(&mut producer).await;
    sent(&mut producer, end(again, COMMIT, true)).await;
    assert_eq!(bodies(&arrived(&mut client, "T", 1).await), ["lost"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_asking_over_the_node_that_has_the_producer() {
    let mut cluster = Cluster::start(HASTY).await;
    let mut client = cluster.connect(1).await;
    let half = prepare(&mut client, "orphan").await;
    let leader = cluster.leader("T").await;
    let other = (1..=3).find(|node| *node != leader).unwrap();
    let mut producer = cluster.connect(other).await;
    heartbeat(&mut producer).await;
    cluster.kill(leader);
    let (found, _) = asked(&mut producer).await;
    assert_eq!(found, half, "the same place on every node");
    sent(&mut producer, end(half, COMMIT, true)).await;
    let again = code(&mut producer, end(half, COMMIT, true)).await;
    assert_eq!(again, ResponseCode::ILLEGAL_OPERATION);
    let mut client = cluster.connect(other).await;
    assert_eq!(bodies(&arrived(&mut client, "T", 1).await), ["orphan"]);
    sleep(Duration::from_millis(700)).await;
    assert_eq!(pull_all(&mut client, "T").await.len(), 1);
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_transactions_are_listed_and_ended_by_hand() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    let kept = prepare(&mut client, "kept").await;
    let dropped = prepare(&mut client, "dropped").await;
    let http = node.http.to_string();
    let listed = node.gantry(&["tx", "list", "--http", &http]).await;
    let open = listed[0]["transactions"].as_array().unwrap();
    assert_eq!(open.len(), 2);
    assert_eq!(
        (open[0]["key"].as_str(), open[0]["topic"].as_str()),
        (Some("kept"), Some("T"))
    );
    assert_eq!(open[0]["place"].as_i64(), Some(kept.place));
    let (kept, dropped) = (kept.place, dropped.place);
    let id = format!("broker-a/{kept}");
    node.gantry(&["tx", "commit", &id, "--http", &http]).await;
    let id = format!("broker-a/{dropped}");
    node.gantry(&["tx", "rollback", &id, "--http", &http]).await;
    assert_eq!(bodies(&arrived(&mut client, "T", 1).await), ["kept"]);
    let listed = node.gantry(&["tx", "list", "--http", &http]).await;
    assert_eq!(listed[0]["transactions"].as_array().unwrap().len(), 0);
    node.stop().await;
}
