//! Returners: hand messages back until they are dead letters.

use gantry_checker::Request;
use gantry_checker::event::Message;
use gantry_protocol::RequestCode;
use gantry_protocol::headers::SendBackRequest;

use super::client::{Asker, command};
use super::deeds::Deed;
use super::{Round, producer, queue_at};
use crate::shell::Outcome;

/// What they read first.
pub const TOPIC: &str = "returned";

/// How often a message comes again before it is a dead letter.
const TIMES_MAX: u32 = 2;

/// At delay level 1; milliseconds.
const DELAY_MS: u64 = 1_000;

/// Most messages of a pull.
const MOST: i32 = 32;

/// How the names of topics for dead letters begin.
pub const DEAD_LETTERS: &str = "%DLQ%";

fn consumers(round: &Round, group: usize) -> String {
    round.members("returners", group)
}

/// Where messages come again.
pub fn retry_topic(round: &Round, group: usize) -> String {
    format!("%RETRY%{}", consumers(round, group))
}

/// Where they end.
pub fn dead_letter_topic(round: &Round, group: usize) -> String {
    format!("{DEAD_LETTERS}{}", consumers(round, group))
}

/// Sends, reads, and hands back most of what it reads, until the round ends.
pub async fn run(mut asker: Asker, group: usize) -> Outcome {
    let topic = asker.round.topic(TOPIC);
    let retry = retry_topic(&asker.round, group);
    let mut places = [topic.as_str(), &retry].map(|topic| (queue_at(group, topic, 0), 0));
    while asker.round.sends() {
        asker.pause(50, 300).await;
        if asker.random.percent(40) {
            producer::send_one(&mut asker, &topic, (group, 0)).await?;
        }
        for (queue, next) in &mut places {
            let node = asker.choose_node(group);
            let Some(pulled) = asker.pull(node, queue, *next, MOST).await? else {
                continue;
            };
            *next = pulled.next;
            for message in &pulled.messages {
                if message.times > 0 {
                    asker.did(Deed::Retry);
                }
                if asker.random.percent(60) {
                    hand_back(&mut asker, (group, &topic), message).await?;
                }
            }
        }
    }
    Ok(())
}

async fn hand_back(asker: &mut Asker, (group, topic): (usize, &str), message: &Message) -> Outcome {
    let Some(physical) = message.physical else {
        return Ok(());
    };
    let consumers = consumers(&asker.round, group);
    let header = SendBackRequest {
        offset: physical as i64,
        group: &consumers,
        delay_level: 1,
        origin_topic: Some(topic),
        max_reconsume_times: Some(TIMES_MAX as i32),
        ..SendBackRequest::default()
    };
    let request = command(RequestCode::CONSUMER_SEND_MSG_BACK, |fields| {
        header.write(fields)
    });
    let what = Request::SendBack {
        group: consumers.clone(),
        id: message.id,
        times: message.times,
        times_max: TIMES_MAX,
        delay_ms: DELAY_MS,
    };
    if asker.do_at(group, (what, request)).await?.is_some() {
        asker.did(Deed::SendBack);
    }
    Ok(())
}
