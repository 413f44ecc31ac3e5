//! The stock load of the failover measurement: producers, one push consumer, and probes on demand.
//!
//! Speaks JSON lines. Started as `load TOPIC GROUP TASKS PAUSE_MS` with `GANTRY_NAMESRV` set, it writes one line per
//! acked send, failed send and consumed message. On standard input it understands:
//!
//! - `arm NAMESRV`: start a few producers that have not asked for a route yet;
//! - `probe TOPIC BROKER QUEUE NAMESRV`: send to that queue with one armed producer after the other until a send is acked.
//!   A client keeps its route for 30 s, so only a client that asks for the route now can tell how long the *group*
//!   refused writes;
//! - `stop`: finish the sends under way and end the producers; the consumer goes on until `end`.
//!
//! All times are microseconds of the wall clock.

#![recursion_limit = "512"]

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rocketmq_client_rust::SendStatus;
use rocketmq_client_rust::prelude::DefaultMQProducer;
use rocketmq_model::common::message::message_queue::MessageQueue;
use serde_json::{Value, json};
use stock_clients::{Subscription, World, in_world, message};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

const ARMED: usize = 4;
const PROBE_LIMIT: Duration = Duration::from_secs(60);

fn now_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("clock after 1970");
    since.as_micros() as u64
}

fn emit(line: &Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .expect("the reader of our lines is there");
}

/// Which load to make.
struct Plan {
    topic: String,
    group: String,
    tasks: usize,
    pause: Duration,
}

fn plan() -> Plan {
    let mut arguments = std::env::args().skip(1);
    let mut next = |name: &str| {
        arguments
            .next()
            .unwrap_or_else(|| panic!("argument {name} is missing"))
    };
    Plan {
        topic: next("TOPIC"),
        group: next("GROUP"),
        tasks: next("TASKS").parse().expect("TASKS is a number"),
        pause: Duration::from_millis(next("PAUSE_MS").parse().expect("PAUSE_MS is a number")),
    }
}

fn main() {
    let plan = plan();
    in_world(|world| async move { run(&world, plan).await });
}

async fn run(world: &World, plan: Plan) {
    let subscription = Subscription::new(&plan.group, &plan.topic);
    let (mut consumer, recorder) = world.consumer(subscription).await;
    let mut producers = Vec::new();
    for _ in 0..plan.tasks {
        producers.push(world.producer().await);
    }
    emit(&json!({"event": "ready"}));

    let stop = AtomicBool::new(false);
    let consumed_all = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    let senders = async {
        let mut tasks = Vec::new();
        for (task, producer) in producers.iter().enumerate() {
            tasks.push(send_until(producer, &plan, task, &stop, &sent));
        }
        join_all(tasks).await;
        // Without senders there is nothing to wait for; "stopped" still answers the command.
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        emit(&json!({"event": "stopped"}));
    };
    let reports = async {
        while !consumed_all.load(Ordering::Relaxed) {
            report(&recorder.drain());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        report(&recorder.drain());
    };
    let commands = async {
        obey(world, BufReader::new(tokio::io::stdin()).lines(), &stop).await;
        stop.store(true, Ordering::Relaxed);
        consumed_all.store(true, Ordering::Relaxed);
    };
    tokio::join!(senders, reports, commands);
    consumer.shutdown().await;
    report(&recorder.drain());
    for mut producer in producers {
        producer.shutdown().await;
    }
    emit(&json!({"event": "ended"}));
}

/// Polls all futures on this task; the client does its own I/O on the runtime's threads.
async fn join_all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut pending: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if pending.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

fn report(received: &[stock_clients::Received]) {
    let at = now_us();
    for message in received {
        emit(&json!({
            "event": "consumed", "at": at, "body": message.body, "broker": message.queue.0,
            "queue": message.queue.1, "offset": message.offset,
        }));
    }
}

async fn send_until(
    producer: &DefaultMQProducer,
    plan: &Plan,
    task: usize,
    stop: &AtomicBool,
    sent: &AtomicUsize,
) {
    while !stop.load(Ordering::Relaxed) {
        let body = format!("load-{task}-{}", sent.fetch_add(1, Ordering::Relaxed));
        let begun = now_us();
        let outcome = producer.send(message(&plan.topic, &body, "load")).await;
        let line = match outcome {
            Ok(Some(result)) if result.send_status == SendStatus::SendOk => {
                let queue = result.message_queue.as_ref();
                json!({
                    "event": "acked", "begun": begun, "at": now_us(), "body": body,
                    "broker": queue.map(|queue| queue.broker_name().to_string()),
                    "queue": queue.map(MessageQueue::queue_id),
                    "offset": result.queue_offset, "id": result.offset_msg_id,
                })
            }
            other => {
                let why = format!("{other:?}");
                json!({"event": "failed", "begun": begun, "at": now_us(), "body": body, "why": why})
            }
        };
        emit(&line);
        tokio::time::sleep(plan.pause).await;
    }
}

/// Carry out commands until `end` or the end of the input.
async fn obey(world: &World, mut lines: Lines<BufReader<Stdin>>, stop: &AtomicBool) {
    let mut armed: Vec<DefaultMQProducer> = Vec::new();
    while let Some(line) = lines.next_line().await.expect("standard input is text") {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["arm", namesrv] => {
                disarm(&mut armed).await;
                for _ in 0..ARMED {
                    armed.push(world.producer_with(world.config_for(namesrv)).await);
                }
                emit(&json!({"event": "armed"}));
            }
            ["probe", topic, broker, queue, namesrv] => {
                let queue = queue.parse().expect("QUEUE is a number");
                let target = MessageQueue::from_parts(*topic, *broker, queue);
                probe(world, &mut armed, target, namesrv).await;
            }
            ["stop"] => stop.store(true, Ordering::Relaxed),
            ["end"] => break,
            _ => panic!("unknown command: {line}"),
        }
    }
    disarm(&mut armed).await;
}

async fn disarm(armed: &mut Vec<DefaultMQProducer>) {
    for mut producer in armed.drain(..) {
        producer.shutdown().await;
    }
}

async fn probe(
    world: &World,
    armed: &mut Vec<DefaultMQProducer>,
    target: MessageQueue,
    namesrv: &str,
) {
    let end = Instant::now() + PROBE_LIMIT;
    let mut used = Vec::new();
    let mut tries = 0;
    loop {
        let producer = match armed.pop() {
            Some(producer) => producer,
            None => world.producer_with(world.config_for(namesrv)).await,
        };
        tries += 1;
        let body = format!("probe-{}", now_us());
        let sent = message(target.topic(), &body, "probe");
        let outcome = producer.send_to_queue(sent, target.clone()).await;
        used.push(producer);
        match outcome {
            Ok(Some(result)) if result.send_status == SendStatus::SendOk => {
                emit(&json!({
                    "event": "probed", "at": now_us(), "tries": tries, "body": body,
                    "broker": target.broker_name().to_string(), "queue": target.queue_id(),
                    "offset": result.queue_offset,
                }));
                break;
            }
            other if Instant::now() > end => {
                emit(
                    &json!({"event": "probe failed", "tries": tries, "why": format!("{other:?}")}),
                );
                break;
            }
            _ => {}
        }
    }
    disarm(&mut used).await;
}
