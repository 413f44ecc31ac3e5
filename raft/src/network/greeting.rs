//! Who talks to whom: the greeting that opens every connection between peers.
//!
//! Both sides prove with an HMAC over both nonces that they know the cluster's secret, and learn
//! each other's node number and boot id (a number drawn at process start, by which a restarted
//! process is told from the one before).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::time::timeout;

use super::frame::{FrameReader, FrameWriter, Head, Kind, framed, invalid};
use super::transport::Connection;
use crate::types::{GroupId, NodeNumber};

/// Version of everything that peers say to each other.
const PEER_FORMAT: u16 = 2;

const GREETING_TIMEOUT: Duration = Duration::from_secs(3);

/// What a connection is used for, so that a large transfer delays no heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Class {
    /// Heartbeats, votes, and other short questions.
    Control,
    /// Calls of the process above: forwarded requests, session sharing.
    Calls,
    /// Entries of one group, pipelined.
    Data,
    /// One snapshot.
    Snapshot,
}

/// How this process presents itself to its peers.
#[derive(Clone)]
pub struct Identity {
    /// Name of the cluster; peers of another name are refused.
    pub cluster: String,
    /// This node's number.
    pub node: NodeNumber,
    /// Drawn at process start.
    pub boot: u64,
    /// The secret that all nodes of the cluster share.
    pub secret: Arc<str>,
    /// Names of the groups, in the order that gives them their ids.
    pub groups: Vec<String>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub node: NodeNumber,
    pub boot: u64,
}

#[derive(Serialize, Deserialize)]
struct Hello {
    format: u16,
    cluster: String,
    node: NodeNumber,
    boot: u64,
    class: Class,
    groups: Vec<String>,
    nonce: [u8; 16],
}

#[derive(Serialize, Deserialize)]
struct Welcome {
    node: NodeNumber,
    boot: u64,
    nonce: [u8; 16],
    proof: [u8; 32],
}

/// Greets as the one who opened the connection.
pub(super) async fn greet(
    connection: Connection,
    identity: &Identity,
    class: Class,
    group: GroupId,
) -> io::Result<(FrameReader, FrameWriter, Peer)> {
    bounded(async {
        let (mut reader, mut writer) = framed(connection);
        let hello = Hello {
            format: PEER_FORMAT,
            cluster: identity.cluster.clone(),
            node: identity.node,
            boot: identity.boot,
            class,
            groups: identity.groups.clone(),
            nonce: nonce()?,
        };
        writer
            .write(Head::new(Kind::Hello, group, 0), &[encode(&hello)])
            .await?;
        let answer = reader.read().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if answer.head.kind == Kind::Refusal {
            let reason = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        let welcome: Welcome = expect(answer.head.kind, Kind::Welcome, &answer.body)?;
        let nonces = (&hello.nonce, &welcome.nonce);
        check(&identity.secret, "server", nonces, &welcome.proof)?;
        let proof = prove(&identity.secret, "client", nonces);
        writer
            .write(
                Head::new(Kind::Proof, group, 0),
                &[Bytes::from(proof.to_vec())],
            )
            .await?;
        reader.trust();
        Ok((
            reader,
            writer,
            Peer {
                node: welcome.node,
                boot: welcome.boot,
            },
        ))
    })
    .await
}

/// A connection that a peer opened and proved to be its own.
pub(super) struct Accepted {
    pub reader: FrameReader,
    pub writer: FrameWriter,
    pub peer: Peer,
    pub class: Class,
    pub group: GroupId,
}

/// Greets as the one who accepted the connection. A peer that does not belong here is told why.
pub(super) async fn accept(connection: Connection, identity: &Identity) -> io::Result<Accepted> {
    bounded(async {
        let (mut reader, mut writer) = framed(connection);
        let first = reader.read().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let hello: Hello = expect(first.head.kind, Kind::Hello, &first.body)?;
        if let Some(reason) = objection(&hello, identity) {
            let refusal = Head::new(Kind::Refusal, first.head.group, 0);
            writer
                .write(refusal, &[Bytes::from(reason.clone())])
                .await?;
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        let own = nonce()?;
        let nonces = (&hello.nonce, &own);
        let proof = prove(&identity.secret, "server", nonces);
        let welcome = Welcome {
            node: identity.node,
            boot: identity.boot,
            nonce: own,
            proof,
        };
        writer
            .write(Head::new(Kind::Welcome, 0, 0), &[encode(&welcome)])
            .await?;
        let answer = reader.read().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if answer.head.kind != Kind::Proof {
            return Err(invalid("no proof of the secret"));
        }
        check(&identity.secret, "client", nonces, &answer.body)?;
        let peer = Peer {
            node: hello.node,
            boot: hello.boot,
        };
        reader.trust();
        Ok(Accepted {
            reader,
            writer,
            peer,
            class: hello.class,
            group: first.head.group,
        })
    })
    .await
}

fn objection(hello: &Hello, identity: &Identity) -> Option<String> {
    if hello.format != PEER_FORMAT {
        return Some(format!(
            "peer format {} is not {PEER_FORMAT}: run the same version on all nodes",
            hello.format
        ));
    }
    if hello.cluster != identity.cluster {
        return Some(format!(
            "node {} belongs to cluster {:?}, this is {:?}: check `cluster` and `peers`",
            hello.node, hello.cluster, identity.cluster
        ));
    }
    if hello.node == identity.node {
        return Some(format!(
            "node {} is this node: check `node` and `peers`",
            hello.node
        ));
    }
    if hello.groups != identity.groups {
        return Some(format!(
            "node {} has groups {:?}, this node {:?}: list the same groups in the same order",
            hello.node, hello.groups, identity.groups
        ));
    }
    None
}

async fn bounded<T>(greeting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(GREETING_TIMEOUT, greeting).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn prove(secret: &str, side: &str, (client, server): (&[u8; 16], &[u8; 16])) -> [u8; 32] {
    mac(secret, side, (client, server))
        .finalize()
        .into_bytes()
        .into()
}

fn check(secret: &str, side: &str, nonces: (&[u8; 16], &[u8; 16]), proof: &[u8]) -> io::Result<()> {
    mac(secret, side, nonces).verify_slice(proof).map_err(|_| {
        io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the peer has another secret: set the same `peer_secret` on all nodes",
        )
    })
}

fn mac(secret: &str, side: &str, (client, server): (&[u8; 16], &[u8; 16])) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(side.as_bytes());
    mac.update(client);
    mac.update(server);
    mac
}

/// Sixteen bytes that are not used twice.
fn nonce() -> io::Result<[u8; 16]> {
    use std::io::Read;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    bincode::serialize(value)
        .expect("a greeting of plain fields always encodes")
        .into()
}

fn expect<T: for<'de> Deserialize<'de>>(kind: Kind, wanted: Kind, body: &[u8]) -> io::Result<T> {
    if kind != wanted {
        return Err(invalid(format!("expected {wanted:?} and got {kind:?}")));
    }
    bincode::deserialize(body).map_err(|e| invalid(format!("{wanted:?}: {e}")))
}

/// For `testing`.
pub(super) fn hello_again(body: &[u8]) -> Option<Bytes> {
    let hello: Hello = expect(Kind::Hello, Kind::Hello, body).ok()?;
    Some(encode(&hello))
}

/// For `testing`.
pub(super) fn welcome_again(body: &[u8]) -> Option<Bytes> {
    let welcome: Welcome = expect(Kind::Welcome, Kind::Welcome, body).ok()?;
    Some(encode(&welcome))
}
