//! What clients send that they should not: each is answered with the field's code and a reason, or the
//! connection ends; nobody else notices, and nothing is stored.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::ErrorKind;

use bytes::{BufMut, BytesMut};
use gantry_protocol::headers::{PullRequest, SendRequest};
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use support::{Connection, OneNode};

fn send(topic: &str, queue_id: i32, body: usize, properties: &str) -> RemotingCommand {
    let header = SendRequest {
        producer_group: "P",
        topic,
        default_topic: "TBW102",
        default_topic_queue_nums: 4,
        queue_id,
        born_timestamp: 1,
        properties: Some(properties),
        ..SendRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, 0);
    header.write(RequestCode::SEND_MESSAGE_V2, &mut request.fields);
    request.with_body(vec![b'x'; body])
}

fn pull(topic: &str, queue_id: i32) -> RemotingCommand {
    let header = PullRequest {
        consumer_group: "C",
        topic,
        queue_id,
        max_msg_nums: 32,
        sys_flag: 4,
        subscription: Some("*"),
        ..PullRequest::default()
    };
    let mut request = RemotingCommand::request(RequestCode::PULL_MESSAGE, 0);
    header.write(&mut request.fields);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let node = OneNode::start().await;
    let mut client = node.connect().await;
    let stored = client.ask(send("Good", 0, 10, "")).await;
    assert_eq!(stored.response_code(), ResponseCode::SUCCESS, "{stored:?}");
    let long_name = "t".repeat(300);
    let wide = "p".repeat(40_000);
    let mut without_topic = send("Good", 0, 10, "");
    without_topic.fields.remove("b");
    let mut words_for_numbers = send("Good", 0, 10, "");
    words_for_numbers.fields.set("e", "first");
    let refused = [
        (send("Good", 99, 10, ""), ResponseCode::INVALID_PARAMETER),
        (send("a b", 0, 10, ""), ResponseCode::INVALID_PARAMETER),
        (send("", 0, 10, ""), ResponseCode::INVALID_PARAMETER),
        (send(&long_name, 0, 10, ""), ResponseCode::INVALID_PARAMETER),
        (
            send("SCHEDULE_TOPIC_XXXX", 0, 10, ""),
            ResponseCode::NO_PERMISSION,
        ),
        (send("Good", 0, 0, ""), ResponseCode::MESSAGE_ILLEGAL),
        (
            send("Good", 0, (4 << 20) + 1, ""),
            ResponseCode::MESSAGE_ILLEGAL,
        ),
        (send("Good", 0, 10, &wide), ResponseCode::MESSAGE_ILLEGAL),
        (
            send("Good", 0, 10, "DELAY\u{1}soon\u{2}"),
            ResponseCode::MESSAGE_ILLEGAL,
        ),
        (without_topic, ResponseCode::SYSTEM_ERROR),
        (words_for_numbers, ResponseCode::SYSTEM_ERROR),
        (pull("Nowhere", 0), ResponseCode::TOPIC_NOT_EXIST),
        (pull("Good", 77), ResponseCode::SYSTEM_ERROR),
        (
            RemotingCommand::request(RequestCode(54_321), 0),
            ResponseCode::REQUEST_CODE_NOT_SUPPORTED,
        ),
    ];
    for (request, wanted) in refused {
        let answer = client.ask(request).await;
        assert_eq!(answer.response_code(), wanted, "{answer:?}");
        assert!(answer.remark.is_some_and(|remark| !remark.is_empty()));
    }
    let again = client.ask(send("Good", 0, 10, "")).await;
    let offset: i64 = again.fields.read("queueOffset").unwrap();
    assert_eq!(offset, 1, "only what was accepted is stored");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_frames_end_the_connection_and_nothing_else() {
    let node = OneNode::start().await;
    let mut bystander = node.connect().await;
    let mut frames: Vec<Vec<u8>> = vec![
        vec![0xff; 64],
        vec![0; 64],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [
            &64u32.to_be_bytes()[..],
            &[0, 0xff, 0xff, 0xff],
            &[b'{'; 56],
        ]
        .concat(),
        [&20u32.to_be_bytes()[..], &[9, 0, 0, 2], b"{}"].concat(),
        [&((32u32 << 20).to_be_bytes())[..], &[0, 0, 0, 2], b"{}"].concat(),
    ];
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..50 {
        let mut bytes = BytesMut::new();
        for _ in 0..32 {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bytes.put_u64(noise);
        }
        frames.push(bytes.to_vec());
    }
    for bytes in frames {
        let mut stream = TcpStream::connect(node.group_address).await.unwrap();
        // The broker may have hung up before all is written.
        let written = stream.write_all(&bytes).await.and(stream.shutdown().await);
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest).await;
        for outcome in [written, read.map(drop)] {
            let reset = [
                ErrorKind::ConnectionReset,
                ErrorKind::BrokenPipe,
                ErrorKind::NotConnected,
            ];
            assert!(outcome.is_ok() || reset.contains(&outcome.unwrap_err().kind()));
        }
        assert!(rest.is_empty(), "an answer to {bytes:?}");
    }
    let answer = bystander.ask(send("Good", 0, 10, "")).await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_comes_byte_by_byte_is_served_and_a_cut_one_is_not() {
    let node = OneNode::start().await;
    let mut frame = BytesMut::new();
    send("Slow", 0, 10, "").encode_into(&mut frame).unwrap();
    let mut slow: Connection = node.connect().await;
    for byte in &frame[..] {
        slow.write(&[*byte]).await;
    }
    assert_eq!(slow.answer().await.response_code(), ResponseCode::SUCCESS);
    let mut cut = node.connect().await;
    cut.write(&frame[..frame.len() - 1]).await;
    assert!(cut.ended().await, "half a frame is no request");
    let answer = slow.ask(send("Slow", 0, 10, "")).await;
    let offset: i64 = answer.fields.read("queueOffset").unwrap();
    assert_eq!(offset, 1, "the cut send left nothing");
    node.stop().await;
}

/// Frames that are announced and do not come leave room for those that do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_frames_at_once_are_all_served() {
    let node = OneNode::start().await;
    let mut creator = node.connect().await;
    creator.ask(send("Large", 0, 10, "")).await;
    let mut half = BytesMut::new();
    send("Large", 0, 4 << 20, "")
        .encode_into(&mut half)
        .unwrap();
    half.truncate(half.len() / 2);
    let mut stopped = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(node.group_address).await.unwrap();
        stream.write_all(&half).await.unwrap();
        stopped.push(stream);
    }
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let mut client = node.connect().await;
        senders.spawn(async move { client.ask(send("Large", 0, 4 << 20, "")).await });
    }
    while let Some(answer) = senders.join_next().await {
        let answer = answer.unwrap();
        let codes = [ResponseCode::SUCCESS, ResponseCode::SERVICE_NOT_AVAILABLE];
        assert!(codes.contains(&answer.response_code()), "{answer:?}");
    }
    drop(stopped);
    node.stop().await;
}
