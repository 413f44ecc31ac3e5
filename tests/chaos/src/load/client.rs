//! One client: its connections, its name in the history, and its dice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry::client::{Client, ClientError};
use gantry_checker::event::Message;
use gantry_checker::{Answer, Note, Queue, Request};
use gantry_protocol::headers::{PullRequest, PullResponse, pull_flags};
use gantry_protocol::{Fields, RemotingCommand, RequestCode, ResponseCode, message};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Round;
use super::deeds::Deed;
use crate::net::{NODES, name_of};
use crate::node::{GROUPS, broker_address, namesrv_address};
use crate::random::Random;
use crate::shell::{Failure, Outcome, while_doing};

/// How long stock clients wait for the answer to a send.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Questions that may wait for a client.
const QUESTIONS_MAX: usize = 256;

/// Stands for the code of a request that never left.
const NEVER_SENT: i32 = -1;

/// First bytes of a body: its message's id.
const ID_DIGITS: usize = 16;

/// What became of a request.
pub enum Heard {
    /// An answer, whatever its code.
    Answer(RemotingCommand),
    /// It never left.
    NotSent,
    /// Nobody knows.
    Nothing,
}

/// A pull's answer.
pub struct Pulled {
    pub min: u64,
    pub max: u64,
    pub next: u64,
    pub messages: Vec<Message>,
}

/// A client.
pub struct Asker {
    /// The round it takes part in.
    pub round: Arc<Round>,
    /// Its name in the history.
    pub by: String,
    /// Its dice.
    pub random: Random,
    client: Client,
}

impl Asker {
    /// A client without connections.
    pub fn new(round: Arc<Round>, by: String, random: Random) -> Self {
        Self {
            round,
            by,
            random,
            client: client_of_all(),
        }
    }

    /// From here on brokers may ask this client something, too: what they ask comes here.
    pub fn listens(&mut self) -> mpsc::Receiver<RemotingCommand> {
        let (asked, questions) = mpsc::channel(QUESTIONS_MAX);
        self.client = client_of_all().listening(asked);
        questions
    }

    /// Writes down that something is about to be asked.
    pub fn begin(&self, request: Request) -> Outcome<u64> {
        let begun = self.round.history.invoke(&self.by, request);
        begun.map_err(while_doing("writing the history"))
    }

    /// Writes down an answer that is certain.
    pub fn succeed(&self, call: u64, answer: Answer) -> Outcome {
        let written = self.round.history.ok(&self.by, call, answer);
        written.map_err(while_doing("writing the history"))
    }

    /// Writes down that something else came of it.
    pub fn end(&self, call: u64, heard: &Heard) -> Outcome {
        let history = &self.round.history;
        let written = match heard {
            Heard::NotSent => history.fail(&self.by, call, NEVER_SENT),
            Heard::Nothing => history.info(&self.by, call, None),
            Heard::Answer(answer) if had_no_effect(answer) => {
                history.fail(&self.by, call, answer.code)
            }
            Heard::Answer(answer) => history.info(&self.by, call, Some(answer.code)),
        };
        written.map_err(while_doing("writing the history"))
    }

    /// Writes down that nothing came of it, and never will.
    pub fn fail(&self, call: u64, answer: &RemotingCommand) -> Outcome {
        let written = self.round.history.fail(&self.by, call, answer.code);
        written.map_err(while_doing("writing the history"))
    }

    /// Writes down what was asked and how it ended, where success says nothing more; gives the answer if it
    /// was one.
    pub async fn do_at(
        &mut self,
        group: usize,
        (what, request): (Request, RemotingCommand),
    ) -> Outcome<Option<RemotingCommand>> {
        let node = self.choose_node(group);
        let call = self.begin(what)?;
        let heard = self.ask(node, group, request).await;
        if let Some(answer) = is_success(&heard) {
            self.succeed(call, Answer::Done)?;
            return Ok(Some(answer.clone()));
        }
        self.end(call, &heard)?;
        Ok(None)
    }

    /// Lets some time pass; milliseconds.
    pub async fn pause(&mut self, low: u64, high: u64) {
        sleep(Duration::from_millis(self.random.between(low, high))).await;
    }

    /// Writes down something that it was told without asking.
    pub fn note(&self, note: Note) -> Outcome {
        let written = self.round.history.note(&self.by, note);
        written.map_err(while_doing("writing the history"))
    }

    /// Counts something that was done and acked.
    pub fn did(&self, deed: Deed) {
        self.round.tally.deeds.add(deed, 1);
    }

    /// Asks one group on one node.
    pub async fn ask(&self, node: usize, group: usize, request: RemotingCommand) -> Heard {
        let address = broker_address(node, group);
        match self.client.call(&address, request, PATIENCE).await {
            Ok(answer) => Heard::Answer(answer),
            Err(ClientError::Unreachable { .. } | ClientError::Unsendable(_)) => Heard::NotSent,
            Err(_) => Heard::Nothing,
        }
    }

    /// The node that leads a group as far as is known, or now and then any other: a client with a stale
    /// route.
    pub fn choose_node(&mut self, group: usize) -> usize {
        match self.round.view.leader_of(group) {
            Some(leader) if !self.random.one_in(5) => leader,
            _ => self.random.below(NODES),
        }
    }

    /// Reads a queue on one node and writes that down; nothing if that failed.
    pub async fn pull(
        &self,
        node: usize,
        queue: &Queue,
        from: u64,
        most: i32,
    ) -> Outcome<Option<Pulled>> {
        let request = Request::Pull {
            queue: queue.clone(),
            from,
            filtered: false,
        };
        let call = self.begin(request)?;
        let heard = self
            .ask(node, group_of(queue), pull_request(queue, from, most))
            .await;
        let Some(pulled) = read_pulled(&heard)? else {
            self.end(call, &heard)?;
            return Ok(None);
        };
        let answer = Answer::Pulled {
            node: Some(name_of(node)),
            min: pulled.min,
            max: pulled.max,
            next: pulled.next,
            messages: pulled.messages.clone(),
        };
        self.succeed(call, answer)?;
        Ok(Some(pulled))
    }
}

fn client_of_all() -> Client {
    let servers: Vec<String> = (0..NODES).map(namesrv_address).collect();
    Client::new(&servers.join(";")).expect("the list is well formed")
}

/// A request with its header's fields.
pub fn command(code: RequestCode, write: impl FnOnce(&mut Fields)) -> RemotingCommand {
    let mut command = RemotingCommand::request(code, 0);
    write(&mut command.fields);
    command
}

/// Whether an answer is the one hoped for.
pub fn is_success(heard: &Heard) -> Option<&RemotingCommand> {
    match heard {
        Heard::Answer(answer) if answer.response_code() == ResponseCode::SUCCESS => Some(answer),
        _ => None,
    }
}

/// Whether an answer says that there is no such topic.
pub fn is_without_topic(heard: &Heard) -> bool {
    matches!(heard, Heard::Answer(answer) if answer.response_code() == ResponseCode::TOPIC_NOT_EXIST)
}

/// Codes that are only given before anything is proposed.
fn had_no_effect(answer: &RemotingCommand) -> bool {
    let code = answer.response_code();
    [
        ResponseCode::TOPIC_NOT_EXIST,
        ResponseCode::MESSAGE_ILLEGAL,
        ResponseCode::NO_PERMISSION,
        ResponseCode::INVALID_PARAMETER,
    ]
    .contains(&code)
}

/// The number of a queue's group.
pub fn group_of(queue: &Queue) -> usize {
    let found = GROUPS.iter().position(|name| *name == queue.broker);
    found.expect("queues are made of known groups")
}

/// A pull that does not wait.
pub fn pull_request(queue: &Queue, from: u64, most: i32) -> RemotingCommand {
    let header = PullRequest {
        consumer_group: "chaos-readers",
        topic: &queue.topic,
        queue_id: i32::from(queue.queue),
        queue_offset: from as i64,
        max_msg_nums: most,
        sys_flag: pull_flags::SUBSCRIPTION,
        subscription: Some("*"),
        sub_version: Some(0),
        expression_type: Some("TAG"),
        max_msg_bytes: Some(2 << 20),
        ..PullRequest::default()
    };
    command(RequestCode::PULL_MESSAGE, |fields| header.write(fields))
}

/// What a pull brought; nothing if it was no answer about the queue.
pub fn read_pulled(heard: &Heard) -> Outcome<Option<Pulled>> {
    let Heard::Answer(answer) = heard else {
        return Ok(None);
    };
    let about_the_queue = [
        ResponseCode::SUCCESS,
        ResponseCode::PULL_NOT_FOUND,
        ResponseCode::PULL_RETRY_IMMEDIATELY,
        ResponseCode::PULL_OFFSET_MOVED,
    ];
    if !about_the_queue.contains(&answer.response_code()) {
        return Ok(None);
    }
    let header = PullResponse::parse(&answer.fields).map_err(while_doing("reading a pull"))?;
    let mut messages = Vec::new();
    if answer.response_code() == ResponseCode::SUCCESS {
        let decoded = message::Message::decode_all(answer.body.clone());
        for message in decoded.map_err(while_doing("reading the messages of a pull"))? {
            messages.push(seen(&message)?);
        }
    }
    Ok(Some(Pulled {
        min: header.min_offset as u64,
        max: header.max_offset as u64,
        next: header.next_begin_offset as u64,
        messages,
    }))
}

/// A message as the history knows it.
pub fn seen(message: &message::Message) -> Outcome<Message> {
    Ok(Message {
        offset: message.queue_offset as u64,
        physical: Some(message.physical_offset as u64),
        id: id_of(&message.body)?,
        crc: crc32fast::hash(&message.body),
        times: message.reconsume_times.max(0) as u32,
    })
}

/// The body of a message: its id, and letters that follow from the id.
pub fn body_of(id: u64, random: &mut Random) -> Bytes {
    let length = match random.below(100) {
        0 => random.between(2_000, 12_000),
        1..=20 => random.between(200, 600),
        _ => random.between(40, 160),
    };
    let mut body = format!("{id:016x}").into_bytes();
    let mut letters = Random::new(id);
    while body.len() < length as usize {
        body.extend_from_slice(format!("{:016x}", letters.next()).as_bytes());
    }
    Bytes::from(body)
}

/// The id in a body. One that cannot be read is given as a number that nobody sends.
pub fn id_of(body: &[u8]) -> Outcome<u64> {
    let digits = body
        .get(..ID_DIGITS)
        .and_then(|digits| std::str::from_utf8(digits).ok());
    let id = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    Ok(id.unwrap_or(u64::MAX))
}

/// The answer's body as one of the protocol's.
pub fn parsed<T, E: std::fmt::Display>(body: Result<T, E>) -> Outcome<T> {
    body.map_err(|error| Failure(format!("the body of an answer cannot be read: {error}")))
}
