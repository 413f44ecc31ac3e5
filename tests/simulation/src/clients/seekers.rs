//! Looks for messages by their keys.

use std::time::Duration;

use gantry_checker::event::Found;
use gantry_checker::{Answer, Request};
use gantry_protocol::headers::{QueryMessageRequest, UNIQUE_KEY_QUERY};
use gantry_protocol::message::Message;
use gantry_protocol::{RequestCode, ResponseCode};

use super::consumers::seen;
use super::{Client, Stage, queue, request};
use crate::cluster::{NODES, TOPICS};

/// Acked messages that are remembered.
const REMEMBERED: u64 = 200;

const LIMIT: Duration = Duration::from_secs(3);

impl Client {
    /// Remembers an acked message, perhaps in place of another.
    pub(super) fn remember(&mut self, id: u64, topic: &str) {
        // Others come and go with their messages.
        if !TOPICS.contains(&topic) {
            return;
        }
        let place = self.rng.below(REMEMBERED) as usize;
        let mut acked = self.around.acked.lock().expect("nothing panics here");
        match acked.get_mut(place) {
            Some(old) => *old = (id, topic.to_string()),
            None => acked.push((id, topic.to_string())),
        }
    }
}

/// Looks for acked messages on any node, until the load is over.
pub(super) async fn run(mut client: Client) {
    while client.stage() == Stage::Load {
        let dice = client.rng.below(REMEMBERED) as usize;
        let sought = {
            let acked = client.around.acked.lock().expect("nothing panics here");
            acked.get(dice % acked.len().max(1)).cloned()
        };
        if let Some((id, topic)) = sought {
            look(&mut client, id, &topic).await;
        }
        client.think().await;
    }
}

async fn look(client: &mut Client, id: u64, topic: &str) {
    let node = *client.rng.pick(&NODES);
    let header = QueryMessageRequest {
        topic,
        key: &format!("{id:032X}"),
        max_num: 32,
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
    };
    let asked = request(RequestCode::QUERY_MESSAGE, |fields| {
        header.write(fields);
        fields.set(UNIQUE_KEY_QUERY, "true");
    });
    let lookup = Request::Lookup { id };
    let call = client.invoke(lookup);
    let found = match client.call(node, asked, LIMIT).await {
        Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => {
            let found = Message::decode_all(answer.body.clone());
            found.unwrap_or_else(|error| panic!("a lookup that cannot be read: {error}"))
        }
        Ok(answer) if answer.response_code() == ResponseCode::QUERY_NOT_FOUND => Vec::new(),
        Ok(answer) => {
            let code = answer.response_code().0;
            return client.around.history.info(&client.name, call, Some(code));
        }
        Err(lost) => return client.lost(call, lost).await,
    };
    let found = found.iter().map(|message| Found {
        queue: queue(&message.topic, message.queue_id as u16),
        message: seen(message),
    });
    let answer = Answer::Found(found.collect());
    client.done(call, answer);
}
