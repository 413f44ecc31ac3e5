//! What peers say to each other as functions of bytes, for whoever feeds them with arbitrary ones.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, ReadBuf};

use crate::identity;
use crate::network::testing as network;
use crate::types::{decode_membership, decode_vote, encode_membership, encode_vote};

/// Something with a decoder of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Log entries.
    Append,
    /// The answer to them.
    Appended,
    /// A request for a vote, or before one.
    VoteRequest,
    /// The answer to it.
    VoteResponse,
    /// A transfer of leadership.
    Transfer,
    /// What goes before a snapshot.
    SnapshotBegin,
    /// The first frame of a connection.
    Hello,
    /// The answer to it.
    Welcome,
    /// What a node knows of a group.
    GroupState,
    /// A vote, also on disk.
    Vote,
    /// Members, also in the log.
    Membership,
    /// The identity file.
    Identity,
}

impl Message {
    /// All of them.
    pub const ALL: [Message; 12] = [
        Message::Append,
        Message::Appended,
        Message::VoteRequest,
        Message::VoteResponse,
        Message::Transfer,
        Message::SnapshotBegin,
        Message::Hello,
        Message::Welcome,
        Message::GroupState,
        Message::Vote,
        Message::Membership,
        Message::Identity,
    ];

    /// What `bytes` stand for, as bytes again; `None` if they are refused.
    pub fn again(self, bytes: Bytes) -> Option<Vec<u8>> {
        match self {
            Message::Vote => {
                let vote = decode_vote(&bytes).ok()?;
                Some(encode_vote(&vote).to_vec())
            }
            Message::Membership => {
                let members = decode_membership(&bytes).ok()?;
                Some(encode_membership(&members).to_vec())
            }
            Message::Identity => identity::again(&String::from_utf8_lossy(&bytes)),
            Message::GroupState => identity::group_state_again(&bytes),
            _ => network::again(self, bytes),
        }
    }
}

/// A frame: kind, method, group, id and body.
pub type FrameParts = (u8, u8, u16, u64, Bytes);

/// Cuts frames out of bytes that arrive in these pieces, from a peer that has proved who it is or not; gives
/// them, why it ended if not in order, and the most memory that was held for a frame at a time.
pub fn frames(pieces: Vec<Vec<u8>>, trusted: bool) -> (Vec<FrameParts>, Option<String>, usize) {
    let pieces = Pieces(
        pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .collect(),
    );
    let read = network::read_frames(Box::new(pieces), trusted).now_or_never();
    read.expect("the pieces are all there")
}

/// Gives one piece at a time.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            let count = piece.len().min(into.remaining());
            let rest = piece.split_off(count);
            into.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Frames of that kind and these bodies, one after the other, as a peer sends them.
pub fn encode_frames(kind: u8, bodies: &[&[u8]]) -> Option<Vec<u8>> {
    let mut bytes = BytesMut::new();
    for (id, body) in bodies.iter().enumerate() {
        bytes.extend_from_slice(&network::encode_head(kind, id as u64, body.len())?);
        bytes.extend_from_slice(body);
    }
    Some(bytes.to_vec())
}
