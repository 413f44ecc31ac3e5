//! Greetings, links and the peer port, over a network of memory.
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::frame::{Head, Kind, framed};
use super::greeting::{Accepted, Class, Identity, Peer, accept, greet};
use super::link::{Call, Link, PeerEvent};
use super::memory::MemoryNetwork;
use super::peers::Method;
use super::server::{CallHandler, PeerServer};
use super::transport::{Connection, Transport, split_tcp};
use crate::error::CallError;
use crate::types::NodeNumber;

const LIMIT: Duration = Duration::from_secs(10);

fn identity(node: NodeNumber, boot: u64) -> Identity {
    Identity {
        cluster: "c".to_string(),
        node,
        boot,
        secret: "secret".into(),
        groups: vec!["a".to_string(), "b".to_string()],
    }
}

fn pair() -> (Connection, Connection) {
    let (near, far) = tokio::io::duplex(4096);
    let connection = |stream| {
        let (reader, writer) = tokio::io::split(stream);
        Connection {
            reader: Box::new(reader),
            writer: Box::new(writer),
        }
    };
    (connection(near), connection(far))
}

/// Both ends of a greeting between two processes.
async fn meet(client: &Identity, server: &Identity) -> (io::Result<Peer>, io::Result<Accepted>) {
    let (near, far) = pair();
    let greeting = async { greet(near, client, Class::Data, 1).await.map(|done| done.2) };
    tokio::join!(greeting, accept(far, server))
}

#[tokio::test]
async fn peers_learn_who_the_other_is() {
    let (greeted, accepted) = meet(&identity(1, 11), &identity(2, 22)).await;
    assert_eq!(greeted.unwrap(), Peer { node: 2, boot: 22 });
    let accepted = accepted.unwrap();
    assert_eq!(accepted.peer, Peer { node: 1, boot: 11 });
    assert_eq!((accepted.class, accepted.group), (Class::Data, 1));
}

#[tokio::test]
async fn strangers_are_told_what_is_wrong() {
    let own = identity(2, 22);
    let mut cases = vec![(identity(2, 11), "check `node`")];
    let mut other = identity(1, 11);
    other.cluster = "other".to_string();
    cases.push((other, "check `cluster`"));
    for groups in [vec!["b", "a"], vec!["a"], vec!["a", "b", "c"], vec![]] {
        let mut other = identity(1, 11);
        other.groups = groups.into_iter().map(str::to_string).collect();
        cases.push((other, "list the same groups"));
    }
    for (stranger, reason) in cases {
        let (greeted, accepted) = meet(&stranger, &own).await;
        for error in [greeted.unwrap_err(), accepted.err().unwrap()] {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}

#[tokio::test]
async fn another_secret_convinces_neither_side() {
    let mut stranger = identity(1, 11);
    stranger.secret = "guess".into();
    let (greeted, accepted) = meet(&stranger, &identity(2, 22)).await;
    let error = greeted.unwrap_err();
    assert!(error.to_string().contains("peer_secret"), "{error}");
    assert!(accepted.is_err());
}

#[tokio::test]
async fn a_proof_that_was_made_up_or_copied_is_refused() {
    for copied in [false, true] {
        let (near, far) = pair();
        let lying = async {
            let (mut reader, mut writer) = framed(near);
            // A hello that was overheard: everything in it is right.
            let hello = overheard_hello().await;
            let head = Head::new(Kind::Hello, 0, 0);
            writer.write(head, &[hello]).await.unwrap();
            let welcome = reader.read().await.unwrap().unwrap();
            assert_eq!(welcome.head.kind, Kind::Welcome);
            // The server's own proof, which ends its welcome, must not do for the client.
            let proof = if copied {
                welcome.body.slice(welcome.body.len() - 32..)
            } else {
                Bytes::from(vec![7; 32])
            };
            let head = Head::new(Kind::Proof, 0, 0);
            writer.write(head, &[proof]).await.unwrap();
        };
        let own = identity(2, 22);
        let ((), accepted) = tokio::join!(lying, accept(far, &own));
        let error = accepted.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    }
}

async fn overheard_hello() -> Bytes {
    let (near, far) = pair();
    let greeting =
        tokio::spawn(async move { greet(near, &identity(1, 11), Class::Control, 0).await.err() });
    let hello = framed(far).0.read().await.unwrap().unwrap();
    greeting.abort();
    hello.body
}

#[tokio::test]
async fn a_stranger_cannot_announce_a_large_frame() {
    let (mut near, far) = pair();
    let length = 1_000_000_u32.to_le_bytes();
    near.writer.write_all(&length).await.unwrap();
    let refused = accept(far, &identity(2, 22)).await.err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{refused}");
}

/// Answers method 0 with what it was asked, and method 1 never.
fn echo() -> CallHandler {
    Arc::new(|_, _, method, body| {
        Box::pin(async move {
            if method == 1 {
                std::future::pending::<()>().await;
            }
            Ok(vec![body])
        })
    })
}

fn serve(network: &MemoryNetwork, at: NodeNumber, identity: Identity) -> JoinHandle<()> {
    let server = PeerServer::new(identity, echo());
    tokio::spawn(server.serve(network.listen(at)))
}

fn link(network: &MemoryNetwork) -> (Link, mpsc::UnboundedReceiver<PeerEvent>) {
    let (events, happened) = mpsc::unbounded_channel();
    let transport = Arc::new(network.transport(1));
    let link = Link::open(transport, identity(1, 11), 2, Class::Control, Some(events));
    (link, happened)
}

async fn next(events: &mut mpsc::UnboundedReceiver<PeerEvent>) -> PeerEvent {
    timeout(LIMIT, events.recv()).await.unwrap().unwrap()
}

fn call(method: u8, body: &'static [u8]) -> Call {
    Call {
        method,
        group: 0,
        body: vec![Bytes::from_static(body)],
        expires: method >= Method::APPLICATION,
    }
}

fn soon() -> Instant {
    Instant::now() + LIMIT
}

const CONNECTED: PeerEvent = PeerEvent::Connected { node: 2, boot: 22 };
const GONE: PeerEvent = PeerEvent::Gone { node: 2 };

#[tokio::test]
async fn a_process_that_refuses_connections_is_gone_and_may_come_back() {
    let network = MemoryNetwork::new();
    let (link, mut events) = link(&network);
    let first = serve(&network, 2, identity(2, 22));
    // It was not there at first; that is not an event.
    assert_eq!(next(&mut events).await, CONNECTED);
    network.kill(2);
    assert_eq!(next(&mut events).await, GONE);
    assert!(!link.is_connected());
    first.abort();
    let _second = serve(&network, 2, identity(2, 23));
    let back = PeerEvent::Connected { node: 2, boot: 23 };
    assert_eq!(next(&mut events).await, back, "it is gone only once");
}

#[tokio::test]
async fn a_broken_connection_to_the_same_process_is_no_loss() {
    let network = MemoryNetwork::new();
    let _server = serve(&network, 2, identity(2, 22));
    let (link, mut events) = link(&network);
    assert_eq!(next(&mut events).await, CONNECTED);
    network.isolate(2);
    network.heal();
    assert_eq!(next(&mut events).await, CONNECTED, "nobody is gone");
    let answer = link.call(call(Method::APPLICATION, b"hi"), soon()).await;
    assert_eq!(answer.unwrap(), "hi");
}

#[tokio::test]
async fn another_process_at_the_same_place_means_that_the_first_is_gone() {
    let network = MemoryNetwork::new();
    let _first = serve(&network, 2, identity(2, 22));
    let (_link, mut events) = link(&network);
    assert_eq!(next(&mut events).await, CONNECTED);
    network.isolate(2);
    let _second = serve(&network, 2, identity(2, 23));
    network.heal();
    assert_eq!(next(&mut events).await, GONE);
    let again = PeerEvent::Connected { node: 2, boot: 23 };
    assert_eq!(next(&mut events).await, again);
}

#[tokio::test]
async fn a_node_under_another_number_is_no_peer() {
    let network = MemoryNetwork::new();
    let wrong = serve(&network, 2, identity(3, 33));
    let (link, mut events) = link(&network);
    assert!(matches!(
        link.call(call(Method::APPLICATION, b""), soon()).await,
        Err(CallError::Unreachable(2))
    ));
    network.kill(2);
    wrong.abort();
    let _right = serve(&network, 2, identity(2, 22));
    // The first event is about the right one: the other was neither connected nor gone.
    assert_eq!(next(&mut events).await, CONNECTED);
}

#[tokio::test]
async fn calls_end_when_the_connection_ends_or_the_deadline_passes() {
    let network = MemoryNetwork::new();
    let _server = serve(&network, 2, identity(2, 22));
    let (link, mut events) = link(&network);
    assert_eq!(next(&mut events).await, CONNECTED);
    let deadline = Instant::now() + Duration::from_millis(50);
    let late = link
        .call(call(Method::APPLICATION + 1, b""), deadline)
        .await;
    assert!(matches!(late, Err(CallError::Unanswered(2))), "{late:?}");

    let refused = link.call(call(Method::VOTE, b"\x01nonsense"), soon()).await;
    assert!(
        matches!(refused, Err(CallError::Refused(2, _))),
        "{refused:?}"
    );
    let refused = link.call(call(9, b""), soon()).await;
    assert!(
        matches!(refused, Err(CallError::Refused(2, _))),
        "{refused:?}"
    );

    let pending = link.call(call(Method::APPLICATION + 1, b""), soon());
    let breaking = async {
        // After the call was queued: it is polled first.
        tokio::task::yield_now().await;
        let answer = link.call(call(Method::APPLICATION, b"x"), soon()).await;
        assert_eq!(answer.unwrap(), "x");
        network.kill(2);
    };
    let (broken, ()) = tokio::join!(pending, breaking);
    assert!(
        matches!(broken, Err(CallError::Unanswered(2))),
        "{broken:?}"
    );
    assert_eq!(next(&mut events).await, GONE);
    let dead = link.call(call(Method::APPLICATION, b""), soon()).await;
    assert!(matches!(dead, Err(CallError::Unreachable(2))), "{dead:?}");
}

#[tokio::test]
async fn a_call_that_was_on_its_way_for_too_long_is_not_begun() {
    let network = MemoryNetwork::new();
    let begun: Arc<AtomicUsize> = Arc::default();
    let counting = begun.clone();
    let calls: CallHandler = Arc::new(move |_, _, _, body| {
        counting.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(vec![body]) })
    });
    let server = PeerServer::new(identity(2, 22), calls);
    let _serving = tokio::spawn(server.serve(network.listen(2)));
    let connection = network.transport(1).connect(2).await.unwrap();
    let greeted = greet(connection, &identity(1, 11), Class::Calls, 0).await;
    let (mut reader, mut writer, _) = greeted.unwrap();
    let mut clock = None;
    // Until when, by the receiver's clock, and whether it is begun.
    let times = [(u64::MAX, true), (0, false), (60_000_000, true), (0, false)];
    for (id, (from_now, is_begun)) in times.into_iter().enumerate() {
        let not_after = clock.map_or(u64::MAX, |clock: u64| clock.saturating_add(from_now));
        if !is_begun {
            // The clock moves on before the call arrives.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let head = Head {
            kind: Kind::Call,
            method: Method::APPLICATION,
            group: 0,
            id: id as u64,
        };
        let until = Bytes::copy_from_slice(&not_after.to_le_bytes());
        let body = [until, Bytes::from_static(b"do it")];
        writer.write(head, &body).await.unwrap();
        let mut answer = reader.read().await.unwrap().unwrap();
        clock = Some(answer.body.get_u64_le());
        let (kind, said) = match is_begun {
            true => (Kind::Reply, &b"do it"[..]),
            false => (
                Kind::Failure,
                &b"the call came after its deadline and was not begun"[..],
            ),
        };
        assert_eq!((answer.head.kind, answer.head.id), (kind, id as u64));
        assert_eq!(answer.body, said);
    }
    assert_eq!(begun.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_peer_port_survives_whatever_is_sent_to_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = PeerServer::new(identity(2, 22), echo());
    let serving = tokio::spawn(server.listen(listener));
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..40 {
        let mut bytes: Vec<u8> = (0..200 + round * 10)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        if round % 2 == 0 {
            // Looks like a frame of the first kind, so that what is in it gets read.
            let length = (bytes.len() - 4) as u32;
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            bytes[4] = Kind::Hello as u8;
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        // Closed by the server, one way or the other.
        drop(timeout(LIMIT, stream.read_to_end(&mut rest)).await.unwrap());
    }
    let stream = TcpStream::connect(address).await.unwrap();
    let connection = split_tcp(stream).unwrap();
    let greeted = greet(connection, &identity(1, 11), Class::Calls, 0).await;
    let (mut reader, mut writer, peer) = greeted.unwrap();
    assert_eq!(peer.node, 2);
    let head = Head {
        method: Method::APPLICATION,
        ..Head::new(Kind::Call, 0, 5)
    };
    let until = Bytes::copy_from_slice(&u64::MAX.to_le_bytes());
    let body = Bytes::from(vec![1; 100_000]);
    writer.write(head, &[until, body.clone()]).await.unwrap();
    let reply = timeout(LIMIT, reader.read())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!((reply.head.kind, reply.head.id), (Kind::Reply, 5));
    let echoed = reply.body.slice(size_of::<u64>()..);
    assert!(echoed == body, "a trusted peer may send large frames");
    assert!(!serving.is_finished());
}
