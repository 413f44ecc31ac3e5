//! A client that answers what the broker asks of it, as the test says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use gantry_protocol::headers::PullRequest;
use gantry_protocol::{Fields, Language, RemotingCommand, RequestCode, ResponseCode, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a client answers to a request of the broker; none: nothing, ever.
pub type Answers = fn(&RemotingCommand) -> Option<RemotingCommand>;

type Waiting = Arc<Mutex<HashMap<i32, oneshot::Sender<RemotingCommand>>>>;

/// A connected client.
pub struct Member {
    language: Language,
    writing: mpsc::UnboundedSender<RemotingCommand>,
    waiting: Waiting,
    asked: mpsc::UnboundedReceiver<RemotingCommand>,
    next_opaque: i32,
    tasks: JoinSet<()>,
}

impl Member {
    /// Connects.
    pub async fn connect(address: SocketAddr, language: Language, answers: Answers) -> Member {
        let stream = TcpStream::connect(address).await.unwrap();
        let (reading, writer) = stream.into_split();
        let (writing, to_write) = mpsc::unbounded_channel();
        let (tell, asked) = mpsc::unbounded_channel();
        let waiting = Waiting::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(write(writer, to_write));
        let ways = (writing.clone(), tell);
        tasks.spawn(read(reading, waiting.clone(), ways, answers));
        Member {
            language,
            writing,
            waiting,
            asked,
            next_opaque: 100,
            tasks,
        }
    }

    /// Ends the connection.
    pub async fn hang_up(mut self) {
        self.tasks.shutdown().await;
    }

    /// Sends a request and waits for its answer.
    pub async fn ask(&mut self, mut request: RemotingCommand) -> RemotingCommand {
        self.next_opaque += 1;
        request.opaque = self.next_opaque;
        request.language = self.language;
        let (tell, answer) = oneshot::channel();
        self.waiting.lock().unwrap().insert(request.opaque, tell);
        self.writing.send(request).unwrap();
        let answer = timeout(PATIENCE, answer).await;
        answer.expect("an answer in time").expect("a connection")
    }

    /// Asks, and the answer must be a success.
    pub async fn ask_well(&mut self, request: RemotingCommand) -> RemotingCommand {
        let answer = self.ask(request).await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
        answer
    }

    /// The next request of the broker with that code; others are passed over.
    pub async fn asked_for(&mut self, code: RequestCode) -> RemotingCommand {
        loop {
            let asked = timeout(PATIENCE, self.asked.recv()).await;
            let asked = asked.expect("a request in time").expect("a connection");
            if asked.request_code() == code {
                return asked;
            }
        }
    }
}

async fn write(mut socket: OwnedWriteHalf, mut commands: mpsc::UnboundedReceiver<RemotingCommand>) {
    while let Some(command) = commands.recv().await {
        let mut frame = BytesMut::new();
        command.encode_into(&mut frame).unwrap();
        if socket.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn read(
    mut socket: OwnedReadHalf,
    waiting: Waiting,
    (writing, tell): (
        mpsc::UnboundedSender<RemotingCommand>,
        mpsc::UnboundedSender<RemotingCommand>,
    ),
    answers: Answers,
) {
    let mut buffer = BytesMut::new();
    while socket
        .read_buf(&mut buffer)
        .await
        .is_ok_and(|count| count > 0)
    {
        while let Some(frame) = frame::cut(&mut buffer).unwrap() {
            let command = RemotingCommand::decode(frame).unwrap();
            if command.is_response() {
                let waiting = waiting.lock().unwrap().remove(&command.opaque);
                drop(waiting.expect("somebody asked").send(command));
                continue;
            }
            if let Some(answer) = answers(&command) {
                drop(writing.send(answer));
            }
            drop(tell.send(command));
        }
    }
}

/// A request with these header fields.
pub fn request(code: RequestCode, write: impl FnOnce(&mut Fields)) -> RemotingCommand {
    let mut request = RemotingCommand::request(code, 0);
    write(&mut request.fields);
    request
}

/// A pull of everything from an offset, without a wait.
pub fn pull(group: &str, topic: &str, queue_offset: i64) -> RemotingCommand {
    let header = PullRequest {
        consumer_group: group,
        topic,
        queue_offset,
        max_msg_nums: 32,
        sys_flag: 4,
        subscription: Some("*"),
        ..PullRequest::default()
    };
    request(RequestCode::PULL_MESSAGE, |fields| header.write(fields))
}
