//! Push consumers of the Rust client that pop: the broker assigns queues (400) after it was told to (401).

#![recursion_limit = "512"]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use rocketmq_client_rust::prelude::DefaultMQProducer;
use serde_json::{Value, json};
use stock_clients::{
    REFUSED_ONCE, Subscription, World, eventually, fresh, in_world, message, numbered, send, sorted,
};

/// Sends one request in RocketMQ's JSON form and gives the answer's header.
fn ask(address: &str, code: i32, fields: &Value, body: &Value) -> Value {
    let header = json!({
        "code": code, "language": "JAVA", "version": 479, "opaque": 1, "flag": 0,
        "serializeTypeCurrentRPC": "JSON", "extFields": fields,
    });
    let (header, body) = (header.to_string(), body.to_string());
    let mut stream = TcpStream::connect(address).expect("a name server");
    let total = (4 + header.len() + body.len()) as u32;
    let mut frame = total.to_be_bytes().to_vec();
    frame.extend((header.len() as u32).to_be_bytes());
    frame.extend(header.as_bytes());
    frame.extend(body.as_bytes());
    stream.write_all(&frame).expect("sent");
    let mut lengths = [0; 8];
    stream.read_exact(&mut lengths).expect("an answer");
    let length = u32::from_be_bytes(lengths[4..].try_into().expect("four")) & 0xff_ffff;
    let mut header = vec![0; length as usize];
    stream.read_exact(&mut header).expect("its header");
    serde_json::from_slice(&header).expect("JSON")
}

/// Tells every group of brokers that `group` pops `topic`.
fn set_pop_mode(world: &World, brokers: &BTreeSet<String>, (topic, group): (&str, &str)) {
    let address = world.namesrv().split(';').next().expect("one").to_owned();
    for broker in brokers {
        let body = json!({
            "topic": topic, "consumerGroup": group, "mode": "POP", "popShareQueueNum": 0,
        });
        let answer = ask(&address, 401, &json!({ "bname": broker }), &body);
        assert_eq!(answer["code"], 0, "{answer}");
    }
}

async fn send_all(producer: &DefaultMQProducer, topic: &str, bodies: &[String]) {
    for body in bodies {
        send(producer, message(topic, body, "tag")).await;
    }
}

#[test]
fn a_pop_consumer_gets_everything_and_a_refused_message_again() {
    in_world(|world| async move {
        let (topic, queues) = world.topic(2).await;
        let group = fresh("pop");
        let brokers = queues.iter().map(|queue| queue.broker_name().to_string());
        set_pop_mode(&world, &brokers.collect(), (&topic, &group));
        let mut producer = world.producer().await;
        let mut bodies = numbered("m", 40);
        bodies.push(format!("{REFUSED_ONCE} one"));
        send_all(&producer, &topic, &bodies).await;
        let subscription = Subscription {
            pops: true,
            ..Subscription::new(&group, &topic)
        };
        let (mut consumer, recorder) = world.consumer(subscription).await;
        recorder.wait_for(&bodies).await;
        // The client asks for it again after ten seconds.
        let again = |times| {
            let received = recorder.received();
            let refused = received
                .iter()
                .filter(|one| one.body.starts_with(REFUSED_ONCE));
            refused.filter(|one| one.times == times).count()
        };
        eventually(stock_clients::DELIVERY, "the second delivery", async || {
            again(1) == 1
        })
        .await;
        let others: Vec<String> = recorder.bodies();
        let others: Vec<String> = others
            .into_iter()
            .filter(|body| !body.starts_with(REFUSED_ONCE))
            .collect();
        assert_eq!(sorted(&others), sorted(&bodies[..40]), "each once");
        assert_eq!((again(0), again(1)), (1, 1));
        consumer.shutdown().await;
        producer.shutdown().await;
    });
}
