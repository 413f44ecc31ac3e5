//! Delayers: messages that come later, at delay levels, after times and at times; and some that are recalled.

use std::time::{SystemTime, UNIX_EPOCH};

use gantry_checker::{Answer, Request};
use gantry_protocol::headers::RecallRequest;
use gantry_protocol::properties::names;
use gantry_protocol::{RequestCode, ResponseCode};

use super::client::{Asker, Heard, command};
use super::deeds::Deed;
use super::producer::{Wait, Waiting, send_waiting};
use crate::shell::Outcome;

/// Where they come.
pub const TOPIC: &str = "timed";

/// How long the first two levels wait, in milliseconds.
const LEVELS_MS: [u64; 2] = [1_000, 5_000];

/// When a message is to come; milliseconds and seconds from now on.
#[derive(Clone, Copy, Debug)]
pub enum Delay {
    /// At a delay level, from 1.
    Level(usize),
    /// In seconds.
    Seconds(u64),
    /// In milliseconds.
    Milliseconds(u64),
    /// As the second before, but said as a time.
    Until(u64),
}

impl Delay {
    /// How long it is, in milliseconds.
    pub fn ms(self) -> u64 {
        match self {
            Delay::Level(level) => LEVELS_MS[level - 1],
            Delay::Seconds(seconds) => seconds * 1_000,
            Delay::Milliseconds(ms) | Delay::Until(ms) => ms,
        }
    }

    /// The property that says so from now on.
    pub fn property(self) -> (&'static str, String) {
        match self {
            Delay::Level(level) => (names::DELAY_LEVEL, level.to_string()),
            Delay::Seconds(seconds) => (names::TIMER_DELAY_SEC, seconds.to_string()),
            Delay::Milliseconds(ms) => (names::TIMER_DELAY_MS, ms.to_string()),
            Delay::Until(ms) => {
                let until = SystemTime::now() + std::time::Duration::from_millis(ms);
                let since = until.duration_since(UNIX_EPOCH).unwrap_or_default();
                // Not before the time that the history knows.
                (names::TIMER_DELIVER_MS, (since.as_millis() + 1).to_string())
            }
        }
    }
}

/// Sends messages that come later, and recalls some of them.
pub async fn run(mut asker: Asker, group: usize) -> Outcome {
    let topic = asker.round.topic(TOPIC);
    while asker.round.sends() {
        asker.pause(100, 500).await;
        let queue = asker.random.below(2) as u16;
        let delay = draw(&mut asker);
        let sent = send_waiting(&mut asker, &topic, (group, queue), &Wait::Delay(delay)).await?;
        let Some(sent) = sent else {
            continue;
        };
        asker.did(Deed::Delay);
        if asker.random.percent(30) {
            // Now and then it is too late.
            asker.pause(0, delay.ms()).await;
            recall(&mut asker, (group, &topic), &sent).await?;
        }
    }
    Ok(())
}

fn draw(asker: &mut Asker) -> Delay {
    let random = &mut asker.random;
    match random.below(6) {
        0 => Delay::Level(1 + random.below(LEVELS_MS.len())),
        1 => Delay::Seconds(random.between(1, 4)),
        2 | 3 => Delay::Milliseconds(random.between(100, 6_000)),
        _ => Delay::Until(random.between(100, 6_000)),
    }
}

async fn recall(asker: &mut Asker, (group, topic): (usize, &str), sent: &Waiting) -> Outcome {
    // Levels cannot be recalled.
    let Some(handle) = &sent.recall_handle else {
        return Ok(());
    };
    let header = RecallRequest {
        producer_group: None,
        topic,
        recall_handle: handle,
    };
    let request = command(RequestCode::RECALL_MESSAGE, |fields| header.write(fields));
    let node = asker.choose_node(group);
    let call = asker.begin(Request::Recall { id: sent.id })?;
    let heard = asker.ask(node, group, request).await;
    match &heard {
        Heard::Answer(answer) if answer.response_code() == ResponseCode::SUCCESS => {
            asker.did(Deed::Recall);
            asker.succeed(call, Answer::Done)
        }
        // It came, or comes.
        Heard::Answer(answer) if answer.response_code() == ResponseCode::ILLEGAL_OPERATION => {
            asker.fail(call, answer)
        }
        _ => asker.end(call, &heard),
    }
}
