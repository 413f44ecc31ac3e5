//! The client against nodes that misbehave.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_protocol::bodies::{BrokerData, QueueData, TopicRoute, perm};
use gantry_protocol::headers::{PullResponse, SendRequest, SendResponse};
use gantry_protocol::json::Dialect;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::*;

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(20);

/// Reads requests off a connection.
struct Requests {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Requests {
    async fn accept(listener: &TcpListener) -> Requests {
        let (stream, _) = listener.accept().await.unwrap();
        Requests {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// `None` when the client has closed the connection.
    async fn next(&mut self) -> Option<RemotingCommand> {
        loop {
            if let Some(frame) = frame::cut(&mut self.buffer).unwrap() {
                return Some(RemotingCommand::decode(frame).unwrap());
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn answer(&mut self, answer: RemotingCommand) {
        let mut bytes = BytesMut::new();
        answer.encode_into(&mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A node that answers every request with what the function makes of it; `None` closes the connection.
async fn node(
    answer: impl Fn(&RemotingCommand) -> Option<RemotingCommand> + Clone + Send + 'static,
) -> String {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let mut requests = Requests::accept(&listener).await;
            let answer = answer.clone();
            tokio::spawn(async move {
                while let Some(request) = requests.next().await {
                    match answer(&request) {
                        Some(answer) => requests.answer(answer).await,
                        None => return,
                    }
                }
            });
        }
    });
    address
}

/// A name server that knows one route, whatever the topic.
async fn name_server(brokers: &[(&str, &str)]) -> String {
    let mut route = TopicRoute::default();
    for (name, address) in brokers {
        route.queue_datas.push(QueueData {
            broker_name: name.to_string(),
            perm: perm::READ | perm::WRITE,
            read_queue_nums: 1,
            write_queue_nums: 1,
            topic_sys_flag: 0,
        });
        route.broker_datas.push(BrokerData {
            broker_name: name.to_string(),
            broker_addrs: [(0, address.to_string())].into(),
            ..BrokerData::default()
        });
    }
    let body = Bytes::from(route.encode(Dialect::Quoted));
    node(move |request| Some(RemotingCommand::success_to(request).with_body(body.clone()))).await
}

/// Acknowledges a send at offset 7.
fn acknowledge(request: &RemotingCommand) -> Option<RemotingCommand> {
    let header = SendRequest::parse(request.request_code(), &request.fields).unwrap();
    let mut answer = RemotingCommand::success_to(request);
    let (msg_id, queue_id) = ("ID", header.queue_id);
    SendResponse {
        msg_id,
        queue_id,
        queue_offset: 7,
        ..Default::default()
    }
    .write(&mut answer.fields);
    Some(answer)
}

fn refuse(code: ResponseCode) -> impl Fn(&RemotingCommand) -> Option<RemotingCommand> + Clone {
    move |request| Some(RemotingCommand::response_to(request, code, "because"))
}

fn ask(key: &str) -> RemotingCommand {
    let mut request = RemotingCommand::request(RequestCode::GET_MAX_OFFSET, 0);
    request.fields.push("key", key);
    request
}

fn outgoing() -> Outgoing {
    Outgoing {
        body: Bytes::from_static(b"body"),
        ..Outgoing::default()
    }
}

#[tokio::test]
async fn answers_in_any_order_find_their_requests() {
    let (listener, address) = listen().await;
    let client = Client::new(&address).unwrap();
    let (first_came, first_seen) = oneshot::channel();
    let server = async {
        let mut requests = Requests::accept(&listener).await;
        let first = requests.next().await.unwrap();
        first_came.send(()).unwrap();
        let second = requests.next().await.unwrap();
        for request in [second, first] {
            let mut answer = RemotingCommand::success_to(&request);
            answer
                .fields
                .push("key", request.fields.get("key").unwrap());
            requests.answer(answer).await;
        }
        requests
    };
    // The second goes out while the first waits, so over the same connection.
    let calls = async {
        let second = async {
            first_seen.await.unwrap();
            client.call(&address, ask("b"), LONG).await
        };
        tokio::join!(client.call(&address, ask("a"), LONG), second)
    };
    let (_requests, (a, b)) = tokio::join!(server, calls);
    assert_eq!(a.unwrap().fields.get("key"), Some("a"));
    assert_eq!(b.unwrap().fields.get("key"), Some("b"));
}

#[tokio::test]
async fn a_broken_connection_fails_at_once_and_the_next_call_connects_again() {
    let (listener, address) = listen().await;
    let client = Client::new(&address).unwrap();
    let server = async {
        let mut requests = Requests::accept(&listener).await;
        requests.next().await.unwrap();
        drop(requests);
        let mut requests = Requests::accept(&listener).await;
        let request = requests.next().await.unwrap();
        requests.answer(RemotingCommand::success_to(&request)).await;
        requests
    };
    let calls = async {
        let broken = client.call(&address, ask("a"), LONG).await.unwrap_err();
        assert_eq!(
            broken,
            ClientError::Closed {
                address: address.clone()
            }
        );
        client.call(&address, ask("b"), LONG).await.unwrap()
    };
    let (_requests, answer) = tokio::join!(server, calls);
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
}

#[tokio::test]
async fn silence_and_nonsense_are_errors() {
    let (_silent, address) = listen().await;
    let client = Client::new(&address).unwrap();
    let late = client.call(&address, ask("a"), SHORT).await.unwrap_err();
    assert!(
        matches!(late, ClientError::TimedOut { timeout_ms: 50, .. }),
        "{late}"
    );

    let (listener, address) = listen().await;
    let client = Client::new(&address).unwrap();
    let server = async {
        let mut requests = Requests::accept(&listener).await;
        requests.next().await.unwrap();
        requests
            .stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        requests
    };
    let (_requests, answer) = tokio::join!(server, client.call(&address, ask("a"), LONG));
    assert_eq!(
        answer.unwrap_err(),
        ClientError::Closed {
            address: address.clone()
        }
    );
}

#[tokio::test]
async fn a_send_goes_to_another_broker_when_one_is_gone_or_refuses_for_now() {
    let good = node(acknowledge).await;
    let busy = node(refuse(ResponseCode::SERVICE_NOT_AVAILABLE)).await;
    let gone = node(|_| None).await;
    for bad in [&busy, &gone] {
        let server = name_server(&[("good", &good), ("bad", bad)]).await;
        let producer = Producer::new(Arc::new(Client::new(&server).unwrap()), "t");
        let mut attempts = Vec::new();
        for _ in 0..4 {
            let acked = producer.send(&outgoing()).await.unwrap();
            assert_eq!((acked.broker.as_str(), acked.offset), ("good", 7));
            attempts.push(acked.attempts);
        }
        assert!(
            attempts.contains(&2) && !attempts.contains(&3),
            "{attempts:?}"
        );
    }
}

#[tokio::test]
async fn a_send_that_no_broker_would_take_is_refused_once() {
    let strict = node(refuse(ResponseCode::MESSAGE_ILLEGAL)).await;
    let server = name_server(&[("a", &strict), ("b", &strict)]).await;
    let producer = Producer::new(Arc::new(Client::new(&server).unwrap()), "t");
    let failure = producer.send(&outgoing()).await.unwrap_err();
    assert_eq!(
        (failure.attempts, failure.last.code()),
        (1, Some(ResponseCode::MESSAGE_ILLEGAL))
    );
    assert!(failure.to_string().contains("because"), "{failure}");
}

#[tokio::test]
async fn a_pull_beyond_the_queue_says_where_to_go_on() {
    let address = node(|request| {
        let mut answer = RemotingCommand::response_to(request, ResponseCode::PULL_OFFSET_MOVED, "");
        let header = PullResponse {
            next_begin_offset: 5,
            min_offset: 5,
            max_offset: 9,
            ..Default::default()
        };
        header.write(&mut answer.fields);
        Some(answer)
    })
    .await;
    let client = Client::new(&address).unwrap();
    let group = BrokerGroup {
        name: "a".into(),
        cluster: "c".into(),
        addresses: [(0, address)].into(),
    };
    let at = QueueAt {
        group,
        topic: "t".into(),
        queue: 0,
        consumer: "c".into(),
        sql: None,
    };
    let pulled = client.pull(&at, 99, Duration::ZERO).await.unwrap();
    assert!(pulled.moved && pulled.messages.is_empty());
    assert_eq!((pulled.next, pulled.min, pulled.max), (5, 5, 9));
}

#[tokio::test]
async fn what_a_broker_asks_is_heard_as_long_as_there_is_room() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut requests = Requests::accept(&listener).await;
        while let Some(request) = requests.next().await {
            let question = RemotingCommand::request(RequestCode::CHECK_TRANSACTION_STATE, 7);
            requests.answer(question).await;
            requests.answer(RemotingCommand::success_to(&request)).await;
        }
    });
    let (asked, mut heard) = mpsc::channel(1);
    let client = Client::new(&address).unwrap().listening(asked);
    for _ in 0..2 {
        let request = RemotingCommand::request(RequestCode::HEART_BEAT, 0);
        client.ask(&address, request, LONG).await.unwrap();
    }
    let question = heard.try_recv().unwrap();
    let code = question.request_code();
    assert_eq!(code, RequestCode::CHECK_TRANSACTION_STATE);
    assert!(heard.try_recv().is_err(), "there was room for one");
}
