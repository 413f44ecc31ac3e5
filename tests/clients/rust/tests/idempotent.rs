//! Topics that keep one copy of a message, and messages that the Rust client sends again.

#![recursion_limit = "512"]
#![allow(
    deprecated,
    reason = "the classic pull consumer is one of the clients under test"
)]

use std::collections::BTreeMap;

use rocketmq_model::common::message::MessageTrait;
use rocketmq_model::common::message::message_queue::MessageQueue;
use rocketmq_model::common::message::message_single::Message;
use stock_clients::{World, in_world, message, numbered, place, read_all, send, send_to};

/// A message whose unique key its application has chosen; the client leaves that as it is.
fn keyed(topic: &str, body: &str, key: &str) -> Message {
    let mut made = message(topic, body, "tag");
    made.put_property("UNIQ_KEY".into(), key.into());
    made
}

/// How often each body is stored.
async fn stored(world: &World, queues: &[MessageQueue]) -> BTreeMap<String, usize> {
    let puller = world.puller().await;
    let mut count = BTreeMap::new();
    for message in read_all(&puller, queues).await {
        *count.entry(message.body).or_default() += 1;
    }
    puller.shutdown().await.expect("pull consumer ends");
    count
}

#[test]
fn a_message_sent_by_two_producers_is_kept_once_where_the_first_was_told() {
    in_world(|world| async move {
        let (topic, queues) = world.idempotent_topic(2).await;
        let (mut one, mut other) = (world.producer().await, world.producer().await);
        let first = send_to(&one, keyed(&topic, "same", "K"), &queues[1]).await;
        for again in [
            send_to(&one, keyed(&topic, "same", "K"), &queues[0]).await,
            send_to(&other, keyed(&topic, "same", "K"), &queues[0]).await,
            send(&other, keyed(&topic, "same", "K")).await,
        ] {
            assert_eq!(place(&again), place(&first));
            assert_eq!(again.msg_id, first.msg_id, "the unique key");
        }
        let collision = send_to(&one, keyed(&topic, "another", "K"), &queues[1]).await;
        assert_ne!(place(&collision), place(&first));
        let expected = [("another".to_owned(), 1), ("same".to_owned(), 1)];
        assert_eq!(stored(&world, &queues).await, expected.into());
        one.shutdown().await;
        other.shutdown().await;
    });
}

/// Sends over a way on which the first answer to each send becomes an error, so that the client tries again;
/// how often each body is stored.
async fn sent_again(
    world: &World,
    topic: &str,
    queues: &[MessageQueue],
) -> BTreeMap<String, usize> {
    let config = world.config_for(&world.lossy_namesrv());
    let mut producer = world.producer_with(config).await;
    for body in numbered(topic, 20) {
        send(&producer, message(topic, &body, "tag")).await;
    }
    producer.shutdown().await;
    stored(world, queues).await
}

#[test]
fn what_the_client_sends_again_by_itself_is_kept_once() {
    in_world(|world| async move {
        let (topic, queues) = world.idempotent_topic(2).await;
        let once = sent_again(&world, &topic, &queues).await;
        let (ordinary, queues) = world.topic(2).await;
        let twice = sent_again(&world, &ordinary, &queues).await;
        let count = |topic: &str, copies: usize| -> BTreeMap<String, usize> {
            let bodies = numbered(topic, 20).into_iter();
            bodies.map(|body| (body, copies)).collect()
        };
        assert_eq!(twice, count(&ordinary, 2), "the client has tried again");
        assert_eq!(once, count(&topic, 1));
    });
}
