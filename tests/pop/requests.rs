//! Requests of a consumer that pops, and what it makes of the answers: as stock clients do it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_protocol::headers::{
    AckRequest, ChangeInvisibleRequest, ChangeInvisibleResponse, PopRequest, PopResponse,
    SendRequest,
};
use gantry_protocol::message::Message;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};

use super::support::Connection;

pub const GROUP: &str = "G";
pub const INVISIBLE_MS: i64 = 30_000;

/// A message with the handle that a stock client makes for it.
#[derive(Clone, Debug)]
pub struct Popped {
    pub message: Message,
    pub handle: String,
}

impl Popped {
    pub fn body(&self) -> String {
        String::from_utf8(self.message.body.to_vec()).unwrap()
    }

    /// Parts of the handle: start offset, pop time, invisible time, revive queue, retry flag, broker, queue,
    /// offset.
    pub fn part(&self, at: usize) -> &str {
        self.handle.split(' ').nth(at).unwrap()
    }

    /// The topic that acknowledgements name.
    pub fn topic(&self) -> String {
        match self.part(4) {
            "1" => format!("%RETRY%{GROUP}_{}", self.message.topic),
            _ => self.message.topic.to_string(),
        }
    }

    pub fn property(&self, name: &str) -> Option<String> {
        self.message.property(name).map(str::to_owned)
    }
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}

/// A pop of everything there is.
pub fn pop_of(topic: &str) -> PopRequest<'_> {
    PopRequest {
        consumer_group: GROUP,
        topic,
        queue_id: -1,
        max_msg_nums: 32,
        invisible_time: INVISIBLE_MS,
        poll_time: 0,
        born_time: now_ms(),
        ..PopRequest::default()
    }
}

pub fn pop_command(header: &PopRequest<'_>) -> RemotingCommand {
    let mut request = RemotingCommand::request(RequestCode::POP_MESSAGE, 0);
    header.write(&mut request.fields);
    request
}

/// What an answer brought; none for the codes that say so.
pub fn popped(answer: &RemotingCommand) -> Vec<Popped> {
    let header = PopResponse::parse(&answer.fields).expect("all fields, whatever the code");
    if answer.response_code() != ResponseCode::SUCCESS {
        assert_eq!(
            answer.response_code(),
            ResponseCode::POLLING_TIMEOUT,
            "{answer:?}"
        );
        return Vec::new();
    }
    let messages = Message::decode_all(answer.body.clone()).unwrap();
    let (starts, listed) = (
        header.start_offset_info.unwrap(),
        header.msg_offset_info.unwrap(),
    );
    let handle = |message: &Message| {
        if let Some(ready) = message.property("POP_CK") {
            return ready.to_owned();
        }
        let prefix = format!("0 {} ", message.queue_id);
        let of = |texts: &str| {
            texts
                .split(';')
                .find_map(|part| part.strip_prefix(&prefix).map(str::to_owned))
                .unwrap()
        };
        let offset = message.queue_offset.to_string();
        assert!(of(listed).split(',').any(|one| one == offset), "{listed}");
        format!(
            "{} {} {} {} 0 broker-a {} {offset}",
            of(starts),
            header.pop_time,
            header.invisible_time,
            header.revive_qid,
            message.queue_id
        )
    };
    let with_handle = |message: Message| Popped {
        handle: handle(&message),
        message,
    };
    messages.into_iter().map(with_handle).collect()
}

pub async fn pop(client: &mut Connection, header: PopRequest<'_>) -> Vec<Popped> {
    popped(&client.ask(pop_command(&header)).await)
}

pub fn bodies(messages: &[Popped]) -> Vec<String> {
    let mut bodies: Vec<String> = messages.iter().map(Popped::body).collect();
    bodies.sort();
    bodies
}

pub async fn send(client: &mut Connection, topic: &str, queue: i32, body: &str, tag: &str) {
    // With a handle that a client left in it, as if it had popped the message from somewhere else.
    let properties =
        format!("POP_CK\u{1}1 2 3 4 0 b 5 6\u{2}TAGS\u{1}{tag}\u{2}UNIQ_KEY\u{1}{body}\u{2}");
    let header = SendRequest {
        producer_group: "P",
        topic,
        default_topic: "TBW102",
        default_topic_queue_nums: 4,
        queue_id: queue,
        born_timestamp: 7,
        properties: Some(&properties),
        ..SendRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, 0);
    header.write(RequestCode::SEND_MESSAGE_V2, &mut request.fields);
    let answer = client
        .ask(request.with_body(body.as_bytes().to_vec()))
        .await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
}

pub async fn ack(client: &mut Connection, popped: &Popped) -> ResponseCode {
    ack_with(client, popped, &popped.handle).await
}

pub async fn ack_with(client: &mut Connection, popped: &Popped, handle: &str) -> ResponseCode {
    let topic = popped.topic();
    let header = AckRequest {
        consumer_group: GROUP,
        topic: &topic,
        queue_id: popped.message.queue_id,
        extra_info: handle,
        offset: popped.message.queue_offset,
    };
    let mut request = RemotingCommand::request(RequestCode::ACK_MESSAGE, 0);
    header.write(&mut request.fields);
    client.ask(request).await.response_code()
}

/// Changes when a message comes again; gives the new handle, or the code.
pub async fn change(
    client: &mut Connection,
    popped: &Popped,
    invisible: Duration,
) -> Result<String, ResponseCode> {
    let topic = popped.topic();
    let header = ChangeInvisibleRequest {
        consumer_group: GROUP,
        topic: &topic,
        queue_id: popped.message.queue_id,
        extra_info: &popped.handle,
        offset: popped.message.queue_offset,
        invisible_time: invisible.as_millis() as i64,
    };
    let mut request = RemotingCommand::request(RequestCode::CHANGE_MESSAGE_INVISIBLETIME, 0);
    header.write(&mut request.fields);
    let answer = client.ask(request).await;
    if answer.response_code() != ResponseCode::SUCCESS {
        return Err(answer.response_code());
    }
    let header = ChangeInvisibleResponse::parse(&answer.fields).unwrap();
    let offset = popped.message.queue_offset;
    Ok(format!(
        "{offset} {} {} {} {} broker-a {} {offset}",
        header.pop_time,
        header.invisible_time,
        header.revive_qid,
        popped.part(4),
        popped.message.queue_id
    ))
}
