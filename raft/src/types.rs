//! The types that openraft is instantiated with, and the identity of a replica.
//!
//! An entry is one [`Record`] of the CommitLog. openraft needs neither `Clone` nor serde on it, so
//! the payload travels as [`Bytes`] from the proposal to the disk and to the peers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use gantry_storage::commitlog::{LeaderTag, Located, Record, RecordKind};
use gantry_storage::{Applied, LogIndex, PhysicalOffset};
use openraft::entry::RaftEntry;
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use openraft::{EmptyNode, EntryPayload};
use serde::{Deserialize, Serialize};

use crate::error::ProposeError;

/// The number of a process in the cluster, 1 to 65535, given in its configuration.
pub type NodeNumber = u16;

/// The position of a broker group in the configuration; equal on all nodes of a cluster.
pub type GroupId = u16;

/// One replica of a group: the node's number in the low 16 bits and, above them, the incarnation of
/// its data directory. A directory that was lost and started anew is another replica: it must not
/// vote, nor count for a majority, with promises that it no longer remembers.
pub type ReplicaId = u64;

/// The id of the replica of `node` whose directory is of the given incarnation; the first is 0.
pub fn replica_id(node: NodeNumber, incarnation: u64) -> ReplicaId {
    assert!(
        incarnation < 1 << 48,
        "incarnation {incarnation} does not fit into 48 bits"
    );
    incarnation << 16 | u64::from(node)
}

/// The node that a replica lives on.
pub fn node_of(replica: ReplicaId) -> NodeNumber {
    (replica & 0xffff) as NodeNumber
}

/// The incarnation of the directory that a replica lives in.
pub(crate) fn incarnation_of(replica: ReplicaId) -> u64 {
    replica >> 16
}

/// Which leader's reign an entry was written in.
pub(crate) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, ReplicaId>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::impls::Vote<LeaderId>;
pub(crate) type Membership = openraft::Membership<ReplicaId, EmptyNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, ReplicaId, EmptyNode>;
pub(crate) type SnapshotMeta = openraft::storage::SnapshotMeta<LeaderId, ReplicaId, EmptyNode>;
pub(crate) type Payload = EntryPayload<Proposal, ReplicaId, EmptyNode>;

/// openraft's type parameters for a broker group.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct GroupTypes;

impl openraft::RaftTypeConfig for GroupTypes {
    type D = Proposal;
    type R = Reply;
    type NodeId = ReplicaId;
    type Node = EmptyNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type Responder<T>
        = Completion<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// A sealed batch, ready to become one record of the log.
#[derive(Clone)]
pub struct Proposal {
    /// The batch as `gantry_storage::batch` laid it out.
    pub payload: Bytes,
    /// CRC-32 of `payload`.
    pub payload_crc: u32,
    /// The leader's clock when the batch was sealed, in milliseconds since the epoch.
    pub store_time_ms: u64,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.payload.len())
    }
}

/// What applying a proposal gave.
#[derive(Debug, Default)]
pub struct Reply {
    /// Where the record starts in the log.
    pub offset: PhysicalOffset,
    /// The outcome of each message and command of the batch.
    pub applied: Applied,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record at {}", self.offset)
    }
}

/// How a proposal ended.
pub type Outcome = Result<Reply, ProposeError>;

/// Called once, in log order, when a proposal's outcome is known.
pub struct Completion<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Completion<T> {
    pub(crate) fn new(call: impl FnOnce(T) + Send + 'static) -> Self {
        Completion(Box::new(call))
    }
}

impl<T> Responder<GroupTypes, T> for Completion<T>
where
    T: openraft::OptionalSend + 'static,
{
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// Tells the outcome once, also when it is dropped untold: whoever waits must hear something.
struct Untold<F: FnOnce(Outcome)>(Option<F>);

impl<F: FnOnce(Outcome)> Untold<F> {
    fn tell(mut self, outcome: Outcome) {
        if let Some(call) = self.0.take() {
            call(outcome);
        }
    }
}

impl<F: FnOnce(Outcome)> Drop for Untold<F> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call(Err(ProposeError::Unsettled));
        }
    }
}

/// The completion that openraft is given for a proposal. If openraft drops it, because it stops, the
/// outcome is unknown and `call` hears that.
pub(crate) fn completion(
    call: impl FnOnce(Outcome) + Send + 'static,
) -> Completion<ClientWriteResult<GroupTypes>> {
    let untold = Untold(Some(call));
    Completion::new(move |result: ClientWriteResult<GroupTypes>| {
        let outcome = result.map(|written| written.data);
        untold.tell(outcome.map_err(ProposeError::from));
    })
}

/// One entry of the Raft log.
///
/// Invariant: `offset` is set on every entry that was read from the log and on no other.
pub struct Entry {
    pub(crate) log_id: LogId,
    pub(crate) payload: Payload,
    pub(crate) offset: Option<PhysicalOffset>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.log_id, self.payload)
    }
}

impl RaftEntry for Entry {
    type CommittedLeaderId = LeaderId;
    type Payload = Payload;

    fn new(log_id: LogId, payload: Payload) -> Self {
        Entry {
            log_id,
            payload,
            offset: None,
        }
    }

    fn log_id_parts(&self) -> (&LeaderId, u64) {
        (self.log_id.committed_leader_id(), self.log_id.index())
    }

    fn set_log_id(&mut self, new: LogId) {
        self.log_id = new;
    }

    fn get_membership(&self) -> Option<Membership> {
        match &self.payload {
            EntryPayload::Membership(membership) => Some(membership.clone()),
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        }
    }
}

impl Entry {
    pub(crate) fn is_batch(&self) -> bool {
        matches!(self.payload, EntryPayload::Normal(_))
    }

    /// The record that stands for this entry in the CommitLog. The batch is shared, not copied.
    pub(crate) fn to_record(&self) -> Record {
        let (kind, payload, payload_crc, store_time_ms) = match &self.payload {
            EntryPayload::Blank => (RecordKind::Blank, Bytes::new(), 0, 0),
            EntryPayload::Membership(membership) => {
                let payload = encode_membership(membership);
                let crc = crc32fast::hash(&payload);
                (RecordKind::Membership, payload, crc, 0)
            }
            EntryPayload::Normal(batch) => (
                RecordKind::Batch,
                batch.payload.clone(),
                batch.payload_crc,
                batch.store_time_ms,
            ),
        };
        Record {
            tag: tag_of(self.log_id.committed_leader_id()),
            index: LogIndex::new(self.log_id.index()),
            kind,
            store_time_ms,
            payload,
            payload_crc,
        }
    }

    /// The entry that a record stands for.
    pub(crate) fn from_record(record: Record) -> Result<Entry, DecodeError> {
        let payload = match record.kind {
            RecordKind::Blank => EntryPayload::Blank,
            RecordKind::Membership => EntryPayload::Membership(decode_membership(&record.payload)?),
            RecordKind::Batch => EntryPayload::Normal(Proposal {
                payload: record.payload,
                payload_crc: record.payload_crc,
                store_time_ms: record.store_time_ms,
            }),
        };
        Ok(Entry {
            log_id: log_id(record.tag, record.index),
            payload,
            offset: None,
        })
    }

    /// The entry that a record of the local log stands for, with its place.
    pub(crate) fn from_located(located: Located) -> Result<Entry, DecodeError> {
        let mut entry = Entry::from_record(located.record)?;
        entry.offset = Some(located.offset);
        Ok(entry)
    }
}

pub(crate) fn tag_of(leader: &LeaderId) -> LeaderTag {
    LeaderTag {
        term: leader.term,
        leader: leader.node_id,
    }
}

pub(crate) fn log_id(tag: LeaderTag, index: LogIndex) -> LogId {
    LogId::new(
        LeaderId {
            term: tag.term,
            node_id: tag.leader,
        },
        index.get(),
    )
}

/// A membership as it stands in the log: the voter sets (two while they change) and the learners.
#[derive(Serialize, Deserialize)]
struct MembershipBytes {
    version: u8,
    voters: Vec<BTreeSet<ReplicaId>>,
    replicas: BTreeSet<ReplicaId>,
}

const MEMBERSHIP_VERSION: u8 = 1;

/// Bytes of a vote, a membership or a peer's frame that make no sense.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {what}: {reason}")]
pub struct DecodeError {
    pub(crate) what: &'static str,
    pub(crate) reason: String,
}

impl DecodeError {
    pub(crate) fn new(what: &'static str, reason: impl fmt::Display) -> Self {
        DecodeError {
            what,
            reason: reason.to_string(),
        }
    }
}

impl From<DecodeError> for std::io::Error {
    fn from(error: DecodeError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

pub(crate) fn encode_membership(membership: &Membership) -> Bytes {
    let bytes = MembershipBytes {
        version: MEMBERSHIP_VERSION,
        voters: membership.get_joint_config().clone(),
        replicas: membership.nodes().map(|(id, _)| *id).collect(),
    };
    bincode::serialize(&bytes)
        .expect("a membership of plain integers always encodes")
        .into()
}

pub(crate) fn decode_membership(bytes: &[u8]) -> Result<Membership, DecodeError> {
    let decoded: MembershipBytes =
        bincode::deserialize(bytes).map_err(|e| DecodeError::new("membership", e))?;
    if decoded.version != MEMBERSHIP_VERSION {
        let reason = format!("version {} is not {MEMBERSHIP_VERSION}", decoded.version);
        return Err(DecodeError::new("membership", reason));
    }
    let nodes: BTreeMap<ReplicaId, EmptyNode> = decoded
        .replicas
        .into_iter()
        .map(|id| (id, EmptyNode::new()))
        .collect();
    Membership::new(decoded.voters, nodes).map_err(|e| DecodeError::new("membership", e))
}

/// Bytes of an encoded vote.
pub(crate) const VOTE_BYTES: usize = 17;

/// {term u64, replica u64, committed u8}, little-endian.
pub(crate) fn encode_vote(vote: &Vote) -> [u8; VOTE_BYTES] {
    let mut bytes = [0; VOTE_BYTES];
    bytes[..8].copy_from_slice(&vote.leader_id.term.to_le_bytes());
    bytes[8..16].copy_from_slice(&vote.leader_id.node_id.to_le_bytes());
    bytes[16] = u8::from(vote.committed);
    bytes
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, DecodeError> {
    let bytes: &[u8; VOTE_BYTES] = bytes
        .try_into()
        .map_err(|_| DecodeError::new("vote", "wrong length"))?;
    let (term, rest) = bytes.split_first_chunk::<8>().expect("17 bytes hold 8");
    let (replica, rest) = rest.split_first_chunk::<8>().expect("9 bytes hold 8");
    let (term, replica) = (u64::from_le_bytes(*term), u64::from_le_bytes(*replica));
    match rest {
        [0] => Ok(Vote::new(term, replica)),
        [1] => Ok(Vote::new_committed(term, replica)),
        _ => Err(DecodeError::new("vote", "committed is neither 0 nor 1")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_hears_of_a_proposal_that_is_dropped() {
        let (tell, told) = std::sync::mpsc::channel();
        drop(completion(move |outcome| tell.send(outcome).unwrap()));
        assert!(matches!(told.recv().unwrap(), Err(ProposeError::Unsettled)));
        assert!(told.recv().is_err(), "told twice");
    }

    #[test]
    fn a_replica_id_names_its_node_and_incarnation() {
        assert_eq!(replica_id(3, 0), 3);
        assert_eq!(node_of(replica_id(3, 1_700_000_000)), 3);
        assert_ne!(replica_id(3, 1), replica_id(3, 2));
    }

    #[test]
    fn votes_survive_encoding() {
        for vote in [Vote::new(7, 3), Vote::new_committed(9, replica_id(2, 5))] {
            assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
        }
        assert!(decode_vote(&[0; 16]).is_err());
        assert!(decode_vote(&[2; 17]).is_err());
    }

    #[test]
    fn memberships_survive_encoding() {
        let voters = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 65539])];
        let membership = Membership::new_with_defaults(voters, [4]);
        let decoded = decode_membership(&encode_membership(&membership)).unwrap();
        assert_eq!(decoded, membership);
        assert!(decode_membership(b"nonsense").is_err());
    }

    #[test]
    fn entries_survive_the_way_through_records() {
        let id = log_id(LeaderTag { term: 4, leader: 2 }, LogIndex::new(9));
        let batch = Bytes::from_static(b"batch");
        let proposal = Proposal {
            payload_crc: crc32fast::hash(&batch),
            payload: batch,
            store_time_ms: 12,
        };
        let entry = Entry::new(id, EntryPayload::Normal(proposal));
        let back = Entry::from_record(entry.to_record()).unwrap();
        assert_eq!(back.log_id, id);
        assert_eq!(back.to_record(), entry.to_record());
    }
}
