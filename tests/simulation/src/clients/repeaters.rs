//! A producer that does not take silence for an answer: it sends a message of unknown outcome again,
//! through any node, to a topic that keeps one copy.

use std::time::Duration;

use gantry_checker::event::Send;
use gantry_checker::{Queue, Request};
use gantry_protocol::ResponseCode;

use super::producers::Outgoing;
use super::{Client, Stage, admins, queue};
use crate::cluster::NODES;
use crate::steps::Step;

const TOPIC: &str = "once";
const WINDOW_MS: u64 = 600_000;

/// What makes the topic keep one copy; nothing for other topics.
pub(super) fn attributes(topic: &str) -> Option<&'static str> {
    (topic == TOPIC).then_some("+idempotent.window=10m")
}

/// Sends each message until it is acked, and some once more.
pub(super) async fn run(mut client: Client) {
    // A send that came first would make an ordinary topic.
    admins::create_at_last(&mut client, TOPIC).await;
    while client.stage() == Stage::Load {
        let (to, message) = (queue(TOPIC, client.rng.below(2) as u16), client.message());
        let mut again = client.rng.per_mille(100);
        while client.stage() == Stage::Load {
            if send(&mut client, &to, &message).await && !std::mem::take(&mut again) {
                break;
            }
            client.around.steps.take(Step::SendAgain);
            client.pause(0, 100).await;
        }
        client.think().await;
    }
}

/// Sends the message, as if for the first time; whether it was acked.
async fn send(client: &mut Client, to: &Queue, message: &Outgoing) -> bool {
    let node = *client.rng.pick(&NODES);
    let limit = Duration::from_millis(*client.rng.pick(&[50, 300, 3_000]));
    let call = client.invoke(Request::Send(Send {
        once_ms: Some(WINDOW_MS),
        ..message.to(&to.topic)
    }));
    let asked = client.send_request(to, std::slice::from_ref(message));
    match client.call(node, asked, limit).await {
        Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => {
            client.acked(node, to, &[call], &answer);
            true
        }
        Ok(answer) => {
            let code = answer.response_code().0;
            client.around.history.info(&client.name, call, Some(code));
            false
        }
        Err(lost) => {
            client.lost(call, lost).await;
            false
        }
    }
}
