//! What openraft calls to reach a replica on another node.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use gantry_storage::commitlog::CommitLog;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, NetAppend, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{EmptyNode, OptionalSend};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::append::{
    Append, decode_appended, decode_vote_response, encode_append, encode_transfer,
    encode_vote_request, get_vote, put_log_id,
};
use super::frame::{FrameReader, FrameWriter, Head, Kind};
use super::greeting::Class;
use super::peers::{Method, Peers};
use super::throttle::{CatchUp, LogEnd, Throttle};
use crate::error::CallError;
use crate::types::{
    GroupId, GroupTypes, LeaderId, ReplicaId, Vote, encode_membership, encode_vote, node_of,
};

type BoxFuture<'a, T> = openraft::base::BoxFuture<'a, T>;
type BoxStream<'a, T> = openraft::base::BoxStream<'a, T>;
type RpcError = RPCError<GroupTypes>;
type Answer = Result<StreamAppendResult<GroupTypes>, RpcError>;
pub(crate) type SnapshotOf = Snapshot<LeaderId, ReplicaId, EmptyNode, Bytes>;

/// A follower that owes an answer for this long is given up, and the stream starts anew. Longer
/// than any ordinary stall of a disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long followers may hear of a commit later than the leader, when nothing else is sent to them. Saves
/// two messages and four wake-ups for each follower and batch (docs/performance.md).
const COMMIT_DELAY: Duration = Duration::from_millis(1);

/// How long installing a snapshot may take before the transfer is given up.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Snapshots travel in pieces of this size.
const CHUNK_BYTES: usize = 256 * 1024;

/// Makes the clients of one group.
pub(crate) struct ClientFactory {
    pub(crate) peers: Arc<Peers>,
    pub(crate) group: GroupId,
    pub(crate) log: CommitLog,
    pub(crate) catch_up: Arc<CatchUp>,
}

impl ClientFactory {
    fn client(&self, target: ReplicaId, heartbeat: bool) -> Client {
        Client {
            peers: self.peers.clone(),
            group: self.group,
            log: self.log.clone(),
            catch_up: self.catch_up.clone(),
            target,
            heartbeat,
            idle: None,
        }
    }
}

impl RaftNetworkFactory<GroupTypes> for ClientFactory {
    type Network = Client;

    async fn new_client(&mut self, target: ReplicaId, _node: &EmptyNode) -> Client {
        self.client(target, false)
    }

    async fn new_heartbeat_client(&mut self, target: ReplicaId, _node: &EmptyNode) -> Client {
        self.client(target, true)
    }
}

/// The way to one replica. Entries go over a connection of their own that is opened on first use;
/// everything short goes over the node's control link.
pub(crate) struct Client {
    peers: Arc<Peers>,
    group: GroupId,
    log: CommitLog,
    catch_up: Arc<CatchUp>,
    target: ReplicaId,
    heartbeat: bool,
    /// The data connection between two streams.
    idle: Option<(FrameReader, FrameWriter)>,
}

impl Client {
    async fn ask(&self, method: u8, body: Vec<Bytes>, ttl: Duration) -> Result<Bytes, RpcError> {
        let deadline = Instant::now() + ttl;
        let asked = self
            .peers
            .ask(node_of(self.target), (self.group, method), body, deadline);
        asked.await.map_err(|error| match error {
            CallError::Unreachable(_) | CallError::Refused(..) => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
            CallError::Unanswered(_) => RPCError::Network(NetworkError::new(&error)),
        })
    }

    async fn data_connection(&mut self) -> Result<(FrameReader, FrameWriter), RpcError> {
        if let Some(idle) = self.idle.take() {
            return Ok(idle);
        }
        let dialled = self
            .peers
            .dial(node_of(self.target), Class::Data, self.group)
            .await;
        dialled.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }
}

fn network_error(error: &(impl std::error::Error + 'static)) -> RpcError {
    RPCError::Network(NetworkError::new(error))
}

impl RaftNetworkV2<GroupTypes> for Client {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: Append,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<GroupTypes>, RpcError> {
        let body = encode_append(self.target, &rpc);
        let answer = self.ask(Method::HEARTBEAT, body, option.hard_ttl()).await?;
        let result = decode_appended(answer).map_err(|e| network_error(&e))?;
        Ok(match result {
            Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Answer>, RpcError>>
    where
        S: Stream<Item = Append> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.heartbeat {
                let Some(rpc) = input.next().await else {
                    return Ok(Box::pin(futures_util::stream::empty()) as BoxStream<'s, Answer>);
                };
                let (prev, last) = (rpc.prev_log_id, rpc.prev_log_id);
                let answer = NetAppend::append_entries(self, rpc, option)
                    .await
                    .map(|response| response.into_stream_result(prev, last));
                let answers = futures_util::stream::once(async { answer });
                return Ok(Box::pin(answers) as BoxStream<'s, Answer>);
            }
            // Taken before dialling: it is here that openraft waits between two tries. A refused
            // connection would else be tried again at once and without end.
            let Some(first) = input.next().await else {
                return Ok(Box::pin(futures_util::stream::empty()) as BoxStream<'s, Answer>);
            };
            let input = futures_util::stream::once(std::future::ready(first)).chain(input.fuse());
            let (reader, writer) = self.data_connection().await?;
            let sent = Arc::new(Sent::default());
            let throttle = Throttle::new(self.catch_up.clone(), (self.group, node_of(self.target)));
            let sender = Sender {
                group: self.group,
                target: self.target,
                log: self.log.clone(),
                throttle,
                sent: sent.clone(),
            };
            let sending = Sending(Some(tokio::spawn(sender.run(input, writer))));
            let state = Session {
                client: self,
                reader,
                sending,
                sent,
                received: 0,
            };
            let answers = futures_util::stream::unfold(Some(state), |state| async {
                match state {
                    Some(session) => session.next().await,
                    None => None,
                }
            });
            Ok(Box::pin(answers) as BoxStream<'s, Answer>)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<GroupTypes>,
        option: RPCOption,
    ) -> Result<VoteResponse<GroupTypes>, RpcError> {
        let body = vec![encode_vote_request(self.target, &rpc)];
        let answer = self.ask(Method::VOTE, body, option.hard_ttl()).await?;
        decode_vote_response(answer).map_err(|e| network_error(&e))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<GroupTypes>,
        option: RPCOption,
    ) -> Result<VoteResponse<GroupTypes>, RpcError> {
        let body = vec![encode_vote_request(self.target, &rpc)];
        let answer = self.ask(Method::PRE_VOTE, body, option.hard_ttl()).await?;
        decode_vote_response(answer).map_err(|e| network_error(&e))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<GroupTypes>, StreamingError<GroupTypes>> {
        tokio::select! {
            sent = self.send_snapshot(vote, snapshot) => {
                sent.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<GroupTypes>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<GroupTypes>, RpcError> {
        let body = vec![encode_transfer(self.target, &req)];
        self.ask(Method::TRANSFER, body, option.hard_ttl()).await?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(100))))
    }
}

impl Client {
    /// Sends {target, vote, last log id, membership, length, CRC} and then the bytes in chunks.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf,
    ) -> std::io::Result<SnapshotResponse<GroupTypes>> {
        let dialled = self
            .peers
            .dial(node_of(self.target), Class::Snapshot, self.group)
            .await;
        let (mut reader, mut writer) = dialled?;
        let data = snapshot.snapshot;
        let mut begin = BytesMut::new();
        begin.put_u64_le(self.target);
        begin.put_slice(&encode_vote(&vote));
        put_log_id(&mut begin, snapshot.meta.last_log_id.as_ref());
        put_log_id(&mut begin, snapshot.meta.last_membership.log_id().as_ref());
        let membership = encode_membership(snapshot.meta.last_membership.membership());
        begin.put_u32_le(membership.len() as u32);
        begin.put_slice(&membership);
        begin.put_u64_le(data.len() as u64);
        begin.put_u32_le(crc32fast::hash(&data));
        tracing::info!(
            group = self.group,
            node = node_of(self.target),
            bytes = data.len(),
            index = snapshot.meta.last_log_id.map(|id| id.index()),
            "sending a snapshot"
        );
        writer
            .write(Head::new(Kind::Call, self.group, 0), &[begin.freeze()])
            .await?;
        let mut rest = data;
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
            writer
                .write(Head::new(Kind::Chunk, self.group, 0), &[chunk])
                .await?;
        }
        let frame = timeout(INSTALL_TIMEOUT, reader.read())
            .await
            .map_err(std::io::Error::from)??;
        let mut frame = frame.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        if frame.head.kind != Kind::Reply {
            return Err(super::frame::invalid(
                String::from_utf8_lossy(&frame.body).into_owned(),
            ));
        }
        Ok(SnapshotResponse::new(get_vote(&mut frame.body)?))
    }
}

/// How much of a stream has gone out.
#[derive(Default)]
struct Sent {
    appends: AtomicU64,
    finished: AtomicBool,
    changed: Notify,
}

/// The half of a stream that writes.
struct Sender {
    group: GroupId,
    target: ReplicaId,
    log: CommitLog,
    throttle: Throttle,
    sent: Arc<Sent>,
}

impl Sender {
    /// Writes appends until openraft has no more; gives the writer back when the connection can be
    /// used again.
    async fn run<S>(mut self, mut input: S, mut writer: FrameWriter) -> Option<FrameWriter>
    where
        S: Stream<Item = Append> + Unpin,
    {
        let mut writer_ok = true;
        while let Some(append) = next_to_send(&mut input).await {
            let last_sent = append.entries.last().map(|entry| entry.log_id.index());
            let body = encode_append(self.target, &append);
            let bounds = self.log.bounds();
            if let (Some(sent), Some((last, _))) = (last_sent, bounds.last) {
                let end = LogEnd {
                    index: last.get(),
                    offset: bounds.end_offset.get(),
                };
                let bytes = body.iter().map(|piece| piece.len() as u64).sum();
                self.throttle.pass(bytes, sent, end).await;
            }
            // Counted before it is written: the answer must never come unexpected.
            self.sent.appends.fetch_add(1, Ordering::SeqCst);
            self.sent.changed.notify_one();
            if writer
                .write(Head::new(Kind::Append, self.group, 0), &body)
                .await
                .is_err()
            {
                writer_ok = false;
                break;
            }
        }
        if writer_ok {
            writer_ok = writer
                .write(Head::new(Kind::End, self.group, 0), &[])
                .await
                .is_ok();
        }
        self.sent.finished.store(true, Ordering::SeqCst);
        self.sent.changed.notify_one();
        writer_ok.then_some(writer)
    }
}

/// The next append of a stream. One without entries only says what is committed, and the next one with
/// entries says that too: it is put off for [`COMMIT_DELAY`], and not sent at all if that one comes first.
/// openraft takes the answer to a later append for an answer to all before it.
async fn next_to_send<S>(input: &mut S) -> Option<Append>
where
    S: Stream<Item = Append> + Unpin,
{
    let mut next = input.next().await?;
    while next.entries.is_empty() {
        match timeout(COMMIT_DELAY, input.next()).await {
            Ok(Some(later)) => next = later,
            Ok(None) | Err(_) => break,
        }
    }
    Some(next)
}

/// The task that writes, ended with the stream.
struct Sending(Option<JoinHandle<Option<FrameWriter>>>);

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// One `stream_append`: the half that reads answers.
struct Session<'s> {
    client: &'s mut Client,
    reader: FrameReader,
    sending: Sending,
    sent: Arc<Sent>,
    received: u64,
}

impl<'s> Session<'s> {
    async fn next(mut self) -> Option<(Answer, Option<Session<'s>>)> {
        loop {
            let owed = self.sent.appends.load(Ordering::SeqCst) - self.received;
            if owed == 0 && self.sent.finished.load(Ordering::SeqCst) {
                self.keep_connection().await;
                return None;
            }
            let frame = if owed == 0 {
                tokio::select! {
                    frame = self.reader.read() => frame,
                    () = self.sent.changed.notified() => continue,
                }
            } else {
                match timeout(ANSWER_TIMEOUT, self.reader.read()).await {
                    Ok(frame) => frame,
                    Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
                }
            };
            return Some(self.answer(frame));
        }
    }

    fn answer(
        mut self,
        frame: std::io::Result<Option<super::frame::Frame>>,
    ) -> (Answer, Option<Session<'s>>) {
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                let ended = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return (Err(network_error(&ended)), None);
            }
            Err(error) => return (Err(network_error(&error)), None),
        };
        if frame.head.kind != Kind::Appended {
            let reason = super::frame::invalid(String::from_utf8_lossy(&frame.body).into_owned());
            return (Err(RPCError::Unreachable(Unreachable::new(&reason))), None);
        }
        match decode_appended(frame.body) {
            Ok(Ok(matching)) => {
                self.received += 1;
                (Ok(Ok(matching)), Some(self))
            }
            Ok(Err(refused)) => (Ok(Err(refused)), None),
            Err(error) => (Err(network_error(&error)), None),
        }
    }

    async fn keep_connection(self) {
        let Session {
            client,
            reader,
            mut sending,
            ..
        } = self;
        let Some(task) = sending.0.take() else { return };
        if let Ok(Some(writer)) = task.await {
            client.idle = Some((reader, writer));
        }
    }
}
