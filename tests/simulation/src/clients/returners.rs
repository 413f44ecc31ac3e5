//! A consumer that hands messages back until they are dead letters.

use std::time::Duration;

use gantry_checker::event::Message;
use gantry_checker::{Answer, Request};
use gantry_protocol::RequestCode;
use gantry_protocol::headers::SendBackRequest;

use super::{Client, Stage, queue, request};
use crate::steps::Step;

const GROUP: &str = "returners";
const TOPIC: &str = "returned";

/// How often a message comes again before it is a dead letter.
const TIMES_MAX: u32 = 2;

/// Clients give handing back more time than other things.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends, reads, and hands back most of what it reads.
pub(super) async fn run(mut client: Client) {
    let retry = format!("%RETRY%{GROUP}");
    let topics = [TOPIC, &retry];
    let mut next = [0; 2];
    while client.stage() == Stage::Load {
        client.pause(50, 300).await;
        if client.rng.per_mille(400) {
            let (node, message) = (client.node(), client.message());
            client.send(node, &queue(TOPIC, 0), vec![message]).await;
        }
        for (topic, next) in topics.iter().zip(&mut next) {
            let node = client.node();
            let from = (&queue(topic, 0), *next);
            let Some(pulled) = client.pull_as(node, from, 0, (GROUP, None)).await else {
                continue;
            };
            *next = pulled.next;
            for message in &pulled.messages {
                if client.rng.per_mille(600) {
                    hand_back(&mut client, message).await;
                }
            }
        }
    }
}

async fn hand_back(client: &mut Client, message: &Message) {
    let Some(physical) = message.physical else {
        return;
    };
    let header = SendBackRequest {
        offset: physical as i64,
        group: GROUP,
        delay_level: 1,
        origin_topic: Some(TOPIC),
        max_reconsume_times: Some(TIMES_MAX as i32),
        ..SendBackRequest::default()
    };
    let node = client.node();
    let asked = request(RequestCode::CONSUMER_SEND_MSG_BACK, |f| header.write(f));
    client.around.steps.take(Step::SendBack);
    let call = client.invoke(Request::SendBack {
        group: GROUP.to_string(),
        id: message.id,
        times: message.times,
        times_max: TIMES_MAX,
        delay_ms: 1_000,
    });
    if client.ask(call, node, asked, LIMIT).await.is_some() {
        client.done(call, Answer::Done);
        client.around.steps.take_in(Step::Retry, 1_000);
    }
}
