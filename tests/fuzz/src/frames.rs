//! Remoting frames and headers, in both encodings, arriving in any pieces.

use bytes::{Bytes, BytesMut};
use gantry_protocol::bodies::{
    AllGroupConfig, ClusterInfo, ConsumeStats, GroupConfig, GroupConfigList, Heartbeat,
    LockRequest, ResetOffsets, SubscriptionCheck, TopicConfigList, TopicRoute, TopicStats,
};
use gantry_protocol::frame::{self, FrameError, PREFIX_BYTES};
use gantry_protocol::headers::{
    PullRequest, QueryMessageRequest, SendRequest, UpdateConsumerOffsetRequest,
};
use gantry_protocol::json::{self, Dialect};
use gantry_protocol::{Encoding, Frame, RemotingCommand, RequestCode};

use crate::input::Input;

/// The first byte chooses: a stream cut into pieces, one header, or one body.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => stream(&mut input),
        1 => header(Encoding::Json, input.rest()),
        2 => header(Encoding::RocketMq, input.rest()),
        _ => body(input.rest()),
    }
}

/// What comes of a stream must not depend on how it is cut.
fn stream(input: &mut Input<'_>) {
    let mut step = usize::from(input.byte());
    let stream = input.rest();
    let mut whole = BytesMut::from(stream);
    let (expected, ended) = cut_all(&mut whole);

    let mut pieces = BytesMut::new();
    let mut found = Vec::new();
    let mut error = None;
    let mut rest = stream;
    while !rest.is_empty() && error.is_none() {
        let (piece, after) = rest.split_at((step % 61 + 1).min(rest.len()));
        rest = after;
        step = step * 7 + 3;
        step %= 1 << 16;
        pieces.extend_from_slice(piece);
        let (frames, outcome) = cut_all(&mut pieces);
        found.extend(frames);
        error = outcome;
    }
    assert_eq!(found, expected, "frames depend on how the stream is cut");
    assert_eq!(error, ended, "the error depends on how the stream is cut");
    for frame in expected {
        if let Ok(command) = RemotingCommand::decode(frame) {
            check_command(&command);
        }
    }
}

fn cut_all(buffer: &mut BytesMut) -> (Vec<Frame>, Option<FrameError>) {
    let mut frames = Vec::new();
    loop {
        let before = buffer.len();
        match frame::cut(buffer) {
            Ok(Some(frame)) => {
                let taken = PREFIX_BYTES + frame.header.len() + frame.body.len();
                assert_eq!(before - buffer.len(), taken, "bytes taken for a frame");
                frames.push(frame);
            }
            Ok(None) => return (frames, None),
            Err(error) => {
                assert_eq!(buffer.len(), before, "an error leaves the buffer alone");
                return (frames, Some(error));
            }
        }
    }
}

fn header(encoding: Encoding, bytes: &[u8]) {
    let frame = Frame {
        encoding,
        header: Bytes::copy_from_slice(bytes),
        body: Bytes::new(),
    };
    if let Ok(command) = RemotingCommand::decode(frame) {
        check_command(&command);
    }
}

/// A command means the same after another trip, and typed headers can be asked for whatever is in it.
pub(crate) fn check_command(command: &RemotingCommand) {
    let mut buffer = BytesMut::new();
    if command.encode_into(&mut buffer).is_err() {
        return;
    }
    let frame = frame::cut(&mut buffer).unwrap().expect("a whole frame");
    assert!(buffer.is_empty(), "one command is one frame");
    let again = RemotingCommand::decode(frame).unwrap();
    assert_eq!(&again, command, "a command after another trip");
    for code in [RequestCode::SEND_MESSAGE, RequestCode::SEND_MESSAGE_V2] {
        if let Ok(send) = SendRequest::parse(code, &command.fields) {
            let mut fields = gantry_protocol::Fields::new();
            send.write(code, &mut fields);
            assert_eq!(SendRequest::parse(code, &fields), Ok(send));
        }
    }
    if let Ok(pull) = PullRequest::parse(&command.fields) {
        let mut fields = gantry_protocol::Fields::new();
        pull.write(&mut fields);
        assert_eq!(PullRequest::parse(&fields), Ok(pull));
    }
    drop(UpdateConsumerOffsetRequest::parse(&command.fields));
    drop(QueryMessageRequest::parse(&command.fields));
}

/// JSON bodies. What is accepted means the same after another trip.
fn body(bytes: &[u8]) {
    if let Ok(value) = json::parse(bytes) {
        let mut text = Vec::new();
        json::write(&value, &mut text);
        assert_eq!(json::parse(&text).as_ref(), Ok(&value), "{bytes:?}");
    }
    if let Ok(route) = TopicRoute::decode(bytes) {
        for dialect in [Dialect::Quoted, Dialect::Unquoted] {
            assert_eq!(TopicRoute::decode(&route.encode(dialect)).unwrap(), route);
        }
    }
    if let Ok(heartbeat) = Heartbeat::decode(bytes) {
        assert_eq!(Heartbeat::decode(&heartbeat.encode()).unwrap(), heartbeat);
    }
    if let Ok(offsets) = ResetOffsets::decode(bytes) {
        assert_eq!(ResetOffsets::decode(&offsets.encode()).unwrap(), offsets);
    }
    if let Ok(config) = GroupConfig::decode(bytes) {
        assert_eq!(GroupConfig::decode(&config.encode()).unwrap(), config);
    }
    drop(LockRequest::decode(bytes));
    drop(ClusterInfo::decode(bytes));
    drop(ConsumeStats::decode(bytes));
    drop(TopicStats::decode(bytes));
    drop(GroupConfigList::decode(bytes));
    drop(AllGroupConfig::decode(bytes));
    drop(TopicConfigList::decode(bytes));
    drop(SubscriptionCheck::decode(bytes));
}
