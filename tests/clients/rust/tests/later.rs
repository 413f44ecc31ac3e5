//! Messages of the Rust client that do not come at once: delays, recalls, transactions.

#![recursion_limit = "512"]

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rocketmq_client_rust::prelude::DefaultMQPushConsumer;
use rocketmq_client_rust::{LocalTransactionState, SendStatus, TransactionListener};
use rocketmq_model::common::message::MessageTrait;
use rocketmq_model::common::message::message_builder::MessageBuilder;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::common::message::message_single::Message;
use stock_clients::{
    DELIVERY, Recorder, Subscription, World, eventually, fresh, in_world, message, send, text,
};

/// A fresh topic of one queue and a group that consumes it.
async fn listened_to(world: &World) -> (String, DefaultMQPushConsumer, Recorder) {
    let (topic, _) = world.topic(1).await;
    let group = fresh("group");
    let (consumer, recorder) = world.consumer(Subscription::new(&group, &topic)).await;
    (topic, consumer, recorder)
}

fn later(topic: &str, body: &str) -> MessageBuilder {
    let builder = Message::builder().topic(topic).tags("tag");
    builder.body_slice(body.as_bytes())
}

#[test]
fn messages_come_after_their_delays_and_not_before() {
    in_world(|world| async move {
        let (topic, mut consumer, recorder) = listened_to(&world).await;
        let mut producer = world.producer().await;
        let at = Instant::now();
        send(
            &producer,
            later(&topic, "level 2").delay_level(2).build_unchecked(),
        )
        .await;
        send(
            &producer,
            later(&topic, "seconds").delay_secs(3).build_unchecked(),
        )
        .await;
        let millis = later(&topic, "millis").delay_millis(1_500);
        send(&producer, millis.build_unchecked()).await;
        send(
            &producer,
            later(&topic, "level 1").delay_level(1).build_unchecked(),
        )
        .await;
        send(&producer, message(&topic, "now", "tag")).await;
        let due = [
            ("now", 0),
            ("level 1", 1_000),
            ("millis", 1_500),
            ("seconds", 3_000),
        ];
        for (body, after_ms) in due.into_iter().chain([("level 2", 5_000)]) {
            recorder.wait_for(&[body.to_owned()]).await;
            let waited = at.elapsed();
            assert!(
                waited >= Duration::from_millis(after_ms),
                "{body} after {waited:?}"
            );
        }
        // The sends themselves may take a second, so the order in which they come is not known.
        let mut came = recorder.bodies();
        came.sort();
        assert_eq!(came, ["level 1", "level 2", "millis", "now", "seconds"]);
        producer.shutdown().await;
        consumer.shutdown().await;
    });
}

#[test]
fn a_recalled_message_never_comes() {
    in_world(|world| async move {
        let (topic, mut consumer, recorder) = listened_to(&world).await;
        let mut producer = world.producer().await;
        let recalled = later(&topic, "recalled").delay_millis(2_000);
        let sent = send(&producer, recalled.build_unchecked()).await;
        let handle = sent.recall_handle.expect("what it can be recalled with");
        let id = producer.recall_message(&topic, handle.as_str()).await;
        assert_eq!(
            id.expect("it is recalled"),
            sent.msg_id.expect("its key").as_str()
        );
        let again = producer.recall_message(&topic, handle.as_str()).await;
        assert!(again.is_err(), "there is nothing to recall: {again:?}");
        // One that is due later, of the same queue.
        send(
            &producer,
            later(&topic, "kept").delay_millis(2_500).build_unchecked(),
        )
        .await;
        recorder.wait_for(&["kept".to_owned()]).await;
        assert_eq!(recorder.bodies(), ["kept"]);
        producer.shutdown().await;
        consumer.shutdown().await;
    });
}

/// Decides by what a message says, and counts how often it was asked about each.
#[derive(Clone, Default)]
struct Decisions {
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Decisions {
    fn asked_about(&self, body: &str) -> u32 {
        let asked = self.asked.lock().expect("no panic while counting");
        asked.get(body).copied().unwrap_or(0)
    }
}

impl TransactionListener for Decisions {
    fn execute_local_transaction(
        &self,
        message: &dyn MessageTrait,
        _: Option<&(dyn Any + Send + Sync)>,
    ) -> LocalTransactionState {
        let body = message.get_body().expect("a body");
        match body.as_ref() {
            b"commit" => LocalTransactionState::CommitMessage,
            b"roll back" => LocalTransactionState::RollbackMessage,
            _ => LocalTransactionState::Unknown,
        }
    }

    fn check_local_transaction(&self, message: &MessageExt) -> LocalTransactionState {
        let body = text(message);
        let mut asked = self.asked.lock().expect("no panic while counting");
        *asked.entry(body.clone()).or_default() += 1;
        match body.as_str() {
            "commit when asked" => LocalTransactionState::CommitMessage,
            _ => LocalTransactionState::RollbackMessage,
        }
    }
}

#[test]
fn a_transaction_is_seen_once_it_is_committed_and_never_if_it_is_rolled_back() {
    in_world(|world| async move {
        let (topic, mut consumer, recorder) = listened_to(&world).await;
        let decisions = Decisions::default();
        let mut dealer = world.dealer(decisions.clone()).await;
        for body in [
            "roll back",
            "roll back when asked",
            "commit when asked",
            "commit",
        ] {
            let sent = dealer
                .send_message_in_transaction::<(), _>(message(&topic, body, "tag"), None)
                .await
                .expect("the half message is sent");
            let result = sent.send_result.expect("a result");
            assert_eq!(result.send_status, SendStatus::SendOk, "{body}");
            assert_eq!(result.transaction_id.as_deref(), result.msg_id.as_deref());
        }
        recorder.wait_for(&["commit".to_owned()]).await;
        assert_eq!(recorder.bodies(), ["commit"], "the others are not decided");
        recorder.wait_for(&["commit when asked".to_owned()]).await;
        eventually(DELIVERY, "a question about the other one", async || {
            decisions.asked_about("roll back when asked") > 0
        })
        .await;
        for body in ["commit", "roll back"] {
            assert_eq!(decisions.asked_about(body), 0, "{body} was decided at once");
        }
        // What comes last in the queue is behind anything that was let through by mistake.
        let mut producer = world.producer().await;
        send(&producer, message(&topic, "last", "tag")).await;
        recorder.wait_for(&["last".to_owned()]).await;
        assert_eq!(recorder.bodies(), ["commit", "commit when asked", "last"]);
        producer.shutdown().await;
        dealer.shutdown().await;
        consumer.shutdown().await;
    });
}
