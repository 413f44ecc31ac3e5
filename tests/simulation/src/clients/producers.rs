//! Producers: single messages and batches, to any node.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use gantry_checker::event::{Send, Sent};
use gantry_checker::{Answer, Queue, Request};
use gantry_protocol::batch::{self, BatchMessage};
use gantry_protocol::headers::{SendRequest, SendResponse};
use gantry_protocol::message::sys_flags;
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::properties::{Builder, names};
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode, topic};
use gantry_raft::NodeNumber;
use tokio::time::sleep;

use super::consumers::read_back;
use super::{Client, Stage, queue, request};
use crate::cluster::{QUEUES, TOPICS};

/// How long stock producers wait.
const LIMIT: Duration = Duration::from_secs(3);

/// A message that is to be sent.
pub(super) struct Outgoing {
    pub(super) id: u64,
    body: Bytes,
}

impl Outgoing {
    /// A send of it to a topic, for the history.
    pub(super) fn to(&self, topic: &str) -> Send {
        Send {
            topic: topic.to_string(),
            id: self.id,
            crc: crc32fast::hash(&self.body),
            tries: 1,
            half: false,
            delay_ms: None,
            once_ms: None,
        }
    }
}

/// A message that was sent and waits.
pub(super) struct Waiting {
    /// What it is known by.
    pub id: u64,
    /// Its place in the log, where it waits.
    pub physical: u64,
    /// Its offset in the queue where it waits.
    pub offset: u64,
    /// What it can be recalled with.
    pub recall_handle: Option<String>,
}

impl Client {
    /// A message that nobody has sent.
    pub(super) fn message(&mut self) -> Outgoing {
        let id = self.rng.draw() >> 1;
        let filler = match self.rng.below(20) {
            0 => self.rng.between(1_000, 6_000),
            1..6 => self.rng.between(200, 1_000),
            _ => self.rng.below(120),
        };
        let mut body = BytesMut::new();
        body.put_u64_le(id);
        body.put_bytes(id as u8, filler as usize);
        Outgoing {
            id,
            body: body.freeze(),
        }
    }

    /// Sends messages to a queue through a node, as one batch if there are several; whether they were acked.
    pub(super) async fn send(
        &mut self,
        node: NodeNumber,
        to: &Queue,
        messages: Vec<Outgoing>,
    ) -> bool {
        let calls: Vec<u64> = messages
            .iter()
            .map(|message| self.invoke(Request::Send(message.to(&to.topic))))
            .collect();
        let asked = self.send_request(to, &messages);
        match self.call(node, asked, LIMIT).await {
            Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => {
                self.acked(node, to, &calls, &answer);
                self.remember(messages[0].id, &to.topic);
                true
            }
            Ok(answer) => {
                let code = answer.response_code().0;
                for call in calls {
                    self.around.history.info(&self.name, call, Some(code));
                }
                sleep(Duration::from_millis(20)).await;
                false
            }
            Err(lost) => {
                for call in calls {
                    self.lost(call, lost).await;
                }
                false
            }
        }
    }

    /// Sends a message that is not to come at once, with these properties.
    pub(super) async fn send_waiting(
        &mut self,
        to: &Queue,
        (half, delay_ms): (bool, Option<u64>),
        properties: &[(&str, &str)],
    ) -> Option<Waiting> {
        let (node, message) = (self.node(), self.message());
        let send = Send {
            half,
            delay_ms,
            ..message.to(&to.topic)
        };
        let call = self.invoke(Request::Send(send));
        let mut text = Builder::new();
        text.push(names::UNIQ_KEY, &format!("{:032X}", message.id));
        for (name, value) in properties {
            text.push(name, value);
        }
        let properties = text.finish();
        let header = SendRequest {
            sys_flag: if half {
                sys_flags::TRANSACTION_PREPARED
            } else {
                0
            },
            ..self.header("dealers", to, &properties)
        };
        let code = RequestCode::SEND_MESSAGE_V2;
        let asked = request(code, |fields| header.write(code, fields));
        let answer = self
            .ask(call, node, asked.with_body(message.body), LIMIT)
            .await?;
        self.acked(node, to, &[call], &answer);
        let header = SendResponse::parse(&answer.fields).ok()?;
        let place: OffsetMessageId = header.msg_id.parse().ok()?;
        Some(Waiting {
            id: message.id,
            physical: place.physical_offset as u64,
            offset: header.queue_offset as u64,
            recall_handle: header.recall_handle.map(str::to_string),
        })
    }

    pub(super) fn send_request(&mut self, to: &Queue, messages: &[Outgoing]) -> RemotingCommand {
        let key_of = |message: &Outgoing| {
            let mut text = Builder::new();
            text.push(names::KEYS, &format!("k{}", message.id % 1_000));
            text.push(names::UNIQ_KEY, &format!("{:032X}", message.id));
            text.finish()
        };
        let is_batch = messages.len() > 1;
        let properties = if is_batch {
            String::new()
        } else {
            key_of(&messages[0])
        };
        let mut body = BytesMut::new();
        for message in messages {
            if is_batch {
                let part = BatchMessage {
                    flag: 0,
                    body: &message.body,
                    properties: &key_of(message),
                };
                batch::encode(&part, &mut body);
            } else {
                body.extend_from_slice(&message.body);
            }
        }
        let header = SendRequest {
            reconsume_times: Some(0),
            unit_mode: Some(false),
            batch: Some(is_batch),
            ..self.header("producers", to, &properties)
        };
        let code = match is_batch {
            true => RequestCode::SEND_BATCH_MESSAGE,
            false => RequestCode::SEND_MESSAGE_V2,
        };
        request(code, |fields| header.write(code, fields)).with_body(body.freeze())
    }

    /// What every send says.
    fn header<'a>(
        &mut self,
        producer_group: &'a str,
        to: &'a Queue,
        properties: &'a str,
    ) -> SendRequest<'a> {
        self.born_ms += 1;
        SendRequest {
            producer_group,
            topic: &to.topic,
            default_topic: topic::DEFAULT_TOPIC,
            default_topic_queue_nums: i32::from(QUEUES),
            queue_id: i32::from(to.queue),
            born_timestamp: self.born_ms,
            properties: Some(properties),
            broker_name: Some(&to.broker),
            ..SendRequest::default()
        }
    }

    pub(super) fn acked(
        &self,
        node: NodeNumber,
        to: &Queue,
        calls: &[u64],
        answer: &RemotingCommand,
    ) {
        let Ok(header) = SendResponse::parse(&answer.fields) else {
            panic!("an ack that cannot be read: {answer:?}");
        };
        let mut ids = header.msg_id.split(',');
        for (step, call) in calls.iter().enumerate() {
            let message_id = ids.next().unwrap_or_default().to_string();
            let place = message_id.parse::<OffsetMessageId>().ok();
            let sent = Sent {
                queue: Queue {
                    queue: header.queue_id as u16,
                    ..to.clone()
                },
                offset: header.queue_offset as u64 + step as u64,
                physical: place.map(|place| place.physical_offset as u64),
                message_id,
                node: self.acked_by(node),
            };
            self.done(*call, Answer::Sent(sent));
        }
    }
}

/// Sends until the load is over.
pub(super) async fn run(mut client: Client) {
    while client.stage() == Stage::Load {
        let (node, to) = (client.node(), client.queue());
        let count = match client.rng.below(10) {
            0 => client.rng.between(2, 6),
            _ => 1,
        };
        let messages = (0..count).map(|_| client.message()).collect();
        client.send(node, &to, messages).await;
        client.think().await;
    }
}

/// Sends ten messages and reads each back: what must succeed when all is well again.
pub async fn probe(mut client: Client, done: std::sync::Arc<std::sync::atomic::AtomicU32>) {
    for number in 0..10u16 {
        let to = queue(TOPICS[usize::from(number) % TOPICS.len()], number % QUEUES);
        let node = client.node();
        let message = client.message();
        if client.send(node, &to, vec![message]).await && read_back(&mut client, &to).await {
            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
