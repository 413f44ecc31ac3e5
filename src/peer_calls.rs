//! What nodes ask each other beside Raft: commands and sends for the leader, current reads, sessions.
//!
//! A reply is {status u8} and the result; see `docs/formats.md`.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Failure;
use gantry_protocol::ResponseCode;

/// The methods of calls between nodes. Numbers are part of the peer format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// Apply commands; the body is what `encode_commands` gives.
    Execute = 0,
    /// How far a current read must have applied.
    ReadIndex = 1,
    /// A client's request for the leader.
    Forward = 2,
    /// What clients a node has.
    Sessions = 3,
    /// A request to a client that is connected to the called node.
    ClientCall = 4,
    /// The calling node stops: it is not to be given leadership any more.
    Leaving = 5,
    /// A question to a producer that is connected to the called node.
    AskProducer = 8,
    /// Who is to lead the group from now on; the body is the node's number, u16.
    Prefer = 6,
    /// What the called node counted.
    Counters = 7,
}

impl Method {
    /// The method of that number.
    pub fn from_byte(byte: u8) -> Option<Method> {
        Some(match byte {
            0 => Method::Execute,
            1 => Method::ReadIndex,
            2 => Method::Forward,
            3 => Method::Sessions,
            4 => Method::ClientCall,
            5 => Method::Leaving,
            8 => Method::AskProducer,
            6 => Method::Prefer,
            7 => Method::Counters,
            _ => return None,
        })
    }
}

const STATUS_OK: u8 = 0;
const STATUS_NOT_LEADER: u8 = 1;
const STATUS_UNSETTLED: u8 = 2;
const STATUS_CODE: u8 = 3;

/// A result as the pieces of a reply.
pub fn encode_reply<T: Serialize>(result: &Result<T, Failure>) -> Vec<Bytes> {
    match result {
        Ok(value) => {
            let bytes = bincode::serialize(value).expect("plain values always encode");
            vec![Bytes::from_static(&[STATUS_OK]), bytes.into()]
        }
        Err(failure) => encode_failure(failure),
    }
}

/// A result that is raw bytes as the pieces of a reply.
pub fn encode_raw_reply(result: Result<Vec<Bytes>, Failure>) -> Vec<Bytes> {
    match result {
        Ok(mut pieces) => {
            pieces.insert(0, Bytes::from_static(&[STATUS_OK]));
            pieces
        }
        Err(failure) => encode_failure(&failure),
    }
}

fn encode_failure(failure: &Failure) -> Vec<Bytes> {
    match failure {
        Failure::NotLeader | Failure::NoLeader | Failure::Stopped => {
            vec![Bytes::from_static(&[STATUS_NOT_LEADER])]
        }
        Failure::Unsettled => vec![Bytes::from_static(&[STATUS_UNSETTLED])],
        Failure::Code(code, reason) => {
            let mut bytes = vec![STATUS_CODE];
            bytes.extend_from_slice(&code.0.to_le_bytes());
            bytes.extend_from_slice(reason.as_bytes());
            vec![Bytes::from(bytes)]
        }
    }
}

/// The raw bytes of a successful reply.
pub fn decode_raw_reply(reply: &Bytes) -> Result<Bytes, Failure> {
    let garbled = || Failure::code(ResponseCode::SYSTEM_ERROR, "a peer's reply makes no sense");
    match reply.first() {
        Some(&STATUS_OK) => Ok(reply.slice(1..)),
        Some(&STATUS_NOT_LEADER) => Err(Failure::NotLeader),
        Some(&STATUS_UNSETTLED) => Err(Failure::Unsettled),
        Some(&STATUS_CODE) => {
            let (code, reason) = reply[1..].split_first_chunk::<4>().ok_or_else(garbled)?;
            let reason = String::from_utf8_lossy(reason);
            Err(Failure::code(
                ResponseCode(i32::from_le_bytes(*code)),
                reason,
            ))
        }
        _ => Err(garbled()),
    }
}

/// The value of a successful reply.
pub fn decode_reply<T: DeserializeOwned>(reply: &Bytes) -> Result<T, Failure> {
    let raw = decode_raw_reply(reply)?;
    bincode::deserialize(&raw).map_err(|error| {
        Failure::code(
            ResponseCode::SYSTEM_ERROR,
            format!("a peer's reply makes no sense: {error}"),
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn joined(pieces: &[Bytes]) -> Bytes {
        pieces.concat().into()
    }

    #[test]
    fn results_survive_the_way_between_nodes() {
        let ok: Result<u64, Failure> = Ok(7);
        assert_eq!(decode_reply::<u64>(&joined(&encode_reply(&ok))), ok);
        let code: Result<u64, Failure> = Err(Failure::code(ResponseCode::NO_PERMISSION, "no"));
        assert_eq!(decode_reply::<u64>(&joined(&encode_reply(&code))), code);
        let stopped: Result<u64, Failure> = Err(Failure::Stopped);
        let decoded = decode_reply::<u64>(&joined(&encode_reply(&stopped)));
        assert_eq!(
            decoded,
            Err(Failure::NotLeader),
            "the caller looks for another leader"
        );
        assert!(decode_reply::<u64>(&Bytes::new()).is_err());
    }
}
