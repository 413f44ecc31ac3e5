//! What the tests share: a client runtime around each test, fresh names, and clients with their defaults.

#![recursion_limit = "512"]
#![allow(
    deprecated,
    reason = "the classic pull consumer is one of the clients under test"
)]

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rocketmq_client_rust::prelude::{ClientConfig, DefaultMQProducer, DefaultMQPushConsumer};
use rocketmq_client_rust::{
    ClientRuntime, ClientRuntimeConfig, ConsumeConcurrentlyContext, ConsumeConcurrentlyStatus,
    ConsumeOrderlyContext, ConsumeOrderlyStatus, DefaultMQPullConsumer, MQPushConsumer,
    MessageSelector, PullStatus, SendResult, SendStatus, TransactionListener,
    TransactionMQProducer,
};
use rocketmq_model::common::consumer::consume_from_where::ConsumeFromWhere;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::common::message::message_queue::MessageQueue;
use rocketmq_model::common::message::message_single::Message;
use rocketmq_observability::TelemetryRuntimeGuard;
use rocketmq_protocol::protocol::heartbeat::message_model::MessageModel;
use rocketmq_runtime::RuntimeOwner;

/// How long a delivery may take: one client rebalance period and more.
pub const DELIVERY: Duration = Duration::from_secs(60);

static NAMES: AtomicU64 = AtomicU64::new(1);

/// A name that no other test and no other run uses.
pub fn fresh(kind: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("clock after 1970")
        .as_micros();
    format!(
        "{kind}-{}-{now:x}-{}",
        std::process::id(),
        NAMES.fetch_add(1, Ordering::Relaxed)
    )
}

/// Poll `condition` until it holds; panic after `deadline` naming what was missing.
pub async fn eventually(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition().await {
        assert!(
            Instant::now() < end,
            "after {deadline:?} still missing: {what}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One test's view of the cluster under `GANTRY_NAMESRV`.
#[derive(Clone)]
pub struct World {
    namesrv: String,
    runtime: Arc<ClientRuntime>,
}

/// Run `test` inside a client runtime of its own and shut that runtime down in order.
pub fn in_world<F, Fut>(test: F)
where
    F: FnOnce(World) -> Fut,
    Fut: Future<Output = ()>,
{
    let namesrv = std::env::var("GANTRY_NAMESRV").expect("GANTRY_NAMESRV: run this through run.sh");
    let owner = RuntimeOwner::new().expect("client runtime");
    let telemetry = TelemetryRuntimeGuard::noop();
    let component = owner.root_context().component("stock-clients");
    let runtime = ClientRuntime::try_new(
        component,
        ClientRuntimeConfig::default(),
        telemetry.handle(),
    )
    .expect("client runtime");
    owner.block_on(async {
        test(World {
            namesrv,
            runtime: runtime.clone(),
        })
        .await;
        runtime.shutdown().await;
    });
    owner
        .shutdown_runtime_blocking()
        .expect("the client runtime ends");
}

impl World {
    /// Client settings: the defaults, the cluster's name servers, and an instance of its own.
    pub fn config(&self) -> ClientConfig {
        self.config_for(&self.namesrv)
    }

    /// As [`World::config`], for a given list of name servers.
    pub fn config_for(&self, namesrv: &str) -> ClientConfig {
        ClientConfig {
            namesrv_addr: Some(namesrv.into()),
            instance_name: fresh("instance").into(),
            vip_channel_enabled: false,
            ..Default::default()
        }
    }

    /// A started producer.
    pub async fn producer(&self) -> DefaultMQProducer {
        self.producer_with(self.config()).await
    }

    /// A started producer with settings of its own.
    pub async fn producer_with(&self, config: ClientConfig) -> DefaultMQProducer {
        let mut producer = DefaultMQProducer::builder(self.runtime.clone())
            .client_config(config)
            .producer_group(fresh("producer"))
            .build();
        producer.start().await.expect("producer starts");
        producer
    }

    /// A fresh topic with `queues` queues in every broker group, and all of its queues.
    pub async fn topic(&self, queues: i32) -> (String, Vec<MessageQueue>) {
        let topic = self.create_topic(queues, HashMap::new()).await;
        let found = self.queues_when(&topic, |found| {
            let groups: BTreeSet<_> = found
                .iter()
                .map(|q: &MessageQueue| q.broker_name())
                .collect();
            !groups.is_empty() && found.len() == groups.len() * queues as usize
        });
        let found = found.await;
        (topic, found)
    }

    /// A fresh topic that keeps one copy of a message, and the queues that it may be sent to: those of
    /// one broker group.
    pub async fn idempotent_topic(&self, queues: i32) -> (String, Vec<MessageQueue>) {
        let window = HashMap::from([("+idempotent.window".to_owned(), "10m".to_owned())]);
        let topic = self.create_topic(queues, window).await;
        let found = self.queues_when(&topic, |found| found.len() == queues as usize);
        let found = found.await;
        (topic, found)
    }

    async fn create_topic(&self, queues: i32, attributes: HashMap<String, String>) -> String {
        let topic = fresh("topic");
        let mut producer = self.producer().await;
        producer
            .create_topic("TBW102", &topic, queues, attributes)
            .await
            .expect("the topic is created");
        producer.shutdown().await;
        topic
    }

    /// The queues that producers see, once they are as wanted.
    async fn queues_when(
        &self,
        topic: &str,
        wanted: impl Fn(&[MessageQueue]) -> bool,
    ) -> Vec<MessageQueue> {
        let mut producer = self.producer().await;
        let mut found = Vec::new();
        let end = Instant::now() + Duration::from_secs(20);
        while !wanted(&found) {
            assert!(Instant::now() < end, "queues of {topic}: {found:?}");
            found = producer
                .fetch_publish_message_queues(topic)
                .await
                .unwrap_or_default();
        }
        producer.shutdown().await;
        found.sort();
        found
    }

    /// A started pull consumer.
    pub async fn puller(&self) -> DefaultMQPullConsumer {
        let consumer = DefaultMQPullConsumer::builder(self.runtime.clone())
            .name_server_addr(self.namesrv.clone())
            .consumer_group(fresh("puller"))
            .build()
            .expect("pull consumer");
        consumer.start().await.expect("pull consumer starts");
        consumer
    }

    /// The runtime that clients are built on.
    pub fn runtime(&self) -> Arc<ClientRuntime> {
        Arc::clone(&self.runtime)
    }

    /// A started producer of transactions, and its group.
    pub async fn dealer(&self, listener: impl TransactionListener) -> TransactionMQProducer {
        let mut producer = TransactionMQProducer::builder(self.runtime.clone())
            .client_config(self.config())
            .producer_group(fresh("dealer"))
            .transaction_listener(listener)
            .build();
        producer.start().await.expect("producer starts");
        producer
    }

    /// A name server whose way to the cluster turns the first answer to each send into an error.
    pub fn lossy_namesrv(&self) -> String {
        std::env::var("GANTRY_LOSSY").expect("GANTRY_LOSSY: run this through run.sh")
    }

    /// The name server list of the cluster.
    pub fn namesrv(&self) -> &str {
        &self.namesrv
    }

    /// A started push consumer and what it receives.
    pub async fn consumer(
        &self,
        subscription: Subscription<'_>,
    ) -> (DefaultMQPushConsumer, Recorder) {
        self.consumer_with(self.config(), subscription).await
    }

    /// As [`World::consumer`], with settings of its own.
    pub async fn consumer_with(
        &self,
        config: ClientConfig,
        subscription: Subscription<'_>,
    ) -> (DefaultMQPushConsumer, Recorder) {
        let recorder = Recorder::default();
        let mut consumer = DefaultMQPushConsumer::builder(self.runtime.clone())
            .client_config(config)
            .consumer_group(subscription.group.to_owned())
            .message_model(subscription.model)
            .consume_from_where(subscription.from)
            .client_rebalance(!subscription.pops)
            .build();
        let (topic, expression) = (subscription.topic, subscription.expression);
        let subscribed = if subscription.sql {
            let selector = MessageSelector::by_sql(expression);
            consumer
                .subscribe_with_selector(topic, Some(selector))
                .await
        } else {
            consumer.subscribe(topic, expression).await
        };
        subscribed.expect("subscribed");
        let (sink, orderly_sink) = (recorder.clone(), recorder.clone());
        if subscription.orderly {
            consumer.register_message_listener_orderly(
                move |messages: &[&MessageExt], _: &mut ConsumeOrderlyContext| {
                    orderly_sink.record(messages);
                    Ok(ConsumeOrderlyStatus::Success)
                },
            );
        } else {
            consumer.register_message_listener_concurrently(
                move |messages: &[&MessageExt], _: &ConsumeConcurrentlyContext| {
                    sink.record(messages);
                    let is_refused = |message: &&MessageExt| {
                        let body = text(message);
                        message.reconsume_times() == 0 && body.starts_with(REFUSED_ONCE)
                    };
                    Ok(match messages.iter().any(is_refused) {
                        true => ConsumeConcurrentlyStatus::ReconsumeLater,
                        false => ConsumeConcurrentlyStatus::ConsumeSuccess,
                    })
                },
            );
        }
        consumer.start().await.expect("consumer starts");
        (consumer, recorder)
    }
}

/// A message whose body begins with this is accepted at its second delivery only.
pub const REFUSED_ONCE: &str = "refused once";

/// What a push consumer asks for.
#[derive(Clone, Copy)]
pub struct Subscription<'a> {
    /// Consumer group.
    pub group: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Tags, `*` for all; or SQL92.
    pub expression: &'a str,
    /// Whether the expression is SQL92.
    pub sql: bool,
    /// Whether each queue is consumed in order under its lock.
    pub orderly: bool,
    /// Clustering or broadcasting.
    pub model: MessageModel,
    /// Where a group without offsets starts.
    pub from: ConsumeFromWhere,
    /// Whether the broker assigns queues, and says whether to pop.
    pub pops: bool,
}

impl<'a> Subscription<'a> {
    /// Everything in `topic` from its first offset, clustering, concurrently.
    pub fn new(group: &'a str, topic: &'a str) -> Self {
        Self {
            group,
            topic,
            expression: "*",
            sql: false,
            orderly: false,
            model: MessageModel::Clustering,
            from: ConsumeFromWhere::ConsumeFromFirstOffset,
            pops: false,
        }
    }
}

/// A message as a consumer got it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Received {
    /// Body as text.
    pub body: String,
    /// Broker group, queue.
    pub queue: (String, i32),
    /// Offset in that queue.
    pub offset: i64,
    /// How often it was handed back before.
    pub times: i32,
}

impl Received {
    /// Copy of what matters.
    pub fn of(message: &MessageExt) -> Self {
        Self {
            body: text(message),
            queue: (message.broker_name().to_owned(), message.queue_id()),
            offset: message.queue_offset(),
            times: message.reconsume_times(),
        }
    }
}

/// The body of a message as text.
pub fn text(message: &MessageExt) -> String {
    String::from_utf8_lossy(&message.body().unwrap_or_default()).into_owned()
}

/// Every message of a queue.
async fn read(puller: &DefaultMQPullConsumer, queue: &MessageQueue) -> Vec<Received> {
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let pulled = puller
            .pull(queue, "*", offset, 32)
            .await
            .expect("the pull succeeds");
        if *pulled.pull_status() != PullStatus::Found {
            assert_eq!(*pulled.pull_status(), PullStatus::NoNewMsg);
            return found;
        }
        offset = pulled.next_begin_offset() as i64;
        for message in pulled.msg_found_list().unwrap_or_default() {
            let mut received = Received::of(message);
            received.queue.0 = queue.broker_name().to_string();
            found.push(received);
        }
    }
}

/// Every message of several queues.
pub async fn read_all(puller: &DefaultMQPullConsumer, queues: &[MessageQueue]) -> Vec<Received> {
    let mut found = Vec::new();
    for queue in queues {
        found.extend(read(puller, queue).await);
    }
    found
}

/// Where the sender of a message was told that it is: broker group and queue, offset.
pub fn place(result: &SendResult) -> ((String, i32), i64) {
    let queue = result
        .message_queue
        .as_ref()
        .expect("the result names its queue");
    (
        (queue.broker_name().to_string(), queue.queue_id()),
        result.queue_offset as i64,
    )
}

/// Collects what a push consumer is given, in order of arrival.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Received>>>);

impl Recorder {
    fn record(&self, messages: &[&MessageExt]) {
        let mut received = self.0.lock().expect("no panic while recording");
        received.extend(messages.iter().map(|message| Received::of(message)));
    }

    /// Everything so far.
    pub fn received(&self) -> Vec<Received> {
        self.0.lock().expect("no panic while recording").clone()
    }

    /// Take everything so far, leaving nothing.
    pub fn drain(&self) -> Vec<Received> {
        std::mem::take(&mut *self.0.lock().expect("no panic while recording"))
    }

    /// The bodies so far.
    pub fn bodies(&self) -> Vec<String> {
        self.received()
            .into_iter()
            .map(|message| message.body)
            .collect()
    }

    /// Wait until every one of `wanted` has come; returns all bodies by then.
    pub async fn wait_for(&self, wanted: &[String]) -> Vec<String> {
        let wanted: BTreeSet<_> = wanted.iter().cloned().collect();
        let end = Instant::now() + DELIVERY;
        loop {
            let bodies = self.bodies();
            let got: BTreeSet<_> = bodies.iter().cloned().collect();
            if wanted.is_subset(&got) {
                return bodies;
            }
            let missing: Vec<_> = wanted.difference(&got).take(3).collect();
            assert!(
                Instant::now() < end,
                "{} of {} messages came, missing such as {missing:?}",
                got.intersection(&wanted).count(),
                wanted.len()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A message with a body and a tag.
pub fn message(topic: &str, body: &str, tag: &str) -> Message {
    Message::builder()
        .topic(topic)
        .tags(tag)
        .body_slice(body.as_bytes())
        .build_unchecked()
}

/// One synchronous send that must be stored.
pub async fn send(producer: &DefaultMQProducer, message: Message) -> SendResult {
    let result = producer
        .send(message)
        .await
        .expect("the send succeeds")
        .expect("a result");
    assert_eq!(result.send_status, SendStatus::SendOk);
    result
}

/// One synchronous send to a given queue that must be stored.
pub async fn send_to(
    producer: &DefaultMQProducer,
    message: Message,
    queue: &MessageQueue,
) -> SendResult {
    let sent = producer.send_to_queue(message, queue.clone()).await;
    let result = sent.expect("the send succeeds").expect("a result");
    assert_eq!(result.send_status, SendStatus::SendOk);
    result
}

/// `count` numbered bodies.
pub fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}-{i:03}")).collect()
}

/// A sorted copy.
pub fn sorted(bodies: &[String]) -> Vec<String> {
    let mut copy = bodies.to_vec();
    copy.sort();
    copy
}
