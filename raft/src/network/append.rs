//! Raft's messages as bytes: votes, transfers, entries and their answers. Integers little-endian.
//!
//! Batches are neither copied nor encoded again: an append is its heads and the records' payloads.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gantry_storage::LogIndex;
use gantry_storage::commitlog::{LeaderTag, Record, RecordKind};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use crate::types::{
    DecodeError, Entry, GroupTypes, LogId, ReplicaId, VOTE_BYTES, Vote, decode_vote, encode_vote,
    log_id, tag_of,
};

/// Bytes before each entry's payload: kind, term, leader, index, store time, length, CRC.
const ENTRY_HEAD_BYTES: usize = 1 + 8 + 8 + 8 + 8 + 4 + 4;

/// The most entries that one append may carry; openraft is configured far below.
const ENTRIES_MAX: usize = 4096;

pub(super) type Append = AppendEntriesRequest<GroupTypes>;

/// An append addressed to `target`, as the pieces of a frame's body.
pub(super) fn encode_append(target: ReplicaId, append: &Append) -> Vec<Bytes> {
    let heads = append.entries.len() * ENTRY_HEAD_BYTES;
    let mut head = BytesMut::with_capacity(128 + heads);
    head.put_u64_le(target);
    head.put_slice(&encode_vote(&append.vote));
    put_log_id(&mut head, append.prev_log_id.as_ref());
    put_log_id(&mut head, append.leader_commit.as_ref());
    head.put_u32_le(append.entries.len() as u32);
    let mut payloads = Vec::with_capacity(append.entries.len() + 1);
    for entry in &append.entries {
        let record = entry.to_record();
        head.put_u8(record.kind as u8);
        head.put_u64_le(record.tag.term);
        head.put_u64_le(record.tag.leader);
        head.put_u64_le(record.index.get());
        head.put_u64_le(record.store_time_ms);
        head.put_u32_le(record.payload.len() as u32);
        head.put_u32_le(record.payload_crc);
        payloads.push(record.payload);
    }
    let mut pieces = vec![head.freeze()];
    pieces.append(&mut payloads);
    pieces
}

/// The append in a frame's body and the replica that it is for. Every payload's CRC is checked.
pub(super) fn decode_append(mut body: Bytes) -> Result<(ReplicaId, Append), DecodeError> {
    let target = get_u64(&mut body)?;
    let vote = get_vote(&mut body)?;
    let prev_log_id = get_log_id(&mut body)?;
    let leader_commit = get_log_id(&mut body)?;
    let count = get_u32(&mut body)? as usize;
    if count > ENTRIES_MAX || body.len() < count * ENTRY_HEAD_BYTES {
        return Err(DecodeError::new(
            "append",
            format!("{count} entries do not fit"),
        ));
    }
    let mut payloads = body.split_off(count * ENTRY_HEAD_BYTES);
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let record = get_record(&mut body, &mut payloads)?;
        entries.push(Entry::from_record(record)?);
    }
    if !payloads.is_empty() {
        return Err(DecodeError::new("append", "bytes after the last entry"));
    }
    Ok((
        target,
        Append {
            vote,
            prev_log_id,
            entries,
            leader_commit,
        },
    ))
}

fn get_record(heads: &mut Bytes, payloads: &mut Bytes) -> Result<Record, DecodeError> {
    let kind = match heads.get_u8() {
        0 => RecordKind::Blank,
        1 => RecordKind::Membership,
        2 => RecordKind::Batch,
        other => return Err(DecodeError::new("entry", format!("kind {other}"))),
    };
    let tag = LeaderTag {
        term: heads.get_u64_le(),
        leader: heads.get_u64_le(),
    };
    let index = LogIndex::new(heads.get_u64_le());
    let store_time_ms = heads.get_u64_le();
    let length = heads.get_u32_le() as usize;
    let payload_crc = heads.get_u32_le();
    if payloads.len() < length {
        return Err(DecodeError::new("entry", "payload is cut short"));
    }
    let payload = payloads.split_to(length);
    if crc32fast::hash(&payload) != payload_crc {
        return Err(DecodeError::new(
            "entry",
            format!("CRC of entry {index} does not match"),
        ));
    }
    Ok(Record {
        tag,
        index,
        kind,
        store_time_ms,
        payload,
        payload_crc,
    })
}

/// What a follower says about an append.
pub(super) fn encode_appended(result: &StreamAppendResult<GroupTypes>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(32);
    match result {
        Ok(matching) => {
            bytes.put_u8(0);
            put_log_id(&mut bytes, matching.as_ref());
        }
        Err(StreamAppendError::Conflict(log_id)) => {
            bytes.put_u8(1);
            put_log_id(&mut bytes, Some(log_id));
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            bytes.put_u8(2);
            bytes.put_slice(&encode_vote(vote));
        }
    }
    bytes.freeze()
}

pub(super) fn decode_appended(
    mut body: Bytes,
) -> Result<StreamAppendResult<GroupTypes>, DecodeError> {
    match get_u8(&mut body)? {
        0 => Ok(Ok(get_log_id(&mut body)?)),
        1 => match get_log_id(&mut body)? {
            Some(log_id) => Ok(Err(StreamAppendError::Conflict(log_id))),
            None => Err(DecodeError::new("appended", "a conflict without a log id")),
        },
        2 => Ok(Err(StreamAppendError::HigherVote(get_vote(&mut body)?))),
        other => Err(DecodeError::new("appended", format!("tag {other}"))),
    }
}

pub(super) fn encode_vote_request(target: ReplicaId, vote: &VoteRequest<GroupTypes>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(64);
    bytes.put_u64_le(target);
    bytes.put_slice(&encode_vote(&vote.vote));
    put_log_id(&mut bytes, vote.last_log_id.as_ref());
    bytes.put_u8(u8::from(vote.leadership_transfer));
    bytes.freeze()
}

pub(super) fn decode_vote_request(
    mut body: Bytes,
) -> Result<(ReplicaId, VoteRequest<GroupTypes>), DecodeError> {
    let target = get_u64(&mut body)?;
    let mut request = VoteRequest::new(get_vote(&mut body)?, get_log_id(&mut body)?);
    request.leadership_transfer = get_u8(&mut body)? == 1;
    Ok((target, request))
}

pub(super) fn encode_vote_response(response: &VoteResponse<GroupTypes>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(64);
    bytes.put_slice(&encode_vote(&response.vote));
    bytes.put_u8(u8::from(response.vote_granted));
    put_log_id(&mut bytes, response.last_log_id.as_ref());
    bytes.freeze()
}

pub(super) fn decode_vote_response(
    mut body: Bytes,
) -> Result<VoteResponse<GroupTypes>, DecodeError> {
    let vote = get_vote(&mut body)?;
    let granted = get_u8(&mut body)? == 1;
    Ok(VoteResponse::new(vote, get_log_id(&mut body)?, granted))
}

/// A transfer, addressed to the replica that is told of it.
pub(super) fn encode_transfer(
    target: ReplicaId,
    request: &TransferLeaderRequest<GroupTypes>,
) -> Bytes {
    let mut bytes = BytesMut::with_capacity(64);
    bytes.put_u64_le(target);
    bytes.put_slice(&encode_vote(request.from_leader()));
    bytes.put_u64_le(*request.to_node_id());
    put_log_id(&mut bytes, request.last_log_id());
    bytes.freeze()
}

pub(super) fn decode_transfer(
    mut body: Bytes,
) -> Result<(ReplicaId, TransferLeaderRequest<GroupTypes>), DecodeError> {
    let target = get_u64(&mut body)?;
    let from = get_vote(&mut body)?;
    let to = get_u64(&mut body)?;
    Ok((
        target,
        TransferLeaderRequest::new(from, to, get_log_id(&mut body)?),
    ))
}

pub(super) fn put_log_id(bytes: &mut BytesMut, log_id: Option<&LogId>) {
    let Some(log_id) = log_id else {
        bytes.put_u8(0);
        return;
    };
    let tag = tag_of(log_id.committed_leader_id());
    bytes.put_u8(1);
    bytes.put_u64_le(tag.term);
    bytes.put_u64_le(tag.leader);
    bytes.put_u64_le(log_id.index());
}

pub(super) fn get_log_id(body: &mut Bytes) -> Result<Option<LogId>, DecodeError> {
    match get_u8(body)? {
        0 => Ok(None),
        1 => {
            let tag = LeaderTag {
                term: get_u64(body)?,
                leader: get_u64(body)?,
            };
            Ok(Some(log_id(tag, LogIndex::new(get_u64(body)?))))
        }
        other => Err(DecodeError::new("log id", format!("tag {other}"))),
    }
}

pub(super) fn get_vote(body: &mut Bytes) -> Result<Vote, DecodeError> {
    if body.len() < VOTE_BYTES {
        return Err(DecodeError::new("vote", "cut short"));
    }
    decode_vote(&body.split_to(VOTE_BYTES))
}

fn get_u8(body: &mut Bytes) -> Result<u8, DecodeError> {
    body.try_get_u8()
        .map_err(|e| DecodeError::new("peer message", e))
}

fn get_u32(body: &mut Bytes) -> Result<u32, DecodeError> {
    body.try_get_u32_le()
        .map_err(|e| DecodeError::new("peer message", e))
}

pub(super) fn get_u64(body: &mut Bytes) -> Result<u64, DecodeError> {
    body.try_get_u64_le()
        .map_err(|e| DecodeError::new("peer message", e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::types::Proposal;

    fn id(index: u64) -> LogId {
        log_id(LeaderTag { term: 3, leader: 2 }, LogIndex::new(index))
    }

    fn joined(pieces: &[Bytes]) -> Bytes {
        pieces.concat().into()
    }

    fn sample() -> Append {
        let payload = Bytes::from_static(b"some batch");
        let batch = Proposal {
            payload_crc: crc32fast::hash(&payload),
            payload,
            store_time_ms: 5,
        };
        Append {
            vote: Vote::new_committed(3, 2),
            prev_log_id: Some(id(7)),
            entries: vec![
                Entry::new(id(8), EntryPayload::Blank),
                Entry::new(id(9), EntryPayload::Normal(batch)),
            ],
            leader_commit: None,
        }
    }

    #[test]
    fn appends_survive_the_wire() {
        let body = joined(&encode_append(65538, &sample()));
        let (target, decoded) = decode_append(body).unwrap();
        assert_eq!(target, 65538);
        assert_eq!(
            (decoded.prev_log_id, decoded.leader_commit),
            (Some(id(7)), None)
        );
        let records: Vec<Record> = decoded.entries.iter().map(Entry::to_record).collect();
        let wanted: Vec<Record> = sample().entries.iter().map(Entry::to_record).collect();
        assert_eq!(records, wanted);
    }

    #[test]
    fn a_flipped_or_missing_byte_is_noticed() {
        let body = joined(&encode_append(2, &sample()));
        for cut in 0..body.len() {
            assert!(decode_append(body.slice(..cut)).is_err(), "cut at {cut}");
        }
        let mut flipped = body.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(decode_append(flipped.into()).is_err());
    }

    #[test]
    fn answers_survive_the_wire() {
        let answers: [StreamAppendResult<GroupTypes>; 4] = [
            Ok(None),
            Ok(Some(id(4))),
            Err(StreamAppendError::Conflict(id(5))),
            Err(StreamAppendError::HigherVote(Vote::new(9, 1))),
        ];
        for answer in answers {
            assert_eq!(decode_appended(encode_appended(&answer)).unwrap(), answer);
        }
    }

    #[test]
    fn votes_and_transfers_survive_the_wire() {
        let mut request = VoteRequest::new(Vote::new(4, 1), Some(id(3)));
        request.leadership_transfer = true;
        assert_eq!(
            decode_vote_request(encode_vote_request(1, &request)).unwrap(),
            (1, request)
        );
        let response = VoteResponse::new(Vote::new(4, 1), None, true);
        assert_eq!(
            decode_vote_response(encode_vote_response(&response)).unwrap(),
            response
        );
        let transfer = TransferLeaderRequest::new(Vote::new_committed(4, 1), 3, Some(id(8)));
        assert_eq!(
            decode_transfer(encode_transfer(2, &transfer)).unwrap(),
            (2, transfer)
        );
    }
}
