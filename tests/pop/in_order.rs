//! Consuming in order: one batch of a queue at a time.

use std::time::Duration;

use gantry_protocol::ResponseCode;
use gantry_protocol::headers::{PopRequest, PopResponse};
use tokio::time::Instant;

use super::requests::*;
use super::support::OneNode;

const TOPIC: &str = "Ordered";

fn ordered(attempt: &str) -> PopRequest<'_> {
    PopRequest {
        order: Some(true),
        attempt_id: Some(attempt),
        max_msg_nums: 3,
        ..pop_of(TOPIC)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_batch_is_out_until_it_is_acknowledged() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    for n in 0..5 {
        send(&mut client, TOPIC, 1, &format!("m{n}"), "A").await;
    }
    let first = pop(&mut client, ordered("one")).await;
    assert_eq!(bodies(&first), ["m0", "m1", "m2"]);
    assert_eq!(first[0].part(3), "999");
    assert!(
        pop(&mut client, ordered("two")).await.is_empty(),
        "the queue is taken"
    );
    let again = pop(&mut client, ordered("one")).await;
    assert_eq!(
        bodies(&again),
        bodies(&first),
        "the answer may have been lost"
    );
    let mut other = node.connect().await;
    let waiting = tokio::spawn(async move {
        let header = PopRequest {
            poll_time: 15_000,
            ..ordered("two")
        };
        let popped = pop(&mut other, header).await;
        (bodies(&popped), Instant::now())
    });
    while super::status::polling(&mut client, TOPIC, -1).await == 0 {}
    for message in again.iter().rev() {
        assert!(
            !waiting.is_finished(),
            "answered before all was acknowledged"
        );
        assert_eq!(ack(&mut client, message).await, ResponseCode::SUCCESS);
    }
    let acked = Instant::now();
    let (popped, at) = waiting.await.unwrap();
    assert_eq!(popped, ["m3", "m4"]);
    assert!(
        at < acked + Duration::from_secs(5),
        "woken by the last acknowledgement"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_message_comes_again_with_all_behind_it_and_is_counted() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    for n in 0..3 {
        send(&mut client, TOPIC, 1, &format!("m{n}"), "A").await;
    }
    let first = pop(&mut client, ordered("one")).await;
    assert_eq!(ack(&mut client, &first[0]).await, ResponseCode::SUCCESS);
    assert_eq!(ack(&mut client, &first[2]).await, ResponseCode::SUCCESS);
    let handle = change(&mut client, &first[1], Duration::from_millis(200)).await;
    assert_eq!(handle.unwrap().split(' ').nth(3), Some("999"));
    let header = PopRequest {
        poll_time: 15_000,
        ..ordered("two")
    };
    let answer = client.ask(pop_command(&header)).await;
    let second = popped(&answer);
    assert_eq!(bodies(&second), ["m1", "m2"]);
    assert_eq!(second[0].message.reconsume_times, 0, "it did not move");
    let counts = PopResponse::parse(&answer.fields).unwrap().order_count_info;
    assert_eq!(counts, Some("0 1 1;0 qo1%1 1;0 qo1%2 1"));
    assert_eq!(
        ack(&mut client, &first[1]).await,
        ResponseCode::SUCCESS,
        "and does nothing"
    );
    for message in &second {
        assert_eq!(ack(&mut client, message).await, ResponseCode::SUCCESS);
    }
    assert!(pop(&mut client, ordered("three")).await.is_empty());
    node.stop().await;
}
