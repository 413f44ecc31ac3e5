//! The peer port: takes connections from other nodes and hands what comes to the groups.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use gantry_storage::commitlog::CommitLog;
use openraft::raft::StreamAppendResult;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::append::{
    Append, decode_append, decode_transfer, decode_vote_request, encode_appended,
    encode_vote_response, get_log_id, get_u64, get_vote,
};
use super::frame::{Frame, FrameReader, FrameWriter, Head, Kind, invalid};
use super::greeting::{Accepted, Class, Identity, accept};
use super::peers::Method;
use super::transport::{BoxFuture, Connection, split_tcp};
use crate::mend;
use crate::replica::Raft;
use crate::types::{
    DecodeError, GroupId, GroupTypes, NodeNumber, ReplicaId, SnapshotMeta, StoredMembership,
    decode_membership, encode_vote,
};

/// Calls of one connection that are worked on at the same time; more wait in the socket.
const CALLS_IN_WORK: usize = 512;

/// Appends of one stream that wait for the group.
const APPENDS_QUEUED: usize = 32;

/// The largest snapshot that is taken: tables and counters only, never messages.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// Answers calls of the process above this crate: who calls, for which group and method (counted
/// from 0), the body; gives the reply's pieces or the reason of the refusal.
pub type CallHandler = Arc<
    dyn Fn(NodeNumber, GroupId, u8, Bytes) -> BoxFuture<'static, Result<Vec<Bytes>, String>>
        + Send
        + Sync,
>;

/// A question about a group that arrives before or beside Raft: see [`Method`].
pub(crate) type GroupQuestion = Arc<
    dyn Fn(NodeNumber, u8, Bytes) -> BoxFuture<'static, Result<Vec<Bytes>, String>> + Send + Sync,
>;

/// A group of this node as its peers reach it.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// Set once the replica runs.
    pub(crate) raft: Option<(ReplicaId, Raft)>,
    /// Its log, as soon as it can be read.
    pub(crate) log: Option<CommitLog>,
    pub(crate) questions: GroupQuestion,
}

/// What the peer port serves.
#[derive(Clone)]
pub struct PeerServer {
    identity: Identity,
    endpoints: Arc<RwLock<BTreeMap<GroupId, Endpoint>>>,
    calls: CallHandler,
}

impl PeerServer {
    /// A server without groups.
    pub fn new(identity: Identity, calls: CallHandler) -> Self {
        PeerServer {
            identity,
            endpoints: Arc::default(),
            calls,
        }
    }

    /// Serves a group from now on.
    pub(crate) fn register(&self, group: GroupId, endpoint: Endpoint) {
        self.endpoints
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(group, endpoint);
    }

    /// Accepts connections on a TCP listener until the future is dropped; its connections end then.
    pub async fn listen(self, listener: TcpListener) {
        let (accepted, connections) = mpsc::unbounded_channel();
        let accepting = async move {
            loop {
                match listener
                    .accept()
                    .await
                    .and_then(|(stream, _)| split_tcp(stream))
                {
                    Ok(connection) => drop(accepted.send(connection)),
                    Err(error) => {
                        // Out of descriptors, most likely: others may be closed in a moment.
                        tracing::warn!(%error, "peer port cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        tokio::join!(accepting, self.serve(connections));
    }

    /// Serves the connections that come out of `connections` until the future is dropped.
    pub async fn serve(self, mut connections: mpsc::UnboundedReceiver<Connection>) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                connection = connections.recv() => {
                    let Some(connection) = connection else { break };
                    running.spawn(self.clone().serve_one(connection));
                }
                Some(_) = running.join_next() => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    async fn serve_one(self, connection: Connection) {
        let accepted = match accept(connection, &self.identity).await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "refused a connection on the peer port");
                return;
            }
        };
        let node = accepted.peer.node;
        let ended = match accepted.class {
            Class::Control | Class::Calls => self.serve_calls(accepted).await,
            Class::Data => self.serve_data(accepted).await,
            Class::Snapshot => self.serve_snapshot(accepted).await,
        };
        if let Err(error) = ended {
            tracing::debug!(node, %error, "peer connection ended");
        }
    }

    fn endpoint(&self, group: GroupId) -> Option<Endpoint> {
        self.endpoints
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&group)
            .cloned()
    }

    /// The running replica `target` of the group, or why it is not here.
    fn raft(&self, group: GroupId, target: ReplicaId) -> Result<Raft, String> {
        let endpoint = self
            .endpoint(group)
            .ok_or_else(|| format!("group {group} is not here"))?;
        match endpoint.raft {
            Some((replica, raft)) if replica == target => Ok(raft),
            Some((replica, _)) => Err(format!("replica {target} is replaced by {replica}")),
            None => Err(format!("group {group} is still starting")),
        }
    }

    async fn serve_calls(self, accepted: Accepted) -> io::Result<()> {
        let Accepted {
            mut reader,
            mut writer,
            peer,
            ..
        } = accepted;
        let (replies, mut outgoing) = mpsc::channel::<(Head, Vec<Bytes>)>(CALLS_IN_WORK);
        let origin = Instant::now();
        let clock_us = move || origin.elapsed().as_micros() as u64;
        let writing = async move {
            while let Some((head, mut body)) = outgoing.recv().await {
                body.insert(0, Bytes::copy_from_slice(&clock_us().to_le_bytes()));
                writer.write(head, &body).await?;
            }
            Ok::<(), io::Error>(())
        };
        let reading = async move {
            let mut in_work = JoinSet::new();
            while let Some(mut frame) = reader.read().await? {
                if frame.head.kind != Kind::Call {
                    return Err(invalid(format!(
                        "{:?} where a call belongs",
                        frame.head.kind
                    )));
                }
                let not_after_us = get_u64(&mut frame.body)?;
                while in_work.len() >= CALLS_IN_WORK {
                    in_work.join_next().await;
                }
                while in_work.try_join_next().is_some() {}
                let (server, replies) = (self.clone(), replies.clone());
                in_work.spawn(async move {
                    let (head, body) = if clock_us() > not_after_us {
                        too_late(frame.head)
                    } else {
                        server.answer(peer.node, frame).await
                    };
                    // The connection may have ended meanwhile; the caller has seen that.
                    drop(replies.send((head, body)).await);
                });
            }
            Ok(())
        };
        tokio::select! {
            ended = writing => ended,
            ended = reading => ended,
        }
    }

    async fn answer(&self, from: NodeNumber, frame: Frame) -> (Head, Vec<Bytes>) {
        let Head {
            method, group, id, ..
        } = frame.head;
        let answered = if method >= Method::APPLICATION {
            (self.calls)(from, group, method - Method::APPLICATION, frame.body).await
        } else {
            self.answer_raft(from, group, method, frame.body).await
        };
        match answered {
            Ok(body) => (Head::new(Kind::Reply, group, id), body),
            Err(reason) => (
                Head::new(Kind::Failure, group, id),
                vec![Bytes::from(reason)],
            ),
        }
    }

    async fn answer_raft(
        &self,
        from: NodeNumber,
        group: GroupId,
        method: u8,
        body: Bytes,
    ) -> Result<Vec<Bytes>, String> {
        let text = |e: DecodeError| e.to_string();
        match method {
            Method::VOTE => {
                let (target, request) = decode_vote_request(body).map_err(text)?;
                let voted = self.raft(group, target)?.vote(request).await;
                Ok(vec![encode_vote_response(
                    &voted.map_err(|e| e.to_string())?,
                )])
            }
            Method::PRE_VOTE => {
                let (target, request) = decode_vote_request(body).map_err(text)?;
                let voted = self.raft(group, target)?.pre_vote(request).await;
                Ok(vec![encode_vote_response(
                    &voted.map_err(|e| e.to_string())?,
                )])
            }
            Method::TRANSFER => {
                let (target, request) = decode_transfer(body).map_err(text)?;
                let raft = self.raft(group, target)?;
                let handled = raft.handle_transfer_leader(request).await;
                handled
                    .map_err(|e| e.to_string())?
                    .map_err(|e| e.to_string())?;
                Ok(Vec::new())
            }
            Method::HEARTBEAT => {
                let (target, append) = decode_append(body).map_err(text)?;
                let raft = self.raft(group, target)?;
                let input = futures_util::stream::iter([append]);
                let mut answers = std::pin::pin!(raft.stream_append(input));
                let answer = answers.next().await.ok_or("the group stopped")?;
                Ok(vec![encode_appended(&answer.map_err(|e| e.to_string())?)])
            }
            Method::CLOCK => Ok(Vec::new()),
            Method::RECORDS => {
                let log = self.endpoint(group).and_then(|endpoint| endpoint.log);
                mend::answer(log.ok_or("the group's log is not open here")?, body).await
            }
            Method::GROUP_STATE | Method::ADMIT => {
                let endpoint = self.endpoint(group);
                let endpoint = endpoint.ok_or_else(|| format!("group {group} is not here"))?;
                (endpoint.questions)(from, method, body).await
            }
            other => Err(format!("method {other} is unknown")),
        }
    }

    /// Sessions of appends, one after the other, until the connection ends or one is refused.
    async fn serve_data(self, accepted: Accepted) -> io::Result<()> {
        let Accepted {
            mut reader,
            mut writer,
            group,
            ..
        } = accepted;
        while let Some(frame) = reader.read().await? {
            if frame.head.kind == Kind::End {
                continue;
            }
            let (target, first) = decode_append_frame(frame)?;
            let raft = match self.raft(group, target) {
                Ok(raft) => raft,
                Err(reason) => {
                    let failure = Head::new(Kind::Failure, group, 0);
                    writer.write(failure, &[Bytes::from(reason)]).await?;
                    return Ok(());
                }
            };
            if !serve_session(&raft, (&mut reader, &mut writer), (group, target), first).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn serve_snapshot(self, accepted: Accepted) -> io::Result<()> {
        let Accepted {
            mut reader,
            mut writer,
            group,
            ..
        } = accepted;
        let frame = reader.read().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let begin = decode_begin(frame.body)?;
        let raft = match self.raft(group, begin.target) {
            Ok(raft) => raft,
            Err(reason) => {
                let failure = Head::new(Kind::Failure, group, 0);
                return writer.write(failure, &[Bytes::from(reason)]).await;
            }
        };
        tracing::info!(group, bytes = begin.length, "receiving a snapshot");
        let mut data = BytesMut::new();
        while (data.len() as u64) < begin.length {
            let frame = reader.read().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            data.extend_from_slice(&frame.body);
        }
        let data = data.freeze();
        if data.len() as u64 != begin.length || crc32fast::hash(&data) != begin.crc {
            return Err(invalid("a snapshot whose length or CRC does not match"));
        }
        let snapshot = openraft::storage::Snapshot {
            meta: begin.meta,
            snapshot: data,
        };
        let installed = raft.install_full_snapshot(begin.vote, snapshot).await;
        let response = installed.map_err(io::Error::other)?;
        let vote = Bytes::copy_from_slice(&encode_vote(&response.vote));
        writer
            .write(Head::new(Kind::Reply, group, 0), &[vote])
            .await
    }
}

/// The answer to a call whose caller has given up meanwhile.
fn too_late(call: Head) -> (Head, Vec<Bytes>) {
    let reason = Bytes::from_static(b"the call came after its deadline and was not begun");
    (Head::new(Kind::Failure, call.group, call.id), vec![reason])
}

/// One pipelined stream of appends. True when it ended in order and another may follow.
async fn serve_session(
    raft: &Raft,
    (reader, writer): (&mut FrameReader, &mut FrameWriter),
    (group, target): (GroupId, ReplicaId),
    first: Append,
) -> io::Result<bool> {
    let (appends, queue) = mpsc::channel(APPENDS_QUEUED);
    let input = futures_util::stream::unfold(queue, |mut queue| async {
        let append: Append = queue.recv().await?;
        Some((append, queue))
    });
    let mut answers = std::pin::pin!(raft.stream_append(input));
    let reading = async move {
        let mut next = first;
        loop {
            if appends.send(next).await.is_err() {
                return Ok(());
            }
            let frame = reader.read().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if frame.head.kind == Kind::End {
                return Ok(());
            }
            let (to, append) = decode_append_frame(frame)?;
            if to != target {
                return Err(invalid("a stream that changes its target"));
            }
            next = append;
        }
    };
    let writing = async {
        while let Some(answer) = answers.next().await {
            let answer: StreamAppendResult<GroupTypes> = answer.map_err(io::Error::other)?;
            let head = Head::new(Kind::Appended, group, 0);
            writer.write(head, &[encode_appended(&answer)]).await?;
            if answer.is_err() {
                // The leader starts anew; what it still sends on this connection is void.
                return Ok(false);
            }
        }
        Ok::<bool, io::Error>(true)
    };
    let mut reading = std::pin::pin!(reading);
    let mut writing = std::pin::pin!(writing);
    tokio::select! {
        read = &mut reading => {
            read?;
            writing.await
        }
        written = &mut writing => written.map(|_| false),
    }
}

fn decode_append_frame(frame: Frame) -> io::Result<(ReplicaId, Append)> {
    if frame.head.kind != Kind::Append {
        return Err(invalid(format!(
            "{:?} where an append belongs",
            frame.head.kind
        )));
    }
    Ok(decode_append(frame.body)?)
}

/// What goes before a snapshot's bytes.
struct Begin {
    target: ReplicaId,
    vote: crate::types::Vote,
    meta: SnapshotMeta,
    length: u64,
    crc: u32,
}

fn decode_begin(mut body: Bytes) -> Result<Begin, DecodeError> {
    let target = get_u64(&mut body)?;
    let vote = get_vote(&mut body)?;
    let last_log_id = get_log_id(&mut body)?;
    let membership_log_id = get_log_id(&mut body)?;
    let length = body
        .try_get_u32_le()
        .map_err(|e| DecodeError::new("snapshot", e))? as usize;
    if body.len() < length {
        return Err(DecodeError::new("snapshot", "membership is cut short"));
    }
    let membership = decode_membership(&body.split_to(length))?;
    let length = get_u64(&mut body)?;
    if length > SNAPSHOT_BYTES_MAX {
        return Err(DecodeError::new(
            "snapshot",
            format!("{length} bytes are too many"),
        ));
    }
    let crc = body
        .try_get_u32_le()
        .map_err(|e| DecodeError::new("snapshot", e))?;
    let last_membership = StoredMembership::new(membership_log_id, membership);
    Ok(Begin {
        target,
        vote,
        meta: SnapshotMeta {
            last_log_id,
            last_membership,
        },
        length,
        crc,
    })
}

/// For `testing`: the length that a peer announces before a snapshot.
pub(super) fn announced_snapshot(body: Bytes) -> Option<u64> {
    decode_begin(body).ok().map(|begin| begin.length)
}
