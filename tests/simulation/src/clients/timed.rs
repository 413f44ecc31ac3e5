//! Messages that come later: at delay levels, after times, and some that are recalled.

use std::time::Duration;

use gantry_checker::{Answer, Request};
use gantry_protocol::headers::RecallRequest;
use gantry_protocol::properties::names;
use gantry_protocol::{RequestCode, ResponseCode};

use super::producers::Waiting;
use super::{Client, Stage, queue, request};
use crate::steps::Step;

/// Where they come.
pub(super) const TOPIC: &str = "timed";
const LIMIT: Duration = Duration::from_secs(3);

/// Sends messages that come later, and recalls some of them.
pub(super) async fn run(mut client: Client) {
    while client.stage() == Stage::Load {
        client.pause(100, 500).await;
        let to = queue(TOPIC, client.rng.below(2) as u16);
        let (name, value, delay_ms) = wish(&mut client);
        client.around.steps.take(Step::Delay);
        let property = [(name, value.as_str())];
        let sent = client
            .send_waiting(&to, (false, Some(delay_ms)), &property)
            .await;
        let Some(sent) = sent else {
            continue;
        };
        client.around.steps.take_in(Step::Due, delay_ms);
        if client.rng.per_mille(300) {
            client.pause(0, delay_ms).await;
            recall(&mut client, &sent).await;
        }
    }
}

/// When a message is to come: the property that says so, and the milliseconds.
fn wish(client: &mut Client) -> (&'static str, String, u64) {
    match client.rng.below(4) {
        0 => (names::DELAY_LEVEL, "1".to_string(), 1_000),
        1 => {
            let seconds = client.rng.between(1, 3);
            (names::TIMER_DELAY_SEC, seconds.to_string(), seconds * 1_000)
        }
        _ => {
            let ms = client.rng.between(200, 4_000);
            (names::TIMER_DELAY_MS, ms.to_string(), ms)
        }
    }
}

async fn recall(client: &mut Client, sent: &Waiting) {
    // Levels cannot be recalled.
    let Some(handle) = &sent.recall_handle else {
        return;
    };
    let header = RecallRequest {
        producer_group: Some("dealers"),
        topic: TOPIC,
        recall_handle: handle,
    };
    let node = client.node();
    let asked = request(RequestCode::RECALL_MESSAGE, |fields| header.write(fields));
    client.around.steps.take(Step::Recall);
    let call = client.invoke(Request::Recall { id: sent.id });
    match client.call(node, asked, LIMIT).await {
        Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => {
            client.done(call, Answer::Done);
        }
        // It came, or comes.
        Ok(answer) if answer.response_code() == ResponseCode::ILLEGAL_OPERATION => {
            let code = answer.response_code().0;
            client.around.history.fail(&client.name, call, code);
        }
        Ok(answer) => {
            let code = answer.response_code().0;
            client.around.history.info(&client.name, call, Some(code));
        }
        Err(lost) => client.lost(call, lost).await,
    }
}

/// Reads them as they come.
pub(super) async fn read(mut client: Client) {
    let mut next = [0; 2];
    while client.stage() == Stage::Load {
        client.pause(50, 200).await;
        let number = client.rng.below(2) as u16;
        let at = &mut next[usize::from(number)];
        let node = client.node();
        let from = (&queue(TOPIC, number), *at);
        let pulled = client.pull_as(node, from, 200, ("timekeepers", None)).await;
        if let Some(pulled) = pulled {
            *at = pulled.next;
        }
    }
}
