//! A node of a cluster of one, in this process, and a connection that says whatever it is told to.

pub mod ports;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use gantry::config::ConfigFile;
use gantry_protocol::{RemotingCommand, frame};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use self::ports::Hundred;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A running node with one group.
pub struct OneNode {
    /// Where the group's clients connect.
    pub group_address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
    place: Place,
}

/// Where a node is: its directory, its ports, and the configuration that names both.
struct Place {
    configuration: String,
    http: SocketAddr,
    group: SocketAddr,
    _directory: TempDir,
    _ports: Hundred,
}

impl OneNode {
    /// Starts a node in a fresh directory; returns when its group takes writes.
    pub async fn start() -> OneNode {
        let directory = TempDir::new().unwrap();
        let ports = Hundred::claim();
        let [namesrv, http, peer, group] = [0, 1, 3, 4].map(|nth| ports.first + nth);
        let text = format!(
            r#"
            node = 1
            data = {:?}
            peers = [{{ node = 1, address = "127.0.0.1:{peer}" }}]
            groups = [{{ name = "broker-a" }}]
            peer = {{ bind = "127.0.0.1:{peer}" }}
            http = {{ bind = "127.0.0.1:{http}" }}
            storage = {{ segment_bytes = "16MiB" }}
            [[listener]]
            name = "local"
            bind = "127.0.0.1"
            nodes = [{{ node = 1, host = "127.0.0.1", namesrv = {namesrv}, groups = [{group}] }}]
            "#,
            directory.path()
        );
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self::start_in(Place {
            configuration: text,
            http: local(http),
            group: local(group),
            _directory: directory,
            _ports: ports,
        })
        .await
    }

    async fn start_in(place: Place) -> OneNode {
        let file = ConfigFile::parse(&place.configuration).unwrap();
        let config = file.resolve().unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            let until = async { drop(stopped.await) };
            gantry::node::run(config, until).await.unwrap();
        });
        let node = OneNode {
            group_address: place.group,
            stop,
            running,
            place,
        };
        node.wait_until_ready(node.place.http).await;
        node
    }

    async fn wait_until_ready(&self, http: SocketAddr) {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(mut stream) = TcpStream::connect(http).await {
                let request = b"GET /readyz HTTP/1.1\r\nHost: gantry\r\nConnection: close\r\n\r\n";
                stream.write_all(request).await.unwrap();
                let mut answer = String::new();
                // A node that is just starting may end the connection.
                let read = stream.read_to_string(&mut answer).await;
                if read.is_ok() && answer.starts_with("HTTP/1.1 200") {
                    return;
                }
            }
            assert!(
                !self.running.is_finished(),
                "the node ended while it was starting"
            );
            assert!(
                Instant::now() < deadline,
                "the node is not ready after {START_TIMEOUT:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A connection to the group's port.
    pub async fn connect(&self) -> Connection {
        Connection::over(TcpStream::connect(self.group_address).await.unwrap())
    }

    /// Stops the node as a signal would.
    pub async fn stop(self) {
        drop(self.stopped().await);
    }

    /// Stops the node, and starts it again with what it has on its disk.
    #[allow(dead_code, reason = "not every test needs a second start")]
    pub async fn restart(self) -> OneNode {
        let place = self.stopped().await;
        Self::start_in(place).await
    }

    async fn stopped(self) -> Place {
        self.stop.send(()).unwrap();
        self.running.await.unwrap();
        self.place
    }
}

/// A connection whose every byte the test decides.
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    next_opaque: i32,
}

impl Connection {
    /// A connection that has just been made.
    pub fn over(stream: TcpStream) -> Connection {
        Connection {
            stream,
            buffer: BytesMut::new(),
            next_opaque: 1,
        }
    }

    /// Sends a request and waits for its answer.
    pub async fn ask(&mut self, mut request: RemotingCommand) -> RemotingCommand {
        self.next_opaque += 1;
        request.opaque = self.next_opaque;
        let mut frame = BytesMut::new();
        request.encode_into(&mut frame).unwrap();
        self.write(&frame).await;
        let answer = self.answer().await;
        assert_eq!(answer.opaque, request.opaque, "{answer:?}");
        answer
    }

    /// Writes bytes.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next answer; what the broker asks of its clients is passed over.
    pub async fn answer(&mut self) -> RemotingCommand {
        loop {
            if let Some(frame) = frame::cut(&mut self.buffer).unwrap() {
                let command = RemotingCommand::decode(frame).unwrap();
                if command.is_response() {
                    return command;
                }
                continue;
            }
            let read = timeout(ANSWER_TIMEOUT, self.stream.read_buf(&mut self.buffer));
            let count = read.await.expect("an answer in time").unwrap();
            assert_ne!(count, 0, "the broker hung up");
        }
    }

    /// Ends our side; whether the broker ends its side without an answer.
    pub async fn ended(&mut self) -> bool {
        self.stream.shutdown().await.unwrap();
        let read = timeout(ANSWER_TIMEOUT, self.stream.read_buf(&mut self.buffer));
        matches!(read.await.expect("an end in time"), Ok(0) | Err(_))
    }
}
