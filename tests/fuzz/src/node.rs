//! A real node with one group in this process, for targets that need a broker. Started at first use, and
//! anew in an empty directory from time to time, so that what inputs create does not add up.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use gantry::config::ConfigFile;
use gantry_protocol::{RemotingCommand, RequestCode, frame};
use gantry_raft::{CallError, Identity, Peers, TcpTransport};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// Inputs after which a node is replaced.
const INPUTS_MAX: u64 = 20_000;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than anything here may take, also on a busy machine; the fuzzer's own patience is shorter.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A running node and the connections to it.
pub(crate) struct Node {
    client: TcpStream,
    group: SocketAddr,
    peers: Arc<Peers>,
    runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    directory: PathBuf,
    buffer: BytesMut,
    opaque: i32,
    inputs: u64,
}

impl Node {
    /// The node for the next input: `kept`, or a new one.
    pub(crate) fn for_input(kept: &mut Option<Node>) -> &mut Node {
        if kept.as_ref().is_some_and(|node| node.inputs >= INPUTS_MAX) {
            *kept = None;
        }
        let node = kept.get_or_insert_with(Node::start);
        node.inputs += 1;
        node
    }

    fn start() -> Node {
        let first = free_ports();
        let [namesrv, http, peer, group] = [0, 1, 3, 4].map(|nth| first + nth);
        let directory = std::env::temp_dir().join(format!("gantry-fuzz-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&directory));
        let text = format!(
            r#"
            node = 1
            data = {directory:?}
            peers = [{{ node = 1, address = "127.0.0.1:{peer}" }}]
            groups = [{{ name = "broker-a" }}]
            peer = {{ bind = "127.0.0.1:{peer}" }}
            http = {{ bind = "127.0.0.1:{http}" }}
            storage = {{ segment_bytes = "16MiB", flush = "async" }}
            [[listener]]
            name = "local"
            bind = "127.0.0.1"
            nodes = [{{ node = 1, host = "127.0.0.1", namesrv = {namesrv}, groups = [{group}] }}]
            "#
        );
        let config = ConfigFile::parse(&text).unwrap().resolve().unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let until = async { drop(stopped.await) };
            runtime.block_on(gantry::node::run(config, until)).unwrap();
        });
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        wait_until_ready(address(http));
        let runtime = Runtime::new().unwrap();
        let peers = runtime.block_on(async { connect_as_peer(address(peer)) });
        Node {
            client: connect(address(group)),
            group: address(group),
            peers,
            runtime,
            stop: Some(stop),
            running: Some(running),
            directory,
            buffer: BytesMut::new(),
            opaque: 0,
            inputs: 0,
        }
    }

    /// Sends a request; a two-way one is answered once, and a oneway one never.
    pub(crate) fn ask(&mut self, mut request: RemotingCommand) {
        self.opaque = self.opaque.wrapping_add(2);
        request.opaque = self.opaque;
        let mut bytes = BytesMut::new();
        if request.encode_into(&mut bytes).is_err() {
            return;
        }
        self.client.write_all(&bytes).expect("the broker reads");
        let mut owed = usize::from(!request.is_oneway());
        if owed == 1 {
            self.answer_to(request.opaque, &mut owed);
        }
        self.ping(&mut owed, request.opaque);
    }

    /// A request that is always answered: what else was owed has come before the next input.
    fn ping(&mut self, owed: &mut usize, before: i32) {
        let mut ping = RemotingCommand::request(RequestCode::GET_BROKER_CLUSTER_INFO, before + 1);
        ping.opaque = before + 1;
        let mut bytes = BytesMut::new();
        ping.encode_into(&mut bytes).unwrap();
        self.client.write_all(&bytes).expect("the broker reads");
        let mut pings = 1;
        loop {
            let answer = self.read_answer();
            if answer.opaque == before + 1 && pings == 1 {
                pings = 0;
            } else {
                assert_eq!(
                    (answer.opaque, *owed),
                    (before, 1),
                    "an answer that nobody waits for"
                );
                *owed = 0;
            }
            if pings == 0 {
                return;
            }
        }
    }

    fn answer_to(&mut self, opaque: i32, owed: &mut usize) {
        let answer = self.read_answer();
        assert_eq!(answer.opaque, opaque, "the answer to another request");
        *owed = 0;
    }

    /// The next answer; requests of the broker's are passed over.
    fn read_answer(&mut self) -> RemotingCommand {
        loop {
            if let Some(cut) = frame::cut(&mut self.buffer).expect("the broker sends frames") {
                let command = RemotingCommand::decode(cut).expect("the broker sends commands");
                if command.is_response() {
                    return command;
                }
                continue;
            }
            let mut chunk = [0; 64 * 1024];
            let read = match self.client.read(&mut chunk) {
                // The fuzzer's own alarm.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("the broker answers in time"),
            };
            assert!(read > 0, "the broker closed the connection");
            self.buffer.extend_from_slice(&chunk[..read]);
        }
    }

    /// Sends arbitrary bytes on a connection of their own, and asks the node whether it is still there.
    pub(crate) fn shout(&mut self, bytes: &[u8]) {
        let mut stream = connect(self.group);
        // The broker may close it at the first wrong byte.
        drop(stream.write_all(bytes));
        drop(stream);
        self.ping(&mut 0, self.opaque);
        self.opaque = self.opaque.wrapping_add(2);
    }

    /// Calls the node as a peer would; whatever it thinks of the body, it answers.
    pub(crate) fn call(&mut self, method: u8, body: Vec<u8>) {
        let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
        let body = Bytes::from(body);
        loop {
            let pieces = vec![body.clone()];
            let call = self.peers.call(1, (0, method), pieces, deadline);
            match self.runtime.block_on(call) {
                Ok(_) | Err(CallError::Refused(..)) => break,
                // The links are being opened, or opened again.
                Err(CallError::Unreachable(_)) if tokio::time::Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("method {method}: {error}"),
            }
        }
        self.ping(&mut 0, self.opaque);
        self.opaque = self.opaque.wrapping_add(2);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take()
            && running.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the node panicked");
        }
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the broker accepts");
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn connect_as_peer(address: SocketAddr) -> Arc<Peers> {
    let identity = Identity {
        cluster: "gantry".into(),
        node: 2,
        boot: 1,
        secret: "".into(),
        groups: vec!["broker-a".into()],
    };
    let transport = TcpTransport::new([(1, address.to_string())].into());
    let (peers, events) = Peers::open(Arc::new(transport), identity, &[1, 2]);
    // Nobody looks at the events; the channel is unbounded and hardly used.
    std::mem::forget(events);
    peers
}

/// The first of five ports that nothing listens on.
fn free_ports() -> u16 {
    let start = 20_000 + (std::process::id() % 400) as u16 * 100;
    (start..60_000)
        .step_by(10)
        .find(|first| {
            let bound: Vec<_> = (*first..first + 5)
                .map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
                .collect();
            bound.iter().all(Result::is_ok)
        })
        .expect("there are five free ports in a row")
}

fn wait_until_ready(http: SocketAddr) {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        if let Ok(mut stream) = TcpStream::connect(http) {
            let request = b"GET /readyz HTTP/1.1\r\nHost: gantry\r\nConnection: close\r\n\r\n";
            let mut answer = String::new();
            let asked = stream.write_all(request);
            if asked.is_ok()
                && stream.read_to_string(&mut answer).is_ok()
                && answer.starts_with("HTTP/1.1 200")
            {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the node is not ready after {START_TIMEOUT:?}");
}
