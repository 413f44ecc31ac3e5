//! Pull, lite pull and push consumers of the Rust client: offsets, tags, order, broadcasting, shared queues.

#![recursion_limit = "512"]
#![allow(
    deprecated,
    reason = "the classic pull consumer is one of the clients under test"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use rocketmq_client_rust::prelude::{DefaultLitePullConsumer, DefaultMQProducer};
use rocketmq_client_rust::{MessageSelector, PullStatus};
use rocketmq_model::common::consumer::consume_from_where::ConsumeFromWhere;
use rocketmq_model::common::message::message_queue::MessageQueue;
use rocketmq_protocol::protocol::heartbeat::message_model::MessageModel;
use stock_clients::{
    DELIVERY, Recorder, Subscription, World, eventually, fresh, in_world, message, numbered, send,
    send_to, sorted, text,
};

/// One message per queue and per prefix; the body names the queue.
async fn send_to_all(
    producer: &DefaultMQProducer,
    topic: &str,
    queues: &[MessageQueue],
    prefix: &str,
) -> Vec<String> {
    let mut sent = Vec::new();
    for queue in queues {
        let body = format!("{prefix}@{}:{}", queue.broker_name(), queue.queue_id());
        send_to(producer, message(topic, &body, "tag"), queue).await;
        sent.push(body);
    }
    sent
}

async fn send_all(producer: &DefaultMQProducer, topic: &str, bodies: &[String], tag: &str) {
    for body in bodies {
        send(producer, message(topic, body, tag)).await;
    }
}

#[test]
fn pull_reads_from_the_first_the_middle_and_the_last_offset() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(2).await;
        let mut producer = world.producer().await;
        for i in 0..10 {
            send_to_all(&producer, &topic, &queues, &format!("m{i}")).await;
        }
        let puller = world.puller().await;
        let mut offered = puller
            .fetch_subscribe_message_queues(&topic)
            .await
            .expect("queues");
        offered.sort();
        assert_eq!(offered, queues);
        for queue in &queues {
            assert_eq!(puller.min_offset(queue).await.expect("min"), 0);
            assert_eq!(puller.max_offset(queue).await.expect("max"), 10);
            for (offset, wanted) in [(0, 10), (7, 3)] {
                let pulled = puller.pull(queue, "*", offset, 32).await.expect("pulled");
                assert_eq!(*pulled.pull_status(), PullStatus::Found);
                let found = pulled.msg_found_list().unwrap_or_default();
                let offsets: Vec<_> = found.iter().map(|m| m.queue_offset()).collect();
                assert_eq!(offsets, (10 - wanted..10).collect::<Vec<_>>());
                assert!(text(&found[0]).starts_with(&format!("m{offset}@")));
                assert_eq!(pulled.next_begin_offset(), 10);
            }
            let last = puller.pull(queue, "*", 10, 32).await.expect("pulled");
            assert_eq!(*last.pull_status(), PullStatus::NoNewMsg);
            let beyond = puller.pull(queue, "*", 1000, 32).await.expect("pulled");
            assert_eq!(*beyond.pull_status(), PullStatus::OffsetIllegal);
            assert_eq!(beyond.next_begin_offset(), 10, "where to go on is told");
        }
        producer.shutdown().await;
        puller.shutdown().await.expect("pull consumer ends");
    });
}

async fn lite(world: &World, group: &str) -> DefaultLitePullConsumer {
    DefaultLitePullConsumer::builder(world.runtime())
        .name_server_addr(world.namesrv().to_owned())
        .instance_name(fresh("instance"))
        .consumer_group(group.to_owned())
        .auto_commit(false)
        .consume_from_where(ConsumeFromWhere::ConsumeFromFirstOffset)
        .build()
        .expect("lite pull consumer")
}

async fn poll_until(consumer: &DefaultLitePullConsumer, wanted: &[String]) -> Vec<String> {
    let mut got: Vec<String> = Vec::new();
    let end = std::time::Instant::now() + DELIVERY;
    while !wanted.iter().all(|body| got.contains(body)) {
        assert!(std::time::Instant::now() < end, "got {got:?} of {wanted:?}");
        got.extend(consumer.poll_with_timeout(500).await.iter().map(text));
    }
    got
}

#[test]
fn sql_filters_apply_to_pulls_and_to_push_consumers() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(1).await;
        let mut producer = world.producer().await;
        let mut red = Vec::new();
        for i in 0..6 {
            let prefix = format!("red{i}");
            red.extend(send_to_all(&producer, &topic, &queues, &prefix).await);
            send_all(&producer, &topic, &[format!("blue{i}")], "blue").await;
        }
        let expression = "TAGS IN ('tag', 'other') AND NOT (TAGS CONTAINS 'blue') AND gone IS NULL";
        let puller = world.puller().await;
        let mut pulled = Vec::new();
        for queue in &queues {
            let selector = MessageSelector::by_sql(expression);
            let result = puller.pull_with_selector(queue, selector, 0, 32).await;
            let result = result.expect("pulled");
            pulled.extend(result.msg_found_list().unwrap_or_default().iter().map(text));
        }
        assert_eq!(sorted(&pulled), sorted(&red));

        let group = fresh("group");
        let subscription = Subscription {
            expression,
            sql: true,
            ..Subscription::new(&group, &topic)
        };
        let (mut consumer, received) = world.consumer(subscription).await;
        received.wait_for(&red).await;
        // Now its pulls wait; what comes is filtered as well.
        send_all(&producer, &topic, &numbered("late-blue", 3), "blue").await;
        let late = send_to_all(&producer, &topic, &queues, "late-red").await;
        received.wait_for(&late).await;
        red.extend(late);
        assert_eq!(sorted(&received.bodies()), sorted(&red));
        consumer.shutdown().await;
        producer.shutdown().await;
        puller.shutdown().await.expect("pull consumer ends");
    });
}

#[test]
fn lite_pull_seeks_to_the_first_and_the_last_offset() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(1).await;
        let mut producer = world.producer().await;
        let old = send_to_all(&producer, &topic, &queues, "old").await;
        let consumer = lite(&world, &fresh("group")).await;
        consumer.start().await.expect("consumer starts");
        consumer.assign(queues.clone()).await.expect("assigned");
        // An assigned consumer has no subscription that would make it ask for the topic's route.
        assert_eq!(
            consumer
                .fetch_message_queues(&topic)
                .await
                .expect("queues")
                .len(),
            queues.len()
        );
        for queue in &queues {
            eventually(Duration::from_secs(20), "a seek to the begin", async || {
                consumer.seek_to_begin(queue).await.is_ok()
            })
            .await;
        }
        assert_eq!(sorted(&poll_until(&consumer, &old).await), sorted(&old));
        for queue in &queues {
            consumer.seek_to_end(queue).await.expect("seeks");
        }
        let new = send_to_all(&producer, &topic, &queues, "new").await;
        assert_eq!(sorted(&poll_until(&consumer, &new).await), sorted(&new));
        consumer.shutdown().await;
        producer.shutdown().await;
    });
}

#[test]
fn lite_pull_subscribes_and_commits() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(1).await;
        let group = fresh("group");
        let mut producer = world.producer().await;
        let sent = send_to_all(&producer, &topic, &queues, "one").await;
        let consumer = lite(&world, &group).await;
        consumer.subscribe(&topic).await.expect("subscribed");
        consumer.start().await.expect("consumer starts");
        assert_eq!(sorted(&poll_until(&consumer, &sent).await), sorted(&sent));
        let offsets: HashMap<_, _> = queues.iter().map(|queue| (queue.clone(), 1)).collect();
        consumer.commit_with_map(offsets, true).await;
        eventually(
            Duration::from_secs(20),
            "the committed offsets",
            async || {
                for queue in &queues {
                    if consumer.committed(queue).await.ok() != Some(1) {
                        return false;
                    }
                }
                true
            },
        )
        .await;
        consumer.shutdown().await;
        producer.shutdown().await;
    });
}

#[test]
fn push_delivers_everything_once() {
    in_world(|world| async move {
        let (topic, _) = world.topic(2).await;
        let group = fresh("group");
        let mut producer = world.producer().await;
        send_all(&producer, &topic, &numbered("before", 30), "tag").await;
        let (mut consumer, recorder) = world.consumer(Subscription::new(&group, &topic)).await;
        recorder.wait_for(&numbered("before", 30)).await;
        send_all(&producer, &topic, &numbered("after", 30), "tag").await;
        let wanted = [numbered("after", 30), numbered("before", 30)].concat();
        assert_eq!(sorted(&recorder.wait_for(&wanted).await), wanted);
        consumer.shutdown().await;
        producer.shutdown().await;
    });
}

#[test]
fn push_filters_by_tag() {
    in_world(|world| async move {
        let (topic, _) = world.topic(2).await;
        let group = fresh("group");
        let mut producer = world.producer().await;
        let subscription = Subscription {
            expression: "red || blue",
            ..Subscription::new(&group, &topic)
        };
        let (mut consumer, recorder) = world.consumer(subscription).await;
        for colour in ["red", "green", "blue"] {
            send_all(&producer, &topic, &numbered(colour, 10), colour).await;
        }
        let wanted = [numbered("blue", 10), numbered("red", 10)].concat();
        assert_eq!(sorted(&recorder.wait_for(&wanted).await), wanted);
        consumer.shutdown().await;
        producer.shutdown().await;
    });
}

#[test]
fn orderly_consumption_keeps_the_order_of_each_queue() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(2).await;
        let group = fresh("group");
        let mut producer = world.producer().await;
        let subscription = Subscription {
            orderly: true,
            ..Subscription::new(&group, &topic)
        };
        let (mut consumer, recorder) = world.consumer(subscription).await;
        let mut wanted = Vec::new();
        for step in 0..20 {
            wanted.extend(send_to_all(&producer, &topic, &queues, &format!("{step:02}")).await);
        }
        let bodies = recorder.wait_for(&wanted).await;
        for queue in &queues {
            let place = format!("@{}:{}", queue.broker_name(), queue.queue_id());
            let mine: Vec<_> = bodies
                .iter()
                .filter(|body| body.ends_with(&place))
                .cloned()
                .collect();
            let ordered: Vec<_> = (0..20).map(|step| format!("{step:02}{place}")).collect();
            assert_eq!(mine, ordered);
        }
        consumer.shutdown().await;
        producer.shutdown().await;
    });
}

#[test]
fn broadcasting_gives_everything_to_every_consumer() {
    in_world(|world| async move {
        let (topic, _) = world.topic(2).await;
        let group = fresh("group");
        let mut producer = world.producer().await;
        let subscription = Subscription {
            model: MessageModel::Broadcasting,
            ..Subscription::new(&group, &topic)
        };
        let (mut one, first) = world.consumer(subscription).await;
        let (mut two, second) = world.consumer(subscription).await;
        let wanted = numbered("news", 30);
        send_all(&producer, &topic, &wanted, "tag").await;
        for recorder in [first, second] {
            assert_eq!(sorted(&recorder.wait_for(&wanted).await), wanted);
        }
        one.shutdown().await;
        two.shutdown().await;
        producer.shutdown().await;
    });
}

/// What was sent to a queue after the first of its messages that was delivered, and has not been delivered. Bodies
/// are compared and not offsets: a message that the client sends back comes again at a place in the retry topic.
fn holes(recorder: &Recorder, sent: &[String]) -> Vec<String> {
    let delivered: BTreeSet<_> = recorder.bodies().into_iter().collect();
    let mut begun = BTreeSet::new();
    let mut missing = Vec::new();
    for body in sent {
        let (_, queue) = body.split_once('@').expect("the body names its queue");
        if delivered.contains(body) {
            begun.insert(queue);
        } else if begun.contains(queue) {
            missing.push(body.clone());
        }
    }
    missing
}

/// A new group that asks for the last offset. On a young topic the broker may offer it the queue from its first
/// message, as RocketMQ does, but all of it; what comes after the start is delivered in any case.
#[test]
fn a_new_group_at_the_last_offset_gets_what_comes_after_its_start() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(1).await;
        let group = fresh("group");
        let mut producer = world.producer().await;
        let old = send_to_all(&producer, &topic, &queues, "old").await;
        let subscription = Subscription {
            from: ConsumeFromWhere::ConsumeFromLastOffset,
            ..Subscription::new(&group, &topic)
        };
        let (mut consumer, recorder) = world.consumer(subscription).await;
        // Once each queue has delivered something, the consumer has taken its start everywhere.
        let mut rounds = 0;
        let mut sent = Vec::new();
        eventually(DELIVERY, "a message of each queue", async || {
            rounds += 1;
            sent.extend(send_to_all(&producer, &topic, &queues, &format!("round{rounds}")).await);
            let places: BTreeSet<_> = recorder
                .received()
                .into_iter()
                .map(|message| message.queue)
                .collect();
            places.len() == queues.len()
        })
        .await;
        let new = send_to_all(&producer, &topic, &queues, "new").await;
        let bodies = recorder.wait_for(&new).await;
        let unique: BTreeSet<_> = bodies.iter().collect();
        assert_eq!(unique.len(), bodies.len(), "delivered twice: {bodies:?}");
        for body in &bodies {
            assert!(
                old.contains(body) || sent.contains(body) || new.contains(body),
                "{body}"
            );
        }
        let in_order = [old, sent, new].concat();
        eventually(
            DELIVERY,
            "everything after the first message of each queue",
            async || holes(&recorder, &in_order).is_empty(),
        )
        .await;
        consumer.shutdown().await;
        producer.shutdown().await;
    });
}

/// Send a round of one message per queue and say which consumer was given which queues.
async fn round(
    producer: &DefaultMQProducer,
    topic: &str,
    queues: &[MessageQueue],
    recorders: &[&Recorder],
) -> Vec<BTreeSet<String>> {
    let sent: BTreeSet<_> = send_to_all(producer, topic, queues, &fresh("round"))
        .await
        .into_iter()
        .collect();
    let shares = || -> Vec<BTreeSet<String>> {
        let share = |recorder: &&Recorder| {
            recorder
                .bodies()
                .into_iter()
                .filter(|body| sent.contains(body))
                .collect()
        };
        recorders.iter().map(share).collect()
    };
    eventually(DELIVERY, "a whole round", async || {
        shares().into_iter().flatten().collect::<BTreeSet<_>>() == sent
    })
    .await;
    let place = |body: String| body.split_once('@').map(|(_, place)| place.to_owned());
    shares()
        .into_iter()
        .map(|share| share.into_iter().filter_map(place).collect())
        .collect()
}

#[test]
fn two_consumers_share_the_queues_and_one_takes_over() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(2).await;
        let group = fresh("group");
        let mut producer = world.producer().await;
        let subscription = Subscription::new(&group, &topic);
        let (mut stays, first) = world.consumer(subscription).await;
        let (mut leaves, second) = world.consumer(subscription).await;
        let both = [&first, &second];
        eventually(DELIVERY, "an even share of the queues", async || {
            let shares = round(&producer, &topic, &queues, &both).await;
            shares[0].is_disjoint(&shares[1])
                && shares.iter().all(|share| share.len() == queues.len() / 2)
        })
        .await;
        let during = numbered("while-leaving", 100);
        let (_, ()) = tokio::join!(
            leaves.shutdown(),
            send_all(&producer, &topic, &during, "tag")
        );
        eventually(
            DELIVERY,
            "all queues at the consumer that stays",
            async || {
                let shares = round(&producer, &topic, &queues, &both).await;
                shares[0].len() == queues.len() && shares[1].is_empty()
            },
        )
        .await;
        eventually(DELIVERY, "everything sent while one left", async || {
            let got: BTreeSet<_> = [first.bodies(), second.bodies()]
                .concat()
                .into_iter()
                .collect();
            during.iter().all(|body| got.contains(body))
        })
        .await;
        stays.shutdown().await;
        producer.shutdown().await;
    });
}

#[test]
fn offsets_survive_a_consumer_restart() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(2).await;
        let group = fresh("group");
        let mut producer = world.producer().await;
        let subscription = Subscription::new(&group, &topic);
        let (mut consumer, recorder) = world.consumer(subscription).await;
        let old = numbered("old", 40);
        send_all(&producer, &topic, &old, "tag").await;
        recorder.wait_for(&old).await;
        let mut ends = BTreeMap::new();
        // What this client sends back although it was consumed comes again at a place in the retry topic.
        for received in recorder.received().into_iter().filter(|one| one.times == 0) {
            let end = ends.entry(received.queue).or_insert(0);
            *end = received.offset.max(*end - 1) + 1;
        }
        assert_eq!(ends.values().sum::<i64>(), 40);
        consumer.shutdown().await;

        // The shutdown commits; a reader of the same group that never consumes tells when it has arrived.
        let reader = lite(&world, &group).await;
        reader.start().await.expect("reader starts");
        eventually(
            Duration::from_secs(30),
            "the committed offsets",
            async || {
                for queue in &queues {
                    let end = ends.get(&(queue.broker_name().to_string(), queue.queue_id()));
                    let committed = reader.committed(queue).await.ok();
                    if end.is_some() && committed != end.copied() {
                        return false;
                    }
                }
                true
            },
        )
        .await;
        reader.shutdown().await;

        let between = numbered("between", 20);
        send_all(&producer, &topic, &between, "tag").await;
        let (mut restarted, recorder) = world.consumer(subscription).await;
        assert_eq!(sorted(&recorder.wait_for(&between).await), between);
        restarted.shutdown().await;
        producer.shutdown().await;
    });
}
