//! Handing out, acknowledging, waiting.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_protocol::bodies::{BatchAck, BatchAckEntry};
use gantry_protocol::headers::{PopRequest, PopResponse};
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::Instant;

use super::cluster::ThreeNodes;
use super::requests::*;
use super::support::OneNode;

const TOPIC: &str = "Popped";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_is_handed_out_once_and_acknowledged_once() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    for n in 0..20 {
        send(&mut client, TOPIC, n % 4, &format!("m{n:02}"), "A").await;
    }
    let header = PopRequest {
        max_msg_nums: 15,
        ..pop_of(TOPIC)
    };
    let first = pop(&mut client, header).await;
    assert_eq!(first.len(), 15);
    let second = pop(&mut client, header).await;
    assert_eq!(second.len(), 5);
    let all: Vec<Popped> = first.into_iter().chain(second).collect();
    let expected: Vec<String> = (0..20).map(|n| format!("m{n:02}")).collect();
    assert_eq!(bodies(&all), expected);
    assert!(pop(&mut client, header).await.is_empty());
    for message in &all {
        assert_eq!(message.part(6), message.message.queue_id.to_string());
        assert_eq!(ack(&mut client, message).await, ResponseCode::SUCCESS);
        // As in RocketMQ, a handle that is not valid any more is not an error.
        assert_eq!(ack(&mut client, message).await, ResponseCode::SUCCESS);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_with_rocketmqs_codes() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    send(&mut client, TOPIC, 0, "m", "A").await;
    let good = pop_of(TOPIC);
    for (header, code) in [
        (
            PopRequest {
                max_msg_nums: 33,
                ..good
            },
            ResponseCode::INVALID_PARAMETER,
        ),
        (
            PopRequest {
                max_msg_nums: 0,
                ..good
            },
            ResponseCode::INVALID_PARAMETER,
        ),
        (
            PopRequest {
                invisible_time: 0,
                ..good
            },
            ResponseCode::INVALID_PARAMETER,
        ),
        (
            PopRequest {
                queue_id: 4,
                ..good
            },
            ResponseCode::INVALID_PARAMETER,
        ),
        (
            PopRequest {
                consumer_group: "a b",
                ..good
            },
            ResponseCode::INVALID_PARAMETER,
        ),
        (
            PopRequest {
                topic: "NoSuchTopic",
                ..good
            },
            ResponseCode::TOPIC_NOT_EXIST,
        ),
        (
            PopRequest {
                born_time: now_ms() - 2_000,
                ..good
            },
            ResponseCode::POLLING_TIMEOUT,
        ),
        (
            PopRequest {
                exp_type: Some("SQL92"),
                exp: Some("a >"),
                ..good
            },
            ResponseCode::SUBSCRIPTION_PARSE_FAILED,
        ),
    ] {
        let answer = client.ask(pop_command(&header)).await;
        assert_eq!(answer.response_code(), code, "{header:?} {answer:?}");
    }
    let popped = pop(&mut client, good).await.remove(0);
    let with = |change: &dyn Fn(&mut Popped)| {
        let mut changed = popped.clone();
        change(&mut changed);
        changed
    };
    let beyond = with(&|popped| popped.message.queue_offset = 1);
    assert_eq!(ack(&mut client, &beyond).await, ResponseCode::NO_MESSAGE);
    let no_queue = with(&|popped| popped.message.queue_id = 9);
    assert_eq!(
        ack(&mut client, &no_queue).await,
        ResponseCode::MESSAGE_ILLEGAL
    );
    let no_handle = with(&|popped| popped.handle = "1 2 x 0 0 b 0 0".into());
    assert_eq!(
        ack(&mut client, &no_handle).await,
        ResponseCode::MESSAGE_ILLEGAL
    );
    let day = Duration::from_secs(86_400);
    let refused = change(&mut client, &popped, 4 * day).await;
    assert_eq!(refused, Err(ResponseCode::INVALID_PARAMETER));
    let answer = client
        .ask(RemotingCommand::request(RequestCode::POP_ROLLBACK, 0))
        .await;
    assert_eq!(
        answer.response_code(),
        ResponseCode::REQUEST_CODE_NOT_SUPPORTED
    );
    assert_eq!(ack(&mut client, &popped).await, ResponseCode::SUCCESS);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pop_waits_for_a_message_and_only_one_of_a_group_gets_it() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    send(&mut client, TOPIC, 0, "first", "A").await;
    assert_eq!(pop(&mut client, pop_of(TOPIC)).await.len(), 1);
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut other = node.connect().await;
        waiting.push(tokio::spawn(async move {
            let header = PopRequest {
                poll_time: 15_000,
                ..pop_of(TOPIC)
            };
            let popped = pop(&mut other, header).await;
            (popped, Instant::now())
        }));
    }
    let mut polling = 0;
    while polling < 3 {
        polling = super::status::polling(&mut client, TOPIC, -1).await;
    }
    let sent = Instant::now();
    for n in 0..3 {
        send(&mut client, TOPIC, n, &format!("m{n}"), "A").await;
    }
    let mut all = Vec::new();
    for waiting in waiting {
        let (popped, at) = waiting.await.unwrap();
        assert!(at < sent + Duration::from_secs(10), "woken, not timed out");
        all.extend(popped);
    }
    // A pop may have taken more than one, and then another one has waited in vain.
    all.extend(pop(&mut client, pop_of(TOPIC)).await);
    assert_eq!(bodies(&all), ["m0", "m1", "m2"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pop_that_waits_in_vain_has_the_required_fields_in_its_answer() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    send(&mut client, TOPIC, 0, "m", "A").await;
    pop(&mut client, pop_of(TOPIC)).await;
    let started = Instant::now();
    let header = PopRequest {
        poll_time: 300,
        ..pop_of(TOPIC)
    };
    let answer = client.ask(pop_command(&header)).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(answer.response_code(), ResponseCode::POLLING_TIMEOUT);
    let header = PopResponse::parse(&answer.fields).unwrap();
    assert_eq!(header.invisible_time, INVISIBLE_MS);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_match_is_passed_over_for_good() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    for n in 0..6 {
        let tag = if n % 2 == 0 { "A" } else { "B" };
        send(&mut client, TOPIC, 0, &format!("m{n}"), tag).await;
    }
    let header = PopRequest {
        exp_type: Some("TAG"),
        exp: Some("A"),
        ..pop_of(TOPIC)
    };
    assert_eq!(bodies(&pop(&mut client, header).await), ["m0", "m2", "m4"]);
    assert!(pop(&mut client, pop_of(TOPIC)).await.is_empty());
    let other = PopRequest {
        consumer_group: "OtherGroup",
        exp_type: Some("SQL92"),
        exp: Some("UNIQ_KEY IN ('m1', 'm5')"),
        ..pop_of(TOPIC)
    };
    assert_eq!(bodies(&pop(&mut client, other).await), ["m1", "m5"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_begins_where_it_says_and_compact_codes_are_known() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    for n in 0..3 {
        send(&mut client, TOPIC, 0, &format!("m{n}"), "A").await;
    }
    // A young topic is read from its first message, wherever the group wants to begin.
    let header = PopRequest {
        init_mode: 1,
        max_msg_nums: 1,
        ..pop_of(TOPIC)
    };
    let mut request = RemotingCommand::request(RequestCode(3442), 0);
    header.write(&mut request.fields);
    request.encoding = gantry_protocol::Encoding::RocketMq;
    let first = popped(&client.ask(request).await);
    assert_eq!(bodies(&first), ["m0"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_are_acknowledged_with_one_request() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    for n in 0..5 {
        send(&mut client, TOPIC, 1, &format!("m{n}"), "A").await;
    }
    let header = PopRequest {
        invisible_time: 1_500,
        ..pop_of(TOPIC)
    };
    let all = pop(&mut client, header).await;
    assert_eq!(all.len(), 5);
    let entry = BatchAckEntry {
        consumer_group: GROUP.into(),
        topic: TOPIC.into(),
        retry: "0".into(),
        start_offset: 0,
        queue_id: 1,
        revive_queue_id: 0,
        pop_time: all[0].part(1).parse().unwrap(),
        invisible_time: INVISIBLE_MS,
        bits: BatchAckEntry::bits_of(0, &[0, 1, 3, 4]),
    };
    let elsewhere = BatchAckEntry {
        queue_id: 77,
        ..entry.clone()
    };
    let body = BatchAck {
        broker_name: "broker-a".into(),
        acks: vec![elsewhere, entry],
    };
    let request = RemotingCommand::request(RequestCode::BATCH_ACK_MESSAGE, 0);
    let answer = client.ask(request.with_body(body.encode())).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    let header = PopRequest {
        poll_time: 15_000,
        ..pop_of(TOPIC)
    };
    assert_eq!(
        bodies(&pop(&mut client, header).await),
        ["m2"],
        "the one that is left"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_leader_neither_repeats_nor_forgets() {
    let mut cluster = ThreeNodes::start().await;
    let (leader, term) = cluster.leader(0).await;
    let survivor = cluster.other_than(leader);
    let mut client = cluster.connect(survivor).await;
    for n in 0..24 {
        send(&mut client, TOPIC, n % 4, &format!("m{n:02}"), "A").await;
    }
    let header = |max_msg_nums, invisible_time| PopRequest {
        max_msg_nums,
        invisible_time,
        ..pop_of(TOPIC)
    };
    // Eight are acknowledged, eight are out for long, and of four the time will pass.
    let acked = pop(&mut client, header(8, INVISIBLE_MS)).await;
    for message in &acked {
        assert_eq!(ack(&mut client, message).await, ResponseCode::SUCCESS);
    }
    let long = pop(&mut client, header(8, 10 * INVISIBLE_MS)).await;
    let short = pop(&mut client, header(4, 3_000)).await;
    assert_eq!((acked.len(), long.len(), short.len()), (8, 8, 4));
    cluster.kill(leader);
    cluster.leader(term).await;
    for message in &long {
        assert_eq!(ack(&mut client, message).await, ResponseCode::SUCCESS);
    }
    let mut rest = Vec::new();
    let end = Instant::now() + Duration::from_secs(60);
    while rest.len() < 8 {
        assert!(Instant::now() < end, "only {:?}", bodies(&rest));
        let waiting = PopRequest {
            poll_time: 2_000,
            ..pop_of(TOPIC)
        };
        rest.extend(pop(&mut client, waiting).await);
    }
    for message in &rest {
        assert_eq!(ack(&mut client, message).await, ResponseCode::SUCCESS);
    }
    // Nothing more comes: what was acknowledged before the kill and after it is done with.
    let waiting = PopRequest {
        poll_time: 1_000,
        ..pop_of(TOPIC)
    };
    assert_eq!(bodies(&pop(&mut client, waiting).await), [""; 0]);
    let again: BTreeSet<String> = bodies(&short).into_iter().collect();
    let of = |messages: &[Popped]| -> BTreeSet<String> { bodies(messages).into_iter().collect() };
    assert!(again.is_subset(&of(&rest)), "{again:?} came again");
    let all: BTreeSet<String> = [&acked, &long, &rest]
        .into_iter()
        .flat_map(|part| of(part))
        .collect();
    assert_eq!(
        (all.len(), rest.len()),
        (24, 8),
        "each once, and none is missing"
    );
    for message in rest
        .iter()
        .filter(|message| again.contains(&message.body()))
    {
        assert_eq!((message.message.reconsume_times, message.part(4)), (1, "1"));
    }
}
