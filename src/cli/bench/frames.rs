//! Requests as bytes. A send is encoded once for each queue; what differs from one send to the next has a
//! fixed width and is written over the encoded header.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use gantry_protocol::bodies::{Heartbeat, ProducerData};
use gantry_protocol::headers::{EndTransactionRequest, PullRequest, SendRequest, pull_flags};
use gantry_protocol::message::sys_flags;
use gantry_protocol::topic::DEFAULT_TOPIC;
use gantry_protocol::{Encoding, RemotingCommand, RequestCode, batch};

use super::kinds::{Blank, LABELS, MessageKind, PRODUCER_PREFIX};

/// Sends and pulls are numbered from here, so that each number has ten digits.
pub(super) const OPAQUE_FIRST: i32 = 1_000_000_000;
/// Number of requests whose answers nobody looks at.
const OPAQUE_IGNORED: i32 = OPAQUE_FIRST - 1;

/// Any time with the thirteen digits that times have until the year 2286.
const BORN_MS: i64 = 1_000_000_000_000;
/// Group that the pulls go by; every RocketMQ has it.
pub(super) const PULL_GROUP: &str = "TOOLS_CONSUMER";
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
    /// The encoding.
    pub(super) fn encoding(self) -> Encoding {
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
    blanks: Vec<(usize, Blank)>,
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
    /// Counts the messages.
    pub(super) number: u64,
    /// When a timed message comes; milliseconds since 1970.
    pub(super) due_ms: u64,
}

impl SendFrame {
    /// Encodes a send of a body of `body_bytes`.
    ///
    /// # Errors
    /// The frame would be too large.
    pub(super) fn new(
        kind: HeaderKind,
        queue: &Queue,
        messages: MessageKind,
        body_bytes: usize,
    ) -> Result<SendFrame, String> {
        let is_batch = messages == MessageKind::Batch;
        let code = match is_batch {
            true => RequestCode::SEND_BATCH_MESSAGE,
            false => RequestCode::SEND_MESSAGE_V2,
        };
        let producer = producer_group(0);
        let properties = messages.properties(&producer);
        let sys_flag = match messages {
            MessageKind::Transactional => sys_flags::TRANSACTION_PREPARED,
            _ => 0,
        };
        let header = SendRequest {
            sys_flag,
            properties: (!properties.is_empty()).then_some(&properties),
            producer_group: &producer,
            topic: &queue.topic,
            default_topic: DEFAULT_TOPIC,
            default_topic_queue_nums: 4,
            queue_id: queue.id,
            born_timestamp: BORN_MS,
            reconsume_times: Some(0),
            unit_mode: Some(false),
            batch: Some(is_batch),
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
        let producer_at = start_of_field(&head, kind, "a", &producer) + PRODUCER_PREFIX.len();
        let mut blanks = vec![(producer_at, Blank::Producer)];
        let text = encoded_text(kind, &properties);
        for (name, behind, blank) in messages.blanks() {
            let name = encoded_text(kind, &format!("{name}\u{1}"));
            let at = start_of_field(&head, kind, "i", &text);
            blanks.push((
                at + end_of(text.as_bytes(), name.as_bytes()) + behind,
                blank,
            ));
        }
        Ok(SendFrame {
            head,
            opaque_at,
            opaque_is_text,
            born_at,
            blanks,
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
                variable.opaque.unsigned_abs().into(),
            );
        } else {
            head[self.opaque_at..][..4].copy_from_slice(&variable.opaque.to_be_bytes());
        }
        head[self.born_at..][..13].copy_from_slice(variable.born);
        for (at, blank) in &self.blanks {
            let number = match blank {
                Blank::Producer => variable.producer.into(),
                Blank::DueMs => variable.due_ms,
                Blank::Key => variable.number,
                Blank::Label => variable.number % LABELS,
            };
            put_digits(&mut head[*at..][..blank.digits()], number);
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
            put_digits(&mut self.text, millis);
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

/// A half message that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Half {
    /// Its offset in the queue of half messages.
    pub(super) queue_offset: i64,
    /// Its place in the log.
    pub(super) physical_offset: i64,
}

/// Commits a half message, and asks for an answer, which stock clients do not.
pub(super) fn commit(kind: HeaderKind, opaque: i32, producer: u32, half: Half) -> Vec<u8> {
    let producer = producer_group(producer);
    // Brokers want some id, and only log it.
    let id = half.physical_offset.to_string();
    let header = EndTransactionRequest {
        msg_id: &id,
        producer_group: &producer,
        tran_state_table_offset: half.queue_offset,
        commit_log_offset: half.physical_offset,
        commit_or_rollback: sys_flags::TRANSACTION_COMMIT,
        from_transaction_check: Some(false),
        ..EndTransactionRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::END_TRANSACTION, opaque);
    request.encoding = kind.encoding();
    header.write(&mut request.fields);
    encoded(request)
}

/// Which messages of a queue are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Selection {
    /// All of them.
    #[default]
    All,
    /// Those with one of these tags, "a || b".
    Tags(String),
    /// Those whose properties match this expression of SQL92.
    Sql(String),
}

impl Selection {
    /// Expression and its type, as requests have them.
    fn expression(&self) -> (&str, &'static str) {
        match self {
            Selection::All => ("*", "TAG"),
            Selection::Tags(tags) => (tags, "TAG"),
            Selection::Sql(sql) => (sql, "SQL92"),
        }
    }
}

/// A pull from `offset` on, that waits for a message if `waits`.
pub(super) fn pull(
    kind: HeaderKind,
    (queue, selection): (&Queue, &Selection),
    (opaque, offset): (i32, i64),
    messages_max: i32,
    waits: bool,
) -> Vec<u8> {
    let suspend = if waits { pull_flags::SUSPEND } else { 0 };
    let (expression, expression_type) = selection.expression();
    let header = PullRequest {
        consumer_group: PULL_GROUP,
        topic: &queue.topic,
        queue_id: queue.id,
        queue_offset: offset,
        max_msg_nums: messages_max,
        sys_flag: pull_flags::SUBSCRIPTION | suspend,
        suspend_timeout_millis: SUSPEND_MS,
        subscription: Some(expression),
        sub_version: Some(0),
        expression_type: Some(expression_type),
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

/// The whole request as bytes.
pub(super) fn encoded(request: RemotingCommand) -> Vec<u8> {
    let mut frame = BytesMut::new();
    request
        .encode_into(&mut frame)
        .expect("requests without messages are small");
    frame.to_vec()
}

/// The producer group of a producer.
fn producer_group(producer: u32) -> String {
    format!("{PRODUCER_PREFIX}{producer:06}")
}

/// Properties as they stand in an encoded header.
fn encoded_text(kind: HeaderKind, properties: &str) -> String {
    match kind {
        HeaderKind::Json => properties
            .replace('\u{1}', "\\u0001")
            .replace('\u{2}', "\\u0002"),
        HeaderKind::Rocketmq => properties.to_string(),
    }
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
fn put_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use gantry_protocol::frame;
    use gantry_protocol::properties::{self, names};

    use super::*;

    fn decoded(bytes: &[u8]) -> RemotingCommand {
        let mut buffer = BytesMut::from(bytes);
        let frame = frame::cut(&mut buffer).unwrap().unwrap();
        assert!(buffer.is_empty());
        RemotingCommand::decode(frame).unwrap()
    }

    const VARIABLE: Variable<'_> = Variable {
        opaque: 1_000_000_042,
        producer: 17,
        born: b"1700000000001",
        number: 1234,
        due_ms: 1_800_000_000_002,
    };

    #[test]
    fn properties_are_those_of_the_kind() {
        let queue = Queue {
            topic: "TAGS".to_string(),
            id: 0,
        };
        let one = |name: &str, value: &str| format!("{name}\u{1}{value}\u{2}");
        for (messages, wanted) in [
            (MessageKind::Plain, String::new()),
            (
                MessageKind::Delayed(Duration::from_secs(30)),
                one("TIMER_DELAY_MS", "30000"),
            ),
            (MessageKind::Timed, one("TIMER_DELIVER_MS", "1800000000002")),
            (
                MessageKind::Transactional,
                one("TRAN_MSG", "true") + &one("PGROUP", "gantry-bench-000017"),
            ),
            (MessageKind::Labelled, one("TAGS", "t4") + &one("a", "4")),
        ] {
            for kind in [HeaderKind::Json, HeaderKind::Rocketmq] {
                let frame = SendFrame::new(kind, &queue, messages, 0).unwrap();
                let mut out = Vec::new();
                frame.append(&VARIABLE, &mut out);
                let sent = decoded(&out);
                let header =
                    SendRequest::parse(RequestCode::SEND_MESSAGE_V2, &sent.fields).unwrap();
                assert_eq!(header.properties.unwrap_or_default(), wanted, "{kind:?}");
                let is_half = messages == MessageKind::Transactional;
                assert_eq!(header.sys_flag, if is_half { 4 } else { 0 });
            }
        }
    }

    #[test]
    fn a_commit_is_whole_in_either_encoding() {
        let half = Half {
            queue_offset: 7,
            physical_offset: 4096,
        };
        for kind in [HeaderKind::Json, HeaderKind::Rocketmq] {
            let sent = decoded(&commit(kind, OPAQUE_FIRST, 17, half));
            let header = EndTransactionRequest::parse(&sent.fields).unwrap();
            assert_eq!(header.producer_group, "gantry-bench-000017");
            assert_eq!(header.tran_state_table_offset, 7);
            assert_eq!(
                (header.commit_log_offset, header.commit_or_rollback),
                (4096, 8)
            );
            assert!(!sent.is_oneway());
        }
    }

    #[test]
    fn unique_keys_count_and_have_the_length_of_a_stock_client() {
        let queue = Queue {
            topic: "t".to_string(),
            id: 0,
        };
        for kind in [HeaderKind::Json, HeaderKind::Rocketmq] {
            let frame = SendFrame::new(kind, &queue, MessageKind::Keyed, 0).unwrap();
            let mut out = Vec::new();
            frame.append(&VARIABLE, &mut out);
            let sent = decoded(&out);
            let header = SendRequest::parse(RequestCode::SEND_MESSAGE_V2, &sent.fields).unwrap();
            let key = properties::get(header.properties.unwrap(), names::UNIQ_KEY).unwrap();
            assert!(key.ends_with("0000000000001234"), "{key}");
            assert_eq!(key.len(), "7F00000100002A9F0000000000000100".len());
        }
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
            let frame = SendFrame::new(kind, &queue, MessageKind::Plain, body.len()).unwrap();
            let mut out = b"before".to_vec();
            frame.append(&VARIABLE, &mut out);
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
        let kind = MessageKind::Batch;
        let frame = SendFrame::new(HeaderKind::Json, &queue, kind, body.len()).unwrap();
        let mut out = Vec::new();
        frame.append(&VARIABLE, &mut out);
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
