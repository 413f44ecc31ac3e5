//! A node of a cluster of one, in this process, and a connection that says whatever it is told to.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod cluster;
pub mod messages;
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
    /// Its name server.
    pub namesrv: SocketAddr,
    /// Its HTTP port.
    pub http: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
    place: Place,
}

/// Where a node is: its directory, its ports, and the configuration that names both.
struct Place {
    configuration: String,
    namesrv: SocketAddr,
    http: SocketAddr,
    group: SocketAddr,
    _directory: TempDir,
    _ports: Hundred,
}

impl OneNode {
    /// Starts a node in a fresh directory; returns when its group takes writes.
    pub async fn start() -> OneNode {
        OneNode::start_with("").await
    }

    /// The same with lines for the table `broker` of the configuration.
    pub async fn start_with(settings: &str) -> OneNode {
        OneNode::start_of("", settings).await
    }

    /// The same with further members of the table `storage`, each behind a comma.
    pub async fn start_of(storage: &str, settings: &str) -> OneNode {
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
            storage = {{ segment_bytes = "16MiB"{storage} }}
            [[listener]]
            name = "local"
            bind = "127.0.0.1"
            nodes = [{{ node = 1, host = "127.0.0.1", namesrv = {namesrv}, groups = [{group}] }}]
            [broker]
            {settings}
            "#,
            directory.path()
        );
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self::start_in(Place {
            configuration: text,
            namesrv: local(namesrv),
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
            namesrv: place.namesrv,
            http: place.http,
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
            if is_ready(http).await {
                return;
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
        Connection::to(self.group_address).await
    }

    /// Runs a command of the program against this node; what it prints, line by line.
    pub async fn gantry(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let namesrv = self.namesrv.to_string();
        let run = || {
            std::process::Command::new(env!("CARGO_BIN_EXE_gantry"))
                .args(arguments)
                .args(["--namesrv", &namesrv, "-o", "json"])
                .output()
        };
        let output = tokio::task::block_in_place(run).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    /// Stops the node as a signal would.
    pub async fn stop(self) {
        drop(self.stopped().await);
    }

    /// Stops the node, and starts it again with what it has on its disk.
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

/// Whether the node with this HTTP port says that it is ready.
async fn is_ready(http: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(http).await else {
        return false;
    };
    let request = b"GET /readyz HTTP/1.1\r\nHost: gantry\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    // A node that is just starting or ending may end the connection.
    let written = stream.write_all(request).await.is_ok();
    written
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

/// A connection whose every byte the test decides.
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    next_opaque: i32,
}

impl Connection {
    /// A connection to an address.
    pub async fn to(address: SocketAddr) -> Connection {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

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

    /// The next request of the broker; answers are passed over.
    pub async fn request(&mut self) -> RemotingCommand {
        loop {
            if let Some(frame) = frame::cut(&mut self.buffer).unwrap() {
                let command = RemotingCommand::decode(frame).unwrap();
                if !command.is_response() {
                    return command;
                }
                continue;
            }
            let read = timeout(ANSWER_TIMEOUT, self.stream.read_buf(&mut self.buffer));
            let count = read.await.expect("a request in time").unwrap();
            assert_ne!(count, 0, "the broker hung up");
        }
    }

    /// Whether the broker sends a request within a time.
    pub async fn is_asked_within(&mut self, time: Duration) -> bool {
        timeout(time, self.request()).await.is_ok()
    }

    /// Ends our side; whether the broker ends its side without an answer.
    pub async fn ended(&mut self) -> bool {
        self.stream.shutdown().await.unwrap();
        let read = timeout(ANSWER_TIMEOUT, self.stream.read_buf(&mut self.buffer));
        matches!(read.await.expect("an end in time"), Ok(0) | Err(_))
    }
}
