//! Every way the Rust client can send, read back where the broker said it put the messages.

#![recursion_limit = "512"]
#![allow(
    deprecated,
    reason = "the classic pull consumer is one of the clients under test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rocketmq_client_rust::SendStatus;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::common::message::message_queue::MessageQueue;
use rocketmq_model::common::message::message_single::Message;
use stock_clients::{
    DELIVERY, Received, Subscription, eventually, fresh, in_world, message, numbered, place,
    read_all, send, send_to, sorted, text,
};

#[test]
fn sync_sends_are_stored_once_where_the_ack_says() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(2).await;
        let mut producer = world.producer().await;
        let mut acked = BTreeMap::new();
        for body in numbered("sync", 30) {
            let result = send(&producer, message(&topic, &body, "tag")).await;
            acked.insert(place(&result), body);
        }
        let puller = world.puller().await;
        let stored: BTreeMap<_, _> = read_all(&puller, &queues)
            .await
            .into_iter()
            .map(|message| ((message.queue, message.offset), message.body))
            .collect();
        assert_eq!(stored, acked);
        let groups = |places: Vec<&((String, i32), i64)>| -> BTreeSet<String> {
            places.iter().map(|place| place.0.0.clone()).collect()
        };
        let all: BTreeSet<_> = queues
            .iter()
            .map(|queue| queue.broker_name().to_string())
            .collect();
        assert_eq!(
            groups(acked.keys().collect()),
            all,
            "not all groups were written to"
        );
        producer.shutdown().await;
        puller.shutdown().await.expect("pull consumer ends");
    });
}

#[test]
fn async_sends_call_back_and_are_stored_once() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(2).await;
        let mut producer = world.producer().await;
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        for body in numbered("async", 30) {
            let sink = Arc::clone(&outcomes);
            producer
                .send_with_callback(message(&topic, &body, "tag"), move |result, error| {
                    let outcome = match (result, error) {
                        (Some(result), None) => Ok(result.clone()),
                        other => Err(format!("{other:?}")),
                    };
                    sink.lock().expect("no panic in callbacks").push(outcome);
                })
                .await
                .expect("the send is accepted");
        }
        eventually(Duration::from_secs(20), "30 callbacks", async || {
            outcomes.lock().expect("no panic in callbacks").len() >= 30
        })
        .await;
        for outcome in outcomes.lock().expect("no panic in callbacks").iter() {
            let result = outcome.as_ref().expect("the send succeeds");
            assert_eq!(result.send_status, SendStatus::SendOk);
        }
        let puller = world.puller().await;
        let stored = read_all(&puller, &queues).await;
        let bodies: Vec<_> = stored.into_iter().map(|message| message.body).collect();
        assert_eq!(sorted(&bodies), numbered("async", 30));
        producer.shutdown().await;
        puller.shutdown().await.expect("pull consumer ends");
    });
}

#[test]
fn oneway_sends_arrive() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(2).await;
        let mut producer = world.producer().await;
        let wanted = numbered("oneway", 30);
        for body in &wanted {
            producer
                .send_oneway(message(&topic, body, "tag"))
                .await
                .expect("the send is accepted");
        }
        let puller = world.puller().await;
        eventually(Duration::from_secs(20), "30 oneway messages", async || {
            let stored = read_all(&puller, &queues).await;
            let bodies: Vec<_> = stored.into_iter().map(|message| message.body).collect();
            sorted(&bodies) == wanted
        })
        .await;
        producer.shutdown().await;
        puller.shutdown().await.expect("pull consumer ends");
    });
}

#[test]
fn a_batch_is_stored_in_one_queue_in_order() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(2).await;
        let mut producer = world.producer().await;
        let bodies = numbered("batch", 20);
        let batch: Vec<Message> = bodies
            .iter()
            .map(|body| message(&topic, body, "tag"))
            .collect();
        let result = producer.send_batch(batch).await.expect("the batch is sent");
        assert_eq!(result.send_status, SendStatus::SendOk);
        let (queue, first) = place(&result);
        let ids = result.offset_msg_id.as_deref().unwrap_or_default();
        assert_eq!(
            ids.split(',').count(),
            20,
            "one id per message of the batch: {ids}"
        );

        let puller = world.puller().await;
        let stored = read_all(&puller, &queues).await;
        let wanted: Vec<_> = (first..)
            .zip(bodies)
            .map(|(offset, body)| Received {
                body,
                queue: queue.clone(),
                offset,
                times: 0,
            })
            .collect();
        assert_eq!(stored, wanted);
        producer.shutdown().await;
        puller.shutdown().await.expect("pull consumer ends");
    });
}

#[test]
fn a_selector_keeps_each_key_in_one_queue_in_order() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(2).await;
        let mut producer = world.producer().await;
        for step in 0..10 {
            for key in 0..4i64 {
                let by_key = |queues: &[MessageQueue], _: &Message, key: &i64| {
                    queues.get(*key as usize % queues.len().max(1)).cloned()
                };
                let sent = message(&topic, &format!("{key}:{step}"), "tag");
                let result = producer.send_with_selector(sent, by_key, key).await;
                let result = result.expect("the send succeeds").expect("a result");
                assert_eq!(result.send_status, SendStatus::SendOk);
            }
        }
        let puller = world.puller().await;
        let stored = read_all(&puller, &queues).await;
        assert_eq!(stored.len(), 40);
        for key in 0..4 {
            let prefix = format!("{key}:");
            let mine: Vec<_> = stored
                .iter()
                .filter(|m| m.body.starts_with(&prefix))
                .collect();
            let places: BTreeSet<_> = mine.iter().map(|m| m.queue.clone()).collect();
            assert_eq!(places.len(), 1, "key {key} was spread over {places:?}");
            let steps: Vec<_> = mine.iter().map(|m| m.body.clone()).collect();
            assert_eq!(
                steps,
                (0..10)
                    .map(|step| format!("{key}:{step}"))
                    .collect::<Vec<_>>()
            );
        }
        producer.shutdown().await;
        puller.shutdown().await.expect("pull consumer ends");
    });
}

/// Reproducible text that compresses well or badly.
fn text_of(size: usize, compressible: bool) -> String {
    let mut state = size as u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        b'!' + ((state >> 33) % 90) as u8
    };
    let bytes = (0..size).map(|i| {
        if compressible {
            b"gantry "[i % 7]
        } else {
            next()
        }
    });
    String::from_utf8(bytes.collect()).expect("ascii")
}

#[test]
fn big_bodies_come_back_unchanged() {
    in_world(|world| async move {
        let (topic, _) = world.topic(1).await;
        let group = fresh("group");
        let mut producer = world.producer().await;
        let (mut consumer, recorder) = world.consumer(Subscription::new(&group, &topic)).await;
        let mut bodies = Vec::new();
        for size in [4096, 5000, 1 << 20] {
            for compressible in [true, false] {
                let body = text_of(size, compressible);
                send(&producer, message(&topic, &body, "big")).await;
                bodies.push(body);
            }
        }
        eventually(DELIVERY, "all big messages", async || {
            recorder.bodies().len() >= 6
        })
        .await;
        let sizes: Vec<_> = sorted(&recorder.bodies()).iter().map(String::len).collect();
        assert!(
            sorted(&recorder.bodies()) == sorted(&bodies),
            "other bodies, of {sizes:?} bytes"
        );
        consumer.shutdown().await;
        producer.shutdown().await;
    });
}

#[test]
fn a_topic_is_created_by_its_first_message() {
    in_world(|world| async move {
        let topic = fresh("auto");
        let mut producer = world.producer().await;
        let wanted = numbered("auto", 12);
        for body in &wanted {
            send(&producer, message(&topic, body, "tag")).await;
        }
        let group = fresh("group");
        let (mut consumer, recorder) = world.consumer(Subscription::new(&group, &topic)).await;
        assert_eq!(sorted(&recorder.wait_for(&wanted).await), wanted);
        consumer.shutdown().await;
        producer.shutdown().await;
    });
}

fn only(found: &[MessageExt]) -> &MessageExt {
    assert_eq!(found.len(), 1, "one message expected");
    &found[0]
}

#[test]
fn messages_are_found_by_id_and_by_key() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(1).await;
        let mut producer = world.producer().await;
        for (i, queue) in queues.iter().enumerate() {
            let body = format!("find me {i}");
            let sent = Message::builder()
                .topic(topic.clone())
                .keys(vec![format!("key-{i}")])
                .body_slice(body.as_bytes())
                .build_unchecked();
            let result = send_to(&producer, sent, queue).await;
            let id = result.offset_msg_id.expect("an offset id");
            let viewed = producer
                .view_message(&topic, &id)
                .await
                .expect("found by id");
            assert_eq!(text(&viewed), body);
            let end = i64::MAX as u64;
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            loop {
                match producer
                    .query_message(&topic, &format!("key-{i}"), 8, 0, end)
                    .await
                {
                    Ok(found) if !found.message_list().is_empty() => {
                        assert_eq!(text(only(found.message_list())), body);
                        break;
                    }
                    other => assert!(
                        std::time::Instant::now() < deadline,
                        "key-{i} is not found: {:?}",
                        other.err()
                    ),
                }
            }
        }
        producer.shutdown().await;
    });
}
