//! What the wire costs per request: cutting and decoding a frame, and encoding one, in both encodings.

use bytes::{Bytes, BytesMut};
use divan::{Bencher, black_box};
use gantry_protocol::headers::{PullRequest, PullResponse, SendRequest, SendResponse, pull_flags};
use gantry_protocol::{Encoding, RemotingCommand, RequestCode, frame};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::RocketMq];
const BODY_BYTES: usize = 1024;
/// Room for any frame here, so that no buffer grows while it is timed.
const FRAME_BYTES: usize = 4096;

fn main() {
    divan::main();
}

/// What a stock Java producer sends.
fn send_request() -> SendRequest<'static> {
    SendRequest {
        producer_group: "orders-producer",
        topic: "orders",
        default_topic: "TBW102",
        default_topic_queue_nums: 4,
        queue_id: 3,
        born_timestamp: 1_700_000_000_000,
        properties: Some(
            "UNIQ_KEY\u{1}7F00000100002A139A551C3E1F4B0001\u{2}WAIT\u{1}true\u{2}TAGS\u{1}paid\u{2}",
        ),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        batch: Some(false),
        broker_name: Some("broker-a"),
        ..SendRequest::default()
    }
}

/// What a stock Java push consumer sends.
fn pull_request() -> PullRequest<'static> {
    PullRequest {
        consumer_group: "orders-consumer",
        topic: "orders",
        queue_id: 3,
        queue_offset: 1_234_567,
        max_msg_nums: 32,
        sys_flag: pull_flags::COMMIT_OFFSET | pull_flags::SUSPEND,
        commit_offset: 1_234_535,
        suspend_timeout_millis: 15_000,
        subscription: Some("*"),
        sub_version: Some(1_700_000_000_000),
        expression_type: Some("TAG"),
        ..PullRequest::default()
    }
}

fn send_command(encoding: Encoding, body: Bytes) -> RemotingCommand {
    let mut command = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, 4711).with_body(body);
    command.encoding = encoding;
    send_request().write(RequestCode::SEND_MESSAGE_V2, &mut command.fields);
    command
}

fn pull_command(encoding: Encoding) -> RemotingCommand {
    let mut command = RemotingCommand::request(RequestCode::PULL_MESSAGE, 4711);
    command.encoding = encoding;
    pull_request().write(&mut command.fields);
    command
}

fn body() -> Bytes {
    Bytes::from(vec![b'x'; BODY_BYTES])
}

/// The frame of `command`, as it arrives in a connection's buffer. No larger than it has to be: many of them
/// should fit into the cache.
fn arrived(command: &RemotingCommand) -> BytesMut {
    let mut buffer = BytesMut::new();
    encode(command, &mut buffer);
    buffer
}

fn encode(command: &RemotingCommand, buffer: &mut BytesMut) {
    command
        .encode_into(buffer)
        .expect("a few KiB fit into a frame");
}

fn decode(buffer: &mut BytesMut) -> RemotingCommand {
    let frame = frame::cut(buffer)
        .expect("a frame of ours")
        .expect("all of it");
    RemotingCommand::decode(frame).expect("a header of ours")
}

/// Bytes to typed header: frame, fields, send header. Freeing it all is part of the price.
#[divan::bench(args = ENCODINGS, sample_count = 1000, sample_size = 100)]
fn decode_send(bencher: Bencher, encoding: Encoding) {
    let command = send_command(encoding, body());
    bencher
        .with_inputs(|| arrived(&command))
        .bench_local_values(|mut buffer| {
            let command = decode(&mut buffer);
            let request = SendRequest::parse(command.request_code(), &command.fields);
            black_box(request.expect("a complete header"));
        });
}

/// As [`decode_send`], of a pull.
#[divan::bench(args = ENCODINGS, sample_count = 1000, sample_size = 100)]
fn decode_pull(bencher: Bencher, encoding: Encoding) {
    let command = pull_command(encoding);
    bencher
        .with_inputs(|| arrived(&command))
        .bench_local_values(|mut buffer| {
            let command = decode(&mut buffer);
            let request = PullRequest::parse(&command.fields);
            black_box(request.expect("a complete header"));
        });
}

/// Typed header to bytes, with the body copied behind it, as a client does it.
#[divan::bench(args = ENCODINGS, sample_count = 1000, sample_size = 100)]
fn encode_send(bencher: Bencher, encoding: Encoding) {
    let body = body();
    let mut buffer = BytesMut::with_capacity(FRAME_BYTES);
    bencher.bench_local(|| {
        buffer.clear();
        encode(&send_command(encoding, body.clone()), &mut buffer);
        black_box(buffer.len())
    });
}

/// As [`encode_send`], of a pull.
#[divan::bench(args = ENCODINGS, sample_count = 1000, sample_size = 100)]
fn encode_pull(bencher: Bencher, encoding: Encoding) {
    let mut buffer = BytesMut::with_capacity(FRAME_BYTES);
    bencher.bench_local(|| {
        buffer.clear();
        encode(&pull_command(encoding), &mut buffer);
        black_box(buffer.len())
    });
}

/// The broker's answer to a send.
#[divan::bench(args = ENCODINGS, sample_count = 1000, sample_size = 100)]
fn answer_send(bencher: Bencher, encoding: Encoding) {
    let request = send_command(encoding, Bytes::new());
    let mut buffer = BytesMut::with_capacity(FRAME_BYTES);
    bencher.bench_local(|| {
        buffer.clear();
        let mut answer = RemotingCommand::success_to(&request);
        let header = SendResponse {
            msg_id: "7F00000100002A9F0000000012D68700",
            queue_id: 3,
            queue_offset: 1_234_567,
            ..SendResponse::default()
        };
        header.write(&mut answer.fields);
        encode(&answer, &mut buffer);
        black_box(buffer.len())
    });
}

/// The broker's answer to a pull: all but the messages, which the connection sends behind it.
#[divan::bench(args = ENCODINGS, sample_count = 1000, sample_size = 100)]
fn answer_pull(bencher: Bencher, encoding: Encoding) {
    let request = pull_command(encoding);
    let mut buffer = BytesMut::with_capacity(FRAME_BYTES);
    bencher.bench_local(|| {
        buffer.clear();
        let mut answer = RemotingCommand::success_to(&request);
        let header = PullResponse {
            suggest_which_broker_id: 0,
            next_begin_offset: 1_234_599,
            min_offset: 0,
            max_offset: 2_345_678,
            ..PullResponse::default()
        };
        header.write(&mut answer.fields);
        answer
            .encode_head_into(&mut buffer, 32 * BODY_BYTES)
            .expect("32 KiB fit into a frame");
        black_box(buffer.len())
    });
}
