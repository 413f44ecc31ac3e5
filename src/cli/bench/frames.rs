//! Requests as bytes. A send is encoded once for each queue; what differs from one send to the next has a
//! fixed width and is written over the encoded header.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use gantry_protocol::bodies::{Heartbeat, ProducerData};
use gantry_protocol::headers::{PullRequest, SendRequest, pull_flags};
use gantry_protocol::properties::{Builder, names};
use gantry_protocol::topic::DEFAULT_TOPIC;
use gantry_protocol::{Encoding, RemotingCommand, RequestCode, batch};

use super::unique::{KEY_BYTES, KEY_PLACEHOLDER};

/// Sends and pulls are numbered from here, so that each number has ten digits.
pub(super) const OPAQUE_FIRST: i32 = 1_000_000_000;
/// Number of requests whose answers nobody looks at.
const OPAQUE_IGNORED: i32 = OPAQUE_FIRST - 1;

/// Any time with the thirteen digits that times have until the year 2286.
const BORN_MS: i64 = 1_000_000_000_000;
/// Group that the pulls go by; every RocketMQ has it.
const CONSUMER_GROUP: &str = "TOOLS_CONSUMER";
/// What a stock consumer asks its broker to wait.
const SUSPEND_MS: i64 = 15_000;

/// How headers are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum HeaderKind {
    /// A JSON object, as stock clients send it.
    #[default]
    Json,
    /// RocketMQ's compact binary layout.
    Rocketmq,
}

impl HeaderKind {
    fn encoding(self) -> Encoding {
        match self {
            HeaderKind::Json => Encoding::Json,
            HeaderKind::Rocketmq => Encoding::RocketMq,
        }
    }

    /// The name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            HeaderKind::Json => "json",
            HeaderKind::Rocketmq => "rocketmq",
        }
    }
}

/// A queue that is sent to or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// Topic.
    pub(super) topic: String,
    /// Number of the queue in its broker group.
    pub(super) id: i32,
}

/// A send to one queue, without its body, ready to be copied.
#[derive(Debug)]
pub(super) struct SendFrame {
    head: Vec<u8>,
    opaque_at: usize,
    opaque_is_text: bool,
    born_at: usize,
    producer_at: usize,
    /// Where the unique key is, if there is one.
    key_at: Option<usize>,
}

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// One message.
    Message,
    /// One message with a unique key.
    KeyedMessage,
    /// A batch of messages.
    Batch,
}

/// The parts of a send that differ from one send to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variable<'a> {
    /// Number of the request.
    pub(super) opaque: i32,
    /// Number of the producer, below a million.
    pub(super) producer: u32,
    /// The time as [`Born`] has it.
    pub(super) born: &'a [u8; 13],
    /// The message's unique key, where it carries one.
    pub(super) key: Option<&'a [u8; KEY_BYTES]>,
}

impl SendFrame {
    /// Encodes a send of a body of `body_bytes`.
    ///
    /// # Errors
    /// The frame would be too large.
    pub(super) fn new(
        kind: HeaderKind,
        queue: &Queue,
        carries: Carries,
        body_bytes: usize,
    ) -> Result<SendFrame, String> {
        let is_batch = carries == Carries::Batch;
        let code = match is_batch {
            true => RequestCode::SEND_BATCH_MESSAGE,
            false => RequestCode::SEND_MESSAGE_V2,
        };
        let mut properties = Builder::new();
        let is_keyed = carries == Carries::KeyedMessage;
        if is_keyed {
            properties.push(names::UNIQ_KEY, KEY_PLACEHOLDER);
        }
        let producer = producer_group(0);
        let header = SendRequest {
            producer_group: &producer,
            topic: &queue.topic,
            default_topic: DEFAULT_TOPIC,
            default_topic_queue_nums: 4,
            queue_id: queue.id,
            born_timestamp: BORN_MS,
            reconsume_times: Some(0),
            unit_mode: Some(false),
            batch: Some(is_batch),
            properties: is_keyed.then(|| properties.as_str()),
            ..SendRequest::default()
        };
        let mut request = RemotingCommand::request(code, OPAQUE_FIRST);
        request.encoding = kind.encoding();
        header.write(code, &mut request.fields);
        let mut head = BytesMut::new();
        request
            .encode_head_into(&mut head, body_bytes)
            .map_err(|error| error.to_string())?;
        let head = head.to_vec();
        let opaque_is_text = kind == HeaderKind::Json;
        let opaque_at = match opaque_is_text {
            true => end_of(&head, b"\"opaque\":"),
            false => gantry_protocol::frame::PREFIX_BYTES + 5,
        };
        let born_at = start_of_field(&head, kind, "g", &BORN_MS.to_string());
        let producer_at = start_of_field(&head, kind, "a", &producer) + producer.len() - 6;
        let key_at = is_keyed.then(|| {
            let name_end = end_of(&head, names::UNIQ_KEY.as_bytes());
            name_end + end_of(&head[name_end..], KEY_PLACEHOLDER.as_bytes()) - KEY_BYTES
        });
        Ok(SendFrame {
            head,
            opaque_at,
            opaque_is_text,
            born_at,
            producer_at,
            key_at,
        })
    }

    /// Appends the frame up to its body.
    pub(super) fn append(&self, variable: &Variable<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.head);
        let head = &mut out[start..];
        if self.opaque_is_text {
            put_digits(
                &mut head[self.opaque_at..][..10],
                variable.opaque.unsigned_abs(),
            );
        } else {
            head[self.opaque_at..][..4].copy_from_slice(&variable.opaque.to_be_bytes());
        }
        head[self.born_at..][..13].copy_from_slice(variable.born);
        if variable.producer != 0 {
            put_digits(&mut head[self.producer_at..][..6], variable.producer);
        }
        if let (Some(at), Some(key)) = (self.key_at, variable.key) {
            head[at..][..KEY_BYTES].copy_from_slice(key);
        }
    }
}

/// The wall clock as the text that a send carries.
#[derive(Debug)]
pub(super) struct Born {
    millis: u64,
    text: [u8; 13],
}

impl Born {
    pub(super) fn new() -> Born {
        Born {
            millis: 0,
            text: [b'0'; 13],
        }
    }

    /// Milliseconds since 1970 in thirteen digits.
    pub(super) fn now(&mut self) -> &[u8; 13] {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let millis = since.as_millis() as u64;
        if millis != self.millis {
            self.millis = millis;
            let (high, low) = (millis / 1_000_000_000, millis % 1_000_000_000);
            put_digits(&mut self.text[..4], high as u32);
            put_digits(&mut self.text[4..], low as u32);
        }
        &self.text
    }
}

/// What a producer says about itself when it connects, and every 30 s.
pub(super) fn heartbeat(kind: HeaderKind, producer: u32) -> Vec<u8> {
    let body = Heartbeat {
        client_id: format!("127.0.0.1@bench-{}-{producer}", std::process::id()),
        producer_data_set: vec![ProducerData {
            group_name: producer_group(producer),
        }],
        ..Heartbeat::default()
    };
    let body = serde_json::to_vec(&body).expect("a heartbeat has nothing that JSON cannot hold");
    let mut request = RemotingCommand::request(RequestCode::HEART_BEAT, OPAQUE_IGNORED);
    request.encoding = kind.encoding();
    encoded(request.with_body(body))
}

/// A pull from `offset` on, that waits for a message if `waits`.
pub(super) fn pull(
    kind: HeaderKind,
    queue: &Queue,
    (opaque, offset): (i32, i64),
    messages_max: i32,
    waits: bool,
) -> Vec<u8> {
    let suspend = if waits { pull_flags::SUSPEND } else { 0 };
    let header = PullRequest {
        consumer_group: CONSUMER_GROUP,
        topic: &queue.topic,
        queue_id: queue.id,
        queue_offset: offset,
        max_msg_nums: messages_max,
        sys_flag: pull_flags::SUBSCRIPTION | suspend,
        suspend_timeout_millis: SUSPEND_MS,
        subscription: Some("*"),
        sub_version: Some(0),
        expression_type: Some("TAG"),
        ..PullRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::PULL_MESSAGE, opaque);
    request.encoding = kind.encoding();
    header.write(&mut request.fields);
    encoded(request)
}

/// A body of so many bytes, and as often as `batch` says if that is more than 1.
pub(super) fn body(size: usize, batch: u32) -> Bytes {
    let body = vec![b'x'; size];
    if batch == 1 {
        return body.into();
    }
    let message = batch::BatchMessage {
        flag: 0,
        body: &body,
        properties: "",
    };
    let mut out = BytesMut::new();
    for _ in 0..batch {
        batch::encode(&message, &mut out);
    }
    out.freeze()
}

fn encoded(request: RemotingCommand) -> Vec<u8> {
    let mut frame = BytesMut::new();
    request
        .encode_into(&mut frame)
        .expect("requests without messages are small");
    frame.to_vec()
}

fn producer_group(producer: u32) -> String {
    format!("gantry-bench-{producer:06}")
}

/// Where the value of a field begins.
fn start_of_field(head: &[u8], kind: HeaderKind, name: &str, value: &str) -> usize {
    let before = match kind {
        HeaderKind::Json => format!("\"{name}\":\"").into_bytes(),
        HeaderKind::Rocketmq => {
            let mut before = (name.len() as u16).to_be_bytes().to_vec();
            before.extend_from_slice(name.as_bytes());
            before.extend_from_slice(&(value.len() as u32).to_be_bytes());
            before
        }
    };
    let at = end_of(head, &before);
    assert!(
        head[at..].starts_with(value.as_bytes()),
        "field {name} at {at}"
    );
    at
}

fn end_of(head: &[u8], pattern: &[u8]) -> usize {
    let found = head
        .windows(pattern.len())
        .position(|window| window == pattern);
    found.expect("we have just encoded it") + pattern.len()
}

/// Writes a number with leading zeros.
pub(super) fn put_digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gantry_protocol::frame;

    use super::*;

    fn decoded(bytes: &[u8]) -> RemotingCommand {
        let mut buffer = BytesMut::from(bytes);
        let frame = frame::cut(&mut buffer).unwrap().unwrap();
        assert!(buffer.is_empty());
        RemotingCommand::decode(frame).unwrap()
    }

    #[test]
    fn a_patched_send_is_what_a_client_would_have_encoded() {
        // A topic that reads like a field.
        let queue = Queue {
            topic: "g_a_1000000000000".to_string(),
            id: 3,
        };
        let body = body(10, 1);
        for kind in [HeaderKind::Json, HeaderKind::Rocketmq] {
            let frame = SendFrame::new(kind, &queue, Carries::KeyedMessage, body.len()).unwrap();
            let mut out = b"before".to_vec();
            let variable = Variable {
                opaque: 1_000_000_042,
                producer: 17,
                born: b"1700000000001",
                key: Some(b"0123456789abcdef0123456789abcdef"),
            };
            frame.append(&variable, &mut out);
            out.extend_from_slice(&body);
            let sent = decoded(&out[6..]);
            assert_eq!(sent.opaque, 1_000_000_042);
            let header = SendRequest::parse(RequestCode::SEND_MESSAGE_V2, &sent.fields).unwrap();
            assert_eq!(header.producer_group, "gantry-bench-000017");
            assert_eq!(
                (header.topic, header.queue_id),
                (queue.topic.as_str(), queue.id)
            );
            assert_eq!(header.born_timestamp, 1_700_000_000_001);
            let key = "UNIQ_KEY\u{1}0123456789abcdef0123456789abcdef\u{2}";
            assert_eq!(header.properties, Some(key));
            assert_eq!((sent.body.len(), header.is_batch()), (10, false));
        }
    }

    #[test]
    fn a_batch_holds_its_messages() {
        let queue = Queue {
            topic: "t".to_string(),
            id: 0,
        };
        let body = body(100, 3);
        let frame = SendFrame::new(HeaderKind::Json, &queue, Carries::Batch, body.len()).unwrap();
        let mut out = Vec::new();
        let variable = Variable {
            opaque: OPAQUE_FIRST,
            producer: 0,
            born: b"1700000000001",
            key: None,
        };
        frame.append(&variable, &mut out);
        out.extend_from_slice(&body);
        let sent = decoded(&out);
        assert_eq!(sent.request_code(), RequestCode::SEND_BATCH_MESSAGE);
        let sizes: Vec<usize> = batch::decode(&sent.body)
            .map(|m| m.unwrap().body.len())
            .collect();
        assert_eq!(sizes, [100, 100, 100]);
    }

    #[test]
    fn the_time_has_thirteen_digits() {
        let mut born = Born::new();
        let text: u64 = std::str::from_utf8(born.now()).unwrap().parse().unwrap();
        assert_eq!(text, born.millis);
        assert!(text > 1_600_000_000_000);
    }
}
