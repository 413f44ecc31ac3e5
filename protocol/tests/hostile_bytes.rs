//! Bytes of a hostile or broken peer: every decoder answers with a value or an error, whatever it
//! is given, and what it accepts means the same after another trip over the wire.
//!
//! The generator is seeded, so a failure repeats; its seed and case are in the panic message.

#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use gantry_protocol::batch::{self, BatchMessage};
use gantry_protocol::bodies::{
    ClusterInfo, ConsumeStats, GroupConfig, Heartbeat, LockRequest, ResetOffsets, TopicRoute,
};
use gantry_protocol::headers::{PullRequest, SendRequest, UpdateConsumerOffsetRequest};
use gantry_protocol::message::Message;
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::{
    Encoding, Frame, RemotingCommand, RequestCode, frame, json, properties, topic,
};

const CASES: u64 = 40_000;

/// A small xorshift generator.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Some damage: flipped bits, interesting bytes, cuts, repeats and foreign pieces.
fn damage(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => {
                bytes[at] = *b"\0\x01\x7F\x80\xFF{}[]\"':,\\"
                    .get(random.below(14))
                    .unwrap();
            }
            2 => bytes.truncate(at),
            3 => {
                let length = random.below(16);
                let piece = random.bytes(length);
                bytes.splice(at..at, piece);
            }
            4 => {
                let end = at + random.below(bytes.len() - at);
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let end = at + random.below(bytes.len() - at);
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

/// Runs `check` on damaged forms of the originals and on noise. Returns how many of them `check`
/// found acceptable.
fn bombard(seed: u64, originals: &[Vec<u8>], check: impl Fn(&[u8]) -> bool) -> u64 {
    let mut random = Random::new(seed);
    let mut accepted = 0;
    for case in 0..CASES {
        let input = if case % 16 == 0 {
            let length = random.below(200);
            random.bytes(length)
        } else {
            damage(&originals[random.below(originals.len())], &mut random)
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&input)));
        let Ok(is_accepted) = outcome else {
            panic!("seed {seed}, case {case}: panicked on {input:?}");
        };
        accepted += u64::from(is_accepted);
    }
    accepted
}

/// Damage must be neither always fatal nor never noticed, or the test proves nothing.
fn assert_mixed(accepted: u64) {
    assert!(
        (CASES / 1000..CASES - CASES / 1000).contains(&accepted),
        "{accepted} accepted"
    );
}

fn command(encoding: Encoding) -> RemotingCommand {
    let mut command = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, 7);
    command.encoding = encoding;
    command.remark = Some("a remark".into());
    let header = SendRequest {
        producer_group: "group",
        topic: "topic",
        default_topic: "TBW102",
        properties: Some("KEYS\u{1}k\u{2}TAGS\u{1}\u{e9}\u{2}"),
        batch: Some(false),
        ..SendRequest::default()
    };
    header.write(RequestCode::SEND_MESSAGE_V2, &mut command.fields);
    command.with_body("body bytes")
}

fn frame_of(command: &RemotingCommand) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    command.encode_into(&mut buffer).unwrap();
    buffer.to_vec()
}

fn decode_again(command: &RemotingCommand) -> RemotingCommand {
    let mut buffer = BytesMut::from(&frame_of(command)[..]);
    let frame = frame::cut(&mut buffer).unwrap().unwrap();
    assert!(buffer.is_empty());
    RemotingCommand::decode(frame).unwrap()
}

/// Also reads the fields as several headers, which must not panic on any of them.
fn check_command(frame: Frame) -> bool {
    let Ok(command) = RemotingCommand::decode(frame) else {
        return false;
    };
    assert_eq!(decode_again(&command), command);
    let code = RequestCode::SEND_MESSAGE_V2;
    let accepted = SendRequest::parse(code, &command.fields).is_ok();
    let _ = SendRequest::parse(RequestCode::SEND_MESSAGE, &command.fields);
    let _ = PullRequest::parse(&command.fields);
    let _ = UpdateConsumerOffsetRequest::parse(&command.fields);
    accepted
}

#[test]
fn streams_of_damaged_frames() {
    let frames = [Encoding::Json, Encoding::RocketMq].map(|encoding| frame_of(&command(encoding)));
    let accepted = bombard(
        1,
        &[frames.concat(), frames[0].clone(), frames[1].clone()],
        |input| {
            let mut buffer = BytesMut::from(input);
            let mut is_accepted = false;
            loop {
                let before = buffer.len();
                match frame::cut(&mut buffer) {
                    Ok(Some(frame)) => {
                        let taken = frame::PREFIX_BYTES + frame.header.len() + frame.body.len();
                        assert_eq!(before - buffer.len(), taken);
                        is_accepted |= check_command(frame);
                    }
                    Ok(None) | Err(_) => {
                        assert_eq!(buffer.len(), before);
                        return is_accepted;
                    }
                }
            }
        },
    );
    assert_mixed(accepted);
}

#[test]
fn damaged_headers_in_intact_frames() {
    for (seed, encoding) in [(2, Encoding::Json), (3, Encoding::RocketMq)] {
        let mut whole = BytesMut::from(&frame_of(&command(encoding))[..]);
        let header = frame::cut(&mut whole).unwrap().unwrap().header.to_vec();
        let accepted = bombard(seed, &[header], |input| {
            let header = Bytes::copy_from_slice(input);
            check_command(Frame {
                encoding,
                header,
                body: Bytes::new(),
            })
        });
        assert_mixed(accepted);
    }
}

#[test]
fn damaged_bodies() {
    let originals = [
        r#"{"brokerDatas":[{"brokerAddrs":{0:"a:1",1:"b:2"},"brokerName":"b","cluster":"c"}],
            "queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":4}]}"#,
        r#"{"clientID":"c","consumerDataSet":[{"consumeType":"CONSUME_POP","groupName":"g",
            "subscriptionDataSet":[{"codeSet":[1],"subVersion":"5","topic":"\u00e9"}]}]}"#,
        r#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"t"}:5}}"#,
        r#"{"clientId":"c","consumerGroup":"g","mqSet":[{"brokerName":"b","queueId":3,
            "topic":"t"}],"onlyThisBroker":true}"#,
    ];
    let accepted = bombard(
        4,
        &originals.map(|text| text.as_bytes().to_vec()),
        |input| {
            let route = TopicRoute::decode(input);
            if let Ok(route) = &route {
                for dialect in [json::Dialect::Quoted, json::Dialect::Unquoted] {
                    assert_eq!(&TopicRoute::decode(&route.encode(dialect)).unwrap(), route);
                }
            }
            if let Ok(heartbeat) = Heartbeat::decode(input) {
                assert_eq!(Heartbeat::decode(&heartbeat.encode()).unwrap(), heartbeat);
            }
            if let Ok(offsets) = ResetOffsets::decode(input) {
                assert_eq!(ResetOffsets::decode(&offsets.encode()).unwrap(), offsets);
            }
            let _ = LockRequest::decode(input);
            let _ = ClusterInfo::decode(input);
            let _ = ConsumeStats::decode(input);
            let _ = GroupConfig::decode(input);
            route.is_ok()
        },
    );
    assert_mixed(accepted);
}

#[test]
fn standard_json_means_the_same_to_both_readers() {
    let original = br#"{"a":[1,-2.5,true,null,"x\u0041\n"],"b":{"c":{"d":""}},"e":1e3}"#.to_vec();
    let accepted = bombard(5, &[original], |input| {
        let ours = json::parse(input);
        if let Ok(standard) = serde_json::from_slice::<serde_json::Value>(input) {
            assert_eq!(ours.as_ref(), Ok(&standard));
        }
        ours.is_ok()
    });
    assert_mixed(accepted);
}

#[test]
fn damaged_batches() {
    let mut body = BytesMut::new();
    for properties in ["KEYS\u{1}k\u{2}", "", "\u{e9}\u{1}v"] {
        batch::encode(
            &BatchMessage {
                flag: 1,
                body: b"some bytes",
                properties,
            },
            &mut body,
        );
    }
    let accepted = bombard(6, &[body.to_vec()], |input| {
        let messages: Result<Vec<_>, _> = batch::decode(input).collect();
        let Ok(messages) = messages else {
            return false;
        };
        let mut again = BytesMut::new();
        for message in &messages {
            assert!(properties::iter(message.properties).count() <= message.properties.len());
            batch::encode(message, &mut again);
        }
        assert_eq!(again.len(), input.len());
        true
    });
    assert_mixed(accepted);
}

#[test]
fn damaged_stored_messages() {
    let mut stored = vec![0, 0, 0, 104, 0xDA, 0xA3, 0x20, 0xA7];
    stored.extend([7; 28]);
    stored.extend([0, 0, 0, 0]);
    stored.extend([1; 8]);
    stored.extend([10, 0, 0, 1, 0, 0, 0, 80]);
    stored.extend([2; 8]);
    stored.extend([10, 0, 0, 2, 0, 0, 0, 81]);
    stored.extend([0; 12]);
    stored.extend(b"\0\0\0\x05hello\x01T\0\x07TAGS\x01A\x02");
    assert_eq!(stored.len(), 104);
    let accepted = bombard(7, &[stored.clone(), stored.repeat(2)], |input| {
        let Ok(messages) = Message::decode_all(Bytes::copy_from_slice(input)) else {
            return false;
        };
        let stored_bytes: usize = messages.iter().map(|message| message.stored_bytes).sum();
        assert_eq!(stored_bytes, input.len());
        !messages.is_empty()
    });
    assert_mixed(accepted);
}

#[test]
fn damaged_names_and_ids() {
    let originals = [
        b"%RETRY%group_A-1".to_vec(),
        b"7F00000100002A9F0000000000000100".to_vec(),
    ];
    let accepted = bombard(8, &originals, |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return false;
        };
        if let Ok(id) = text.parse::<OffsetMessageId>() {
            assert_eq!(id.to_string(), text.to_ascii_uppercase());
        }
        topic::check_topic(text).is_ok()
    });
    assert_mixed(accepted);
}
