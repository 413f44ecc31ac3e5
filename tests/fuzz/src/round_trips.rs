//! What is encoded comes back: commands, headers, messages, batches, records, checkpoints, hard state.

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use gantry_protocol::batch::{self as wire_batch, BatchMessage};
use gantry_protocol::headers::SendRequest;
use gantry_protocol::message::Message;
use gantry_protocol::{
    Encoding, Fields, Language, RemotingCommand, RequestCode, frame, properties,
};
use gantry_storage::QueueOffset;
use gantry_storage::batch::{BatchBuilder, BatchView, RowHead, RowKind};
use gantry_storage::message::{self as stored, MessageView, NewMessage};
use gantry_storage::tables::{
    Command, OffsetCommit, TopicConfig, decode_commands, encode_commands,
};
use gantry_storage::testing::Format;

use crate::frames::check_command;
use crate::input::Input;

/// The first byte chooses what is made of the rest.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 6 {
        0 => command(&mut input),
        1 => send_header(&mut input),
        2 => wire_batches(&mut input),
        3 => batch_record(&mut input),
        4 => on_disk(&mut input),
        _ => commands(&mut input),
    }
}

fn command(input: &mut Input<'_>) {
    let mut fields = Fields::new();
    for _ in 0..input.byte() % 20 {
        let name = input.text();
        fields.push(&name, &input.text());
    }
    let remark = input.text();
    let mut command = RemotingCommand::request(RequestCode(input.u32() as i32), 0);
    command.encoding = if input.flag() {
        Encoding::Json
    } else {
        Encoding::RocketMq
    };
    if command.encoding == Encoding::RocketMq {
        // The compact encoding has sixteen bits for these.
        command.code = i32::from(command.code as i16);
        command.version = i32::from(input.u16() as i16);
        // And no empty texts.
        fields = fields
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
    }
    command.language = Language::from_code(input.byte());
    command.opaque = input.u32() as i32;
    command.flag = input.u32() as i32;
    command.remark = (!remark.is_empty()).then_some(remark.into());
    command.fields = fields;
    command.body = Bytes::copy_from_slice(input.rest());
    check_command(&command);
}

fn send_header(input: &mut Input<'_>) {
    let texts: Vec<String> = (0..5).map(|_| input.text()).collect();
    let send = SendRequest {
        producer_group: &texts[0],
        topic: &texts[1],
        default_topic: &texts[2],
        default_topic_queue_nums: input.u32() as i32,
        queue_id: input.u32() as i32,
        sys_flag: input.u32() as i32,
        born_timestamp: input.u64() as i64,
        flag: input.u32() as i32,
        properties: Some(texts[3].as_str()).filter(|text| !text.is_empty()),
        reconsume_times: input.flag().then(|| input.u32() as i32),
        unit_mode: input.flag().then(|| input.flag()),
        batch: input.flag().then(|| input.flag()),
        max_reconsume_times: input.flag().then(|| input.u32() as i32),
        broker_name: None,
    };
    for code in [RequestCode::SEND_MESSAGE, RequestCode::SEND_MESSAGE_V2] {
        for encoding in [Encoding::Json, Encoding::RocketMq] {
            let mut command = RemotingCommand::request(code, 1);
            command.encoding = encoding;
            send.write(code, &mut command.fields);
            let mut buffer = BytesMut::new();
            command.encode_into(&mut buffer).unwrap();
            let frame = frame::cut(&mut buffer).unwrap().unwrap();
            let back = RemotingCommand::decode(frame).unwrap();
            if encoding == Encoding::Json || texts[..3].iter().all(|text| !text.is_empty()) {
                assert_eq!(SendRequest::parse(code, &back.fields), Ok(send));
            }
        }
    }
}

fn wire_batches(input: &mut Input<'_>) {
    let mut parts = Vec::new();
    for _ in 0..input.byte() % 8 {
        parts.push((input.u32() as i32, input.piece(), input.text()));
    }
    let mut body = BytesMut::new();
    let message_of = |(flag, body, properties): &(i32, &'_ [u8], String)| {
        (*flag, body.to_vec(), properties.clone())
    };
    for (flag, bytes, properties) in &parts {
        let message = BatchMessage {
            flag: *flag,
            body: bytes,
            properties,
        };
        wire_batch::encode(&message, &mut body);
    }
    let back: Vec<_> = wire_batch::decode(&body)
        .map(|message| message.unwrap())
        .map(|message| {
            (
                message.flag,
                message.body.to_vec(),
                message.properties.to_string(),
            )
        })
        .collect();
    assert_eq!(back, parts.iter().map(message_of).collect::<Vec<_>>());
}

/// What one message of a batch is made of.
struct Parts<'a> {
    topic: String,
    queue: u16,
    flags: [i32; 3],
    born: i64,
    host: SocketAddr,
    prepared: i64,
    body: &'a [u8],
    properties: String,
}

impl<'a> Parts<'a> {
    fn of(input: &mut Input<'a>) -> Self {
        let topic = format!("T{}", input.text());
        let topic: String = topic.chars().take(63).collect();
        let ip = if input.flag() {
            IpAddr::from(u128::from(input.u64()).to_be_bytes())
        } else {
            IpAddr::from(input.u32().to_be_bytes())
        };
        Parts {
            topic,
            queue: input.u16(),
            flags: [(); 3].map(|()| input.u32() as i32),
            born: input.u64() as i64,
            host: SocketAddr::new(ip, input.u16()),
            prepared: input.u64() as i64,
            body: input.piece(),
            properties: input.text(),
        }
    }

    fn message(&self) -> NewMessage<'_> {
        NewMessage {
            topic: &self.topic,
            queue_id: self.queue,
            flag: self.flags[0],
            sys_flag: self.flags[1],
            born_timestamp: self.born,
            born_host: self.host,
            reconsume_times: self.flags[2],
            prepared_offset: self.prepared,
            body: self.body,
            properties: self.properties.as_bytes(),
        }
    }

    fn check(&self, bytes: Bytes, store_time_ms: u64) {
        let view = MessageView::parse(&bytes).unwrap();
        assert_eq!(view.topic(), self.topic);
        assert_eq!(view.queue_id(), u32::from(self.queue));
        assert_eq!(
            (view.flag(), view.reconsume_times()),
            (self.flags[0], self.flags[2])
        );
        let hosts = stored::FLAG_BORN_HOST_V6 | stored::FLAG_STORE_HOST_V6;
        assert_eq!(view.sys_flag() & !hosts, self.flags[1] & !hosts);
        assert_eq!(
            (view.born_timestamp(), view.store_timestamp()),
            (self.born, store_time_ms)
        );
        let host = SocketAddr::new(self.host.ip().to_canonical(), self.host.port());
        assert_eq!(view.born_host(), host);
        assert_eq!(view.prepared_offset(), self.prepared);
        // Whatever the flag says of compression.
        assert_eq!(view.body(), self.body);
        assert_eq!(view.body_crc(), crc32fast::hash(self.body) & 0x7FFF_FFFF);
        assert_eq!(view.properties(), self.properties.as_bytes());
        let decoded = Message::decode_all(bytes.clone()).unwrap();
        assert_eq!(decoded.len(), 1);
        assert_eq!(decoded[0].topic, self.topic);
        assert_eq!(&decoded[0].body[..], self.body);
        assert_eq!(decoded[0].properties, self.properties);
    }
}

fn batch_record(input: &mut Input<'_>) {
    let store_time_ms = u64::from(input.u32());
    let mut builder = BatchBuilder::default();
    let mut made = Vec::new();
    let mut asked = Vec::new();
    for _ in 0..input.byte() % 6 {
        if input.flag() {
            let command = command_of(input);
            builder.push_command(&command);
            asked.push(command);
            continue;
        }
        let parts = Parts::of(input);
        let head = RowHead {
            topic_id: input.u32(),
            kind: RowKind::ALL[usize::from(input.byte()) % RowKind::ALL.len()],
            origin: input.u64(),
        };
        builder.push_message(head, &parts.message()).unwrap();
        made.push((head, parts));
    }
    let announced = builder.len_bytes();
    let (payload, crc) = builder.seal(store_time_ms);
    assert_eq!((payload.len(), crc32fast::hash(&payload)), (announced, crc));
    let view = BatchView::parse(&payload).unwrap();
    assert_eq!(view.commands().unwrap(), asked);
    assert_eq!(view.message_count(), made.len());
    for ((row, hashes), (head, parts)) in view.rows().zip(&made) {
        assert_eq!((row.head, row.queue), (*head, parts.queue));
        let rolled_back =
            parts.flags[1] & stored::FLAG_TRANSACTION_MASK == stored::FLAG_TRANSACTION_ROLLBACK;
        let keys: Vec<u32> = stored::keys(parts.properties.as_bytes())
            .take(if rolled_back { 0 } else { 255 })
            .map(|key| stored::key_hash(&parts.topic, key))
            .collect();
        assert_eq!(hashes.collect::<Vec<_>>(), keys);
        parts.check(view.message(&row), store_time_ms);
    }
}

pub(crate) fn command_of(input: &mut Input<'_>) -> Command {
    let name = input.text();
    match input.byte() % 6 {
        0 => {
            let mut config = TopicConfig::new(name, input.u16());
            config.attributes.insert(input.text(), input.text());
            Command::PutTopic { config }
        }
        1 => Command::DeleteTopic { name },
        2 => Command::CommitOffsets {
            entries: vec![OffsetCommit {
                group: name,
                topic: input.text(),
                queue: input.u16(),
                offset: QueueOffset::new(input.u64()),
            }],
            advance_only: input.flag(),
        },
        3 => Command::LockQueues {
            group: name,
            client: input.text(),
            queues: vec![(input.text(), input.u16())],
        },
        4 => Command::PutKv {
            namespace: name,
            key: input.text(),
            value: input.text(),
        },
        _ => Command::TermStart,
    }
}

fn commands(input: &mut Input<'_>) {
    if input.flag() {
        let made: Vec<Command> = (0..input.byte() % 6).map(|_| command_of(input)).collect();
        assert_eq!(decode_commands(&encode_commands(&made)).unwrap(), made);
        let text = input.text();
        let built = properties::Builder::from_text(&text).finish();
        assert!(properties::iter(&built).eq(properties::iter(&text)));
        return;
    }
    // What arrives from a peer is not what was made here.
    if let Ok(commands) = decode_commands(input.rest()) {
        assert_eq!(
            decode_commands(&encode_commands(&commands)).unwrap(),
            commands
        );
    }
}

/// What a decoder takes, it takes again after encoding it, and then nothing changes any more.
fn on_disk(input: &mut Input<'_>) {
    let format = Format::ALL[input.below(Format::ALL.len())];
    let sealed = input.flag();
    let bytes = input.rest();
    let bytes = if sealed {
        format.seal(bytes)
    } else {
        bytes.to_vec()
    };
    let Some(once) = format.again(&bytes) else {
        return;
    };
    let twice = format.again(&once);
    assert_eq!(twice.as_ref(), Some(&once), "{format:?}");
}
