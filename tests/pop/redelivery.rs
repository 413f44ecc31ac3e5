//! Messages that come again.

use std::time::Duration;

use gantry_protocol::ResponseCode;
use gantry_protocol::headers::PopRequest;

use super::requests::*;
use super::support::{Connection, OneNode};

const TOPIC: &str = "Again";

fn waiting() -> PopRequest<'static> {
    PopRequest {
        poll_time: 15_000,
        ..pop_of(TOPIC)
    }
}

async fn pop_one(client: &mut Connection, header: PopRequest<'_>) -> Popped {
    let mut popped = pop(client, header).await;
    assert_eq!(popped.len(), 1);
    popped.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unacknowledged_message_comes_from_the_retry_topic_with_its_count() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    send(&mut client, TOPIC, 2, "m", "A").await;
    let short = PopRequest {
        invisible_time: 300,
        ..pop_of(TOPIC)
    };
    let first = pop_one(&mut client, short).await;
    assert_eq!((first.message.reconsume_times, first.part(4)), (0, "0"));
    let second = pop_one(
        &mut client,
        PopRequest {
            invisible_time: 300,
            ..waiting()
        },
    )
    .await;
    assert_eq!(second.body(), "m");
    assert_eq!(
        second.message.topic, TOPIC,
        "clients see the topic that they asked for"
    );
    assert_eq!((second.message.reconsume_times, second.part(4)), (1, "1"));
    assert_eq!(second.property("TAGS").as_deref(), Some("A"));
    assert_eq!(
        second.property("1ST_POP_TIME").as_deref(),
        Some(first.part(1))
    );
    assert_eq!(second.message.born_timestamp, 7);
    // The first handle is of a lease that has ended: the acknowledgement comes too late and does nothing.
    assert_eq!(ack(&mut client, &first).await, ResponseCode::SUCCESS);
    let third = pop_one(&mut client, waiting()).await;
    assert_eq!((third.message.reconsume_times, third.part(4)), (2, "1"));
    assert_eq!(
        third.property("1ST_POP_TIME").as_deref(),
        Some(first.part(1))
    );
    assert_eq!(ack(&mut client, &third).await, ResponseCode::SUCCESS);
    let none = PopRequest {
        poll_time: 700,
        ..pop_of(TOPIC)
    };
    assert!(pop(&mut client, none).await.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_time_moves_the_second_delivery_and_replaces_the_handle() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    for body in ["later", "sooner"] {
        send(&mut client, TOPIC, 0, body, "A").await;
    }
    let one = PopRequest {
        max_msg_nums: 1,
        ..pop_of(TOPIC)
    };
    let later = pop_one(
        &mut client,
        PopRequest {
            invisible_time: 400,
            ..one
        },
    )
    .await;
    let sooner = pop_one(&mut client, one).await;
    let handle = change(&mut client, &later, Duration::from_secs(30))
        .await
        .unwrap();
    let stale = change(&mut client, &later, Duration::from_secs(30)).await;
    assert_eq!(stale, Err(ResponseCode::NO_MESSAGE));
    assert_eq!(
        ack(&mut client, &later).await,
        ResponseCode::SUCCESS,
        "and does nothing"
    );
    change(&mut client, &sooner, Duration::ZERO).await.unwrap();
    let again = pop_one(&mut client, waiting()).await;
    assert_eq!(
        (again.body().as_str(), again.message.reconsume_times),
        ("sooner", 1)
    );
    assert_eq!(
        ack_with(&mut client, &later, &handle).await,
        ResponseCode::SUCCESS
    );
    let stale = Popped { handle, ..later };
    let stale = change(&mut client, &stale, Duration::ZERO).await;
    assert_eq!(
        stale,
        Err(ResponseCode::NO_MESSAGE),
        "the new handle ended the lease"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_survive_a_restart() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    for n in 0..3 {
        send(&mut client, TOPIC, 0, &format!("m{n}"), "A").await;
    }
    let header = PopRequest {
        invisible_time: 1_000,
        ..pop_of(TOPIC)
    };
    let popped = pop(&mut client, header).await;
    assert_eq!(ack(&mut client, &popped[1]).await, ResponseCode::SUCCESS);
    let node = node.restart().await;
    let mut client = node.connect().await;
    let mut again = Vec::new();
    while again.len() < 2 {
        again.extend(pop(&mut client, waiting()).await);
    }
    assert_eq!(bodies(&again), ["m0", "m2"]);
    node.stop().await;
}
