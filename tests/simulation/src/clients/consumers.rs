//! Consumers: pulls from any node, offsets committed, asked for, and set back.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_checker::event::{Cursor, Message};
use gantry_checker::{Answer, Queue, Request};
use gantry_protocol::headers::{
    MaxOffsetRequest, OffsetResponse, PullRequest, PullResponse, QueryConsumerOffsetRequest,
    UpdateConsumerOffsetRequest, pull_flags,
};
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use gantry_raft::NodeNumber;
use tokio::time::sleep;

use super::{Client, Stage, queue, request};
use crate::cluster::{QUEUES, TOPICS};
use crate::machine::name_of;

const LIMIT: Duration = Duration::from_secs(3);

/// Where a pull ended.
pub(super) struct Pulled {
    pub(super) next: u64,
    max: u64,
    count: usize,
    pub(super) messages: Vec<Message>,
}

/// A message as the history knows it; panics on a body that no client here has sent.
pub(crate) fn seen(message: &gantry_protocol::message::Message) -> Message {
    let body = &message.body;
    let id = body.first_chunk::<8>().map(|id| u64::from_le_bytes(*id));
    Message {
        offset: message.queue_offset as u64,
        physical: Some(message.physical_offset as u64),
        // A body without a number was never sent, and no number that is sent has the top bit.
        id: id.unwrap_or(u64::MAX),
        crc: crc32fast::hash(body),
        times: message.reconsume_times.max(0) as u32,
    }
}

impl Client {
    async fn pull(&mut self, node: NodeNumber, from_queue: &Queue, from: u64) -> Option<Pulled> {
        let suspend = *self.rng.pick(&[0, 200, 1_500]);
        self.pull_as(node, (from_queue, from), suspend, ("readers", None))
            .await
    }

    /// Pulls in the name of a group, which may say where it is: nobody answers that.
    pub(super) async fn pull_as(
        &mut self,
        node: NodeNumber,
        (from_queue, from): (&Queue, u64),
        suspend: i64,
        (group, position): (&str, Option<u64>),
    ) -> Option<Pulled> {
        let mut flags = pull_flags::SUBSCRIPTION;
        if suspend > 0 {
            flags |= pull_flags::SUSPEND;
        }
        if position.is_some() {
            flags |= pull_flags::COMMIT_OFFSET;
        }
        let header = PullRequest {
            consumer_group: group,
            commit_offset: position.unwrap_or(0) as i64,
            topic: &from_queue.topic,
            queue_id: i32::from(from_queue.queue),
            queue_offset: from as i64,
            max_msg_nums: *self.rng.pick(&[1, 4, 32]),
            sys_flag: flags,
            suspend_timeout_millis: suspend,
            subscription: Some("*"),
            sub_version: Some(0),
            expression_type: Some("TAG"),
            ..PullRequest::default()
        };
        let asked = request(RequestCode::PULL_MESSAGE, |fields| header.write(fields));
        let pull = Request::Pull {
            queue: from_queue.clone(),
            from,
            filtered: false,
        };
        let call = self.invoke(pull);
        match self.call(node, asked, LIMIT).await {
            Ok(answer) => self.pulled(node, call, answer).await,
            Err(lost) => {
                self.lost(call, lost).await;
                None
            }
        }
    }

    async fn pulled(
        &mut self,
        node: NodeNumber,
        call: u64,
        answer: RemotingCommand,
    ) -> Option<Pulled> {
        let code = answer.response_code();
        let has_position = matches!(
            code,
            ResponseCode::SUCCESS
                | ResponseCode::PULL_NOT_FOUND
                | ResponseCode::PULL_RETRY_IMMEDIATELY
                | ResponseCode::PULL_OFFSET_MOVED
        );
        let header = PullResponse::parse(&answer.fields)
            .ok()
            .filter(|_| has_position);
        let Some(header) = header else {
            self.around.history.info(&self.name, call, Some(code.0));
            sleep(Duration::from_millis(20)).await;
            return None;
        };
        let messages = match code {
            ResponseCode::SUCCESS => {
                gantry_protocol::message::Message::decode_all(answer.body.clone())
                    .unwrap_or_else(|error| panic!("a pull that cannot be read: {error}"))
            }
            _ => Vec::new(),
        };
        let messages: Vec<Message> = messages.iter().map(seen).collect();
        let pulled = Pulled {
            next: header.next_begin_offset as u64,
            max: header.max_offset as u64,
            count: messages.len(),
            messages: messages.clone(),
        };
        let answer = Answer::Pulled {
            node: Some(name_of(node)),
            min: header.min_offset as u64,
            max: pulled.max,
            next: pulled.next,
            messages,
        };
        self.done(call, answer);
        Some(pulled)
    }

    async fn commit(&mut self, cursor: &Cursor, offset: u64, is_reset: bool) -> bool {
        let node = self.node();
        self.commit_at(node, cursor, offset, is_reset).await
    }

    pub(super) async fn commit_at(
        &mut self,
        node: NodeNumber,
        cursor: &Cursor,
        offset: u64,
        is_reset: bool,
    ) -> bool {
        let header = UpdateConsumerOffsetRequest {
            consumer_group: &cursor.group,
            topic: &cursor.queue.topic,
            queue_id: i32::from(cursor.queue.queue),
            commit_offset: offset as i64,
        };
        let asked = request(RequestCode::UPDATE_CONSUMER_OFFSET, |f| header.write(f));
        let cursor = cursor.clone();
        let what = match is_reset {
            true => Request::Reset { cursor, offset },
            false => Request::Commit { cursor, offset },
        };
        let call = self.invoke(what);
        let done = self.ask(call, node, asked, LIMIT).await.is_some();
        if done {
            self.done(call, Answer::Done);
        }
        done
    }

    pub(super) async fn committed(&mut self, cursor: &Cursor) -> Option<Option<u64>> {
        let node = self.node();
        let header = QueryConsumerOffsetRequest {
            consumer_group: &cursor.group,
            topic: &cursor.queue.topic,
            queue_id: i32::from(cursor.queue.queue),
            set_zero_if_not_found: Some(false),
        };
        let asked = request(RequestCode::QUERY_CONSUMER_OFFSET, |f| header.write(f));
        let what = Request::Query {
            cursor: cursor.clone(),
        };
        let call = self.invoke(what);
        let offset = match self.call(node, asked, LIMIT).await {
            Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => {
                let header = OffsetResponse::parse(&answer.fields).ok()?;
                Some(header.offset as u64)
            }
            Ok(answer) if answer.response_code() == ResponseCode::QUERY_NOT_FOUND => None,
            Ok(answer) => {
                let code = answer.response_code().0;
                self.around.history.info(&self.name, call, Some(code));
                sleep(Duration::from_millis(20)).await;
                return None;
            }
            Err(lost) => {
                self.lost(call, lost).await;
                return None;
            }
        };
        let answer = Answer::Offset(offset);
        self.done(call, answer);
        Some(offset)
    }

    async fn max_offset(&mut self, of: &Queue) -> Option<u64> {
        let node = self.node();
        let header = MaxOffsetRequest {
            topic: &of.topic,
            queue_id: i32::from(of.queue),
            committed: Some(true),
        };
        let asked = request(RequestCode::GET_MAX_OFFSET, |fields| header.write(fields));
        let what = Request::MaxOffset { queue: of.clone() };
        let call = self.invoke(what);
        let answer = self.ask(call, node, asked, LIMIT).await?;
        let offset = OffsetResponse::parse(&answer.fields).ok()?.offset as u64;
        let answer = Answer::End {
            node: Some(name_of(node)),
            offset,
            current: true,
        };
        self.done(call, answer);
        Some(offset)
    }
}

/// Reads its share of the queues in the name of a group of its own, and to their ends when nothing is sent
/// any more.
pub(super) async fn run(mut client: Client, share: u16) {
    let mut positions: BTreeMap<Queue, Option<u64>> = BTreeMap::new();
    for topic in TOPICS {
        for number in (0..QUEUES).filter(|number| number % 2 == share) {
            positions.insert(queue(topic, number), None);
        }
    }
    let queues: Vec<Queue> = positions.keys().cloned().collect();
    let mut finished = std::collections::BTreeSet::new();
    while client.stage() != Stage::Over && finished.len() < queues.len() {
        let at = client.rng.pick(&queues).clone();
        let cursor = Cursor {
            group: format!("group{share}"),
            queue: at.clone(),
        };
        // Sometimes it has forgotten where it was, as a consumer that is started anew.
        let known = positions[&at].filter(|_| !client.rng.per_mille(50));
        let from = match known {
            Some(from) => from,
            None => match client.committed(&cursor).await {
                Some(offset) => offset.unwrap_or(0),
                None => continue,
            },
        };
        let draining = client.stage() == Stage::Drain;
        let node = client.node();
        let Some(pulled) = client.pull(node, &at, from).await else {
            continue;
        };
        positions.insert(at.clone(), Some(pulled.next));
        let moved = pulled.next != from || pulled.count > 0;
        let commits = draining || (moved && client.rng.per_mille(500));
        if commits && client.commit(&cursor, pulled.next, false).await && draining {
            // The end by what the leader knows, not by what this replica has seen.
            if client.max_offset(&at).await == Some(pulled.next) {
                finished.insert(at);
            }
        }
        client.think().await;
    }
}

/// Asks where queues end.
pub(super) async fn watch(mut client: Client) {
    while client.stage() == Stage::Load {
        let of = client.queue();
        client.max_offset(&of).await;
        client.think().await;
        client.think().await;
    }
}

/// Sets a group forwards and backwards.
pub(super) async fn rewind(mut client: Client) {
    while client.stage() == Stage::Load {
        let cursor = Cursor {
            group: "rewound".to_string(),
            queue: client.queue(),
        };
        let offset = client.rng.below(50);
        client.commit(&cursor, offset, true).await;
        client.committed(&cursor).await;
        client.think().await;
        client.think().await;
    }
}

/// Whether the last message of a queue can be read, on a node that may hear of it a moment later.
pub(super) async fn read_back(client: &mut Client, of: &Queue) -> bool {
    let Some(end) = client.max_offset(of).await.filter(|end| *end > 0) else {
        return false;
    };
    let node = client.node();
    for _ in 0..100 {
        let pulled = client.pull(node, of, end - 1).await;
        if pulled.is_some_and(|pulled| pulled.count > 0) {
            return true;
        }
        client.think().await;
    }
    false
}
