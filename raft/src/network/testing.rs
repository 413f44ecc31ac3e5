//! The formats of this module for `crate::testing`.

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;

use super::append::{
    decode_append, decode_appended, decode_transfer, decode_vote_request, decode_vote_response,
    encode_append, encode_appended, encode_transfer, encode_vote_request, encode_vote_response,
};
use super::frame::{self, Head, Kind};
use super::{greeting, server};
use crate::testing::{FrameParts, Message};

pub(crate) fn again(message: Message, bytes: Bytes) -> Option<Vec<u8>> {
    let encoded = match message {
        Message::Append => {
            let (target, append) = decode_append(bytes).ok()?;
            encode_append(target, &append).concat().into()
        }
        Message::Appended => encode_appended(&decode_appended(bytes).ok()?),
        Message::VoteRequest => {
            let (target, request) = decode_vote_request(bytes).ok()?;
            encode_vote_request(target, &request)
        }
        Message::VoteResponse => encode_vote_response(&decode_vote_response(bytes).ok()?),
        Message::Transfer => {
            let (target, request) = decode_transfer(bytes).ok()?;
            encode_transfer(target, &request)
        }
        Message::SnapshotBegin => {
            // Only its sender writes it; what matters is that the announced length is bounded.
            let length = server::announced_snapshot(bytes)?;
            Bytes::copy_from_slice(&length.to_le_bytes())
        }
        Message::Hello => greeting::hello_again(&bytes)?,
        Message::Welcome => greeting::welcome_again(&bytes)?,
        Message::GroupState | Message::Vote | Message::Membership | Message::Identity => {
            return None;
        }
    };
    Some(encoded.to_vec())
}

pub(crate) async fn read_frames(
    reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    trusted: bool,
) -> (Vec<FrameParts>, Option<String>, usize) {
    let mut reader = frame::reader_of(reader);
    if trusted {
        reader.trust();
    }
    let mut frames = Vec::new();
    let mut room_max = 0;
    let ended = loop {
        let read = reader.read().await;
        room_max = room_max.max(reader.room());
        match read {
            Ok(Some(frame)) => {
                let Head {
                    kind,
                    method,
                    group,
                    id,
                } = frame.head;
                frames.push((kind as u8, method, group, id, frame.body));
            }
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    (frames, ended, room_max)
}

/// `None` if there is no such kind, or no frame of that length.
pub(crate) fn encode_head(kind: u8, id: u64, body_len: usize) -> Option<BytesMut> {
    let head = Head::new(Kind::from_byte(kind)?, 0, id);
    let fits = body_len < frame::FRAME_BYTES_MAX / 2;
    fits.then(|| BytesMut::from(&frame::encode_head(head, body_len)[..]))
}
