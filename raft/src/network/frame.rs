//! Frames between peers, and the greeting that opens every connection.
//!
//! A frame is {length u32 of what follows, kind u8, method u8, group u16, id u64} and a body; all
//! integers little-endian. `docs/formats.md` has the tables.

use std::io::{self, IoSlice};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::transport::Connection;
use crate::types::GroupId;

/// Bytes of a frame before its body, the length field included.
const HEAD_BYTES: usize = 16;

/// The largest frame that is accepted: a record of the largest batch and its entry's head.
pub(super) const FRAME_BYTES_MAX: usize = 24 * 1024 * 1024;

/// The largest frame that is accepted from someone who has not proved to be a peer.
const GREETING_BYTES_MAX: usize = 64 * 1024;

/// Room for frames that is allocated at once. Frames share it, and it lives as long as the last of them.
const READ_BYTES: usize = 64 * 1024;

/// Less room than this is not read into: a read for every few bytes would cost more than a new allocation.
const ROOM_BYTES_MIN: usize = 4 * 1024;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// First frame of a connection, from who opened it.
    Hello = 1,
    /// The answer to a hello, with the proof that the secret is known.
    Welcome = 2,
    /// The opener's proof.
    Proof = 3,
    /// The connection is refused; the body says why.
    Refusal = 4,
    /// A call that wants a reply of the same id.
    Call = 5,
    /// The answer to a call.
    Reply = 6,
    /// The call failed; the body says why.
    Failure = 7,
    /// Log entries for a follower.
    Append = 8,
    /// How far a follower has them on its disk.
    Appended = 9,
    /// No more entries in this session; the connection can be used again.
    End = 10,
    /// A piece of a snapshot.
    Chunk = 11,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Proof,
            4 => Kind::Refusal,
            5 => Kind::Call,
            6 => Kind::Reply,
            7 => Kind::Failure,
            8 => Kind::Append,
            9 => Kind::Appended,
            10 => Kind::End,
            11 => Kind::Chunk,
            _ => return None,
        })
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    pub method: u8,
    pub group: GroupId,
    pub id: u64,
}

impl Head {
    pub(super) fn new(kind: Kind, group: GroupId, id: u64) -> Head {
        Head {
            kind,
            method: 0,
            group,
            id,
        }
    }
}

/// A frame as it came in; the body shares the read buffer.
#[derive(Debug)]
pub(super) struct Frame {
    pub head: Head,
    pub body: Bytes,
}

/// Cuts frames out of a connection.
pub(super) struct FrameReader {
    reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl FrameReader {
    /// Takes frames of any allowed size from now on: the peer has proved who it is.
    pub(super) fn trust(&mut self) {
        self.frame_bytes_max = FRAME_BYTES_MAX;
    }

    /// Bytes that are allocated for what is being read.
    pub(super) fn room(&self) -> usize {
        self.buffer.capacity()
    }

    /// The next frame, or `None` at the end of the stream. May be cancelled and called again.
    pub(super) async fn read(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.cut()? {
                return Ok(Some(frame));
            }
            self.make_room();
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Uses up the room there is before it allocates. Records stay in memory as slices of what they were read
    /// into, so an allocation for each read would keep all of it for the sake of a few small messages.
    fn make_room(&mut self) {
        let missing = self.missing();
        if self.buffer.capacity() - self.buffer.len() < missing.max(ROOM_BYTES_MIN) {
            self.buffer.reserve(missing.max(READ_BYTES));
        }
    }

    /// Bytes that the frame at hand still needs, as far as it says. A peer that has proved who it is gets
    /// room for all of it at once; before that, no announced length is larger than a greeting.
    fn missing(&self) -> usize {
        let announced = self.buffer.first_chunk::<4>();
        let length = announced.map_or(0, |length| u32::from_le_bytes(*length) as usize);
        (4 + length.min(self.frame_bytes_max)).saturating_sub(self.buffer.len())
    }

    fn cut(&mut self) -> io::Result<Option<Frame>> {
        let Some(length) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if !(HEAD_BYTES - 4..=self.frame_bytes_max).contains(&length) {
            return Err(invalid(format!("a frame of {length} bytes")));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        let mut bytes = self.buffer.split_to(4 + length).freeze();
        bytes.advance(4);
        let kind = bytes.get_u8();
        let kind = Kind::from_byte(kind).ok_or_else(|| invalid(format!("frame kind {kind}")))?;
        let head = Head {
            kind,
            method: bytes.get_u8(),
            group: bytes.get_u16_le(),
            id: bytes.get_u64_le(),
        };
        Ok(Some(Frame { head, body: bytes }))
    }
}

/// Writes frames to a connection.
pub(super) struct FrameWriter {
    writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
}

impl FrameWriter {
    /// Writes one frame whose body is the given pieces, without copying them. Must not be cancelled
    /// if the connection is to be used again.
    pub(super) async fn write(&mut self, head: Head, body: &[Bytes]) -> io::Result<()> {
        let mut pieces = Vec::with_capacity(body.len() + 1);
        pieces.push(encode_head(head, body.iter().map(Bytes::len).sum()));
        pieces.extend(body.iter().cloned());
        self.write_pieces(pieces).await
    }

    /// Writes frames that are already encoded, heads included.
    pub(super) async fn write_pieces(&mut self, pieces: Vec<Bytes>) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|p| IoSlice::new(p)).collect();
        let mut rest = slices.as_mut_slice();
        // Nothing is left to write of empty pieces.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.writer.write_vectored(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut rest, written),
            }
        }
        Ok(())
    }
}

/// The head of a frame with a body of `body_len` bytes.
pub(super) fn encode_head(head: Head, body_len: usize) -> Bytes {
    let length = HEAD_BYTES - 4 + body_len;
    assert!(
        length <= FRAME_BYTES_MAX,
        "a frame of {length} bytes is over the limit"
    );
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES);
    bytes.put_u32_le(length as u32);
    bytes.put_u8(head.kind as u8);
    bytes.put_u8(head.method);
    bytes.put_u16_le(head.group);
    bytes.put_u64_le(head.id);
    bytes.freeze()
}

/// The two halves of a connection, framed; large frames are refused until the reader trusts the peer.
pub(super) fn framed(connection: Connection) -> (FrameReader, FrameWriter) {
    let writer = FrameWriter {
        writer: connection.writer,
    };
    (reader_of(connection.reader), writer)
}

/// Frames out of a stream of bytes whose sender is not trusted yet.
pub(super) fn reader_of(reader: Box<dyn AsyncRead + Send + Sync + Unpin>) -> FrameReader {
    FrameReader {
        reader,
        buffer: BytesMut::new(),
        frame_bytes_max: GREETING_BYTES_MAX,
    }
}

pub(super) fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pair() -> (FrameReader, FrameWriter) {
        let (a, b) = tokio::io::duplex(64);
        let (reader, _) = tokio::io::split(a);
        let (_, writer) = tokio::io::split(b);
        framed(Connection {
            reader: Box::new(reader),
            writer: Box::new(writer),
        })
    }

    #[tokio::test]
    async fn frames_pass_through_a_narrow_pipe() {
        let (mut reader, mut writer) = pair();
        let head = Head {
            kind: Kind::Append,
            method: 3,
            group: 7,
            id: 99,
        };
        let body = vec![
            Bytes::from(vec![1; 300]),
            Bytes::new(),
            Bytes::from(vec![2; 1000]),
        ];
        let sent = tokio::spawn(async move {
            writer.write(head, &body).await.unwrap();
            writer
                .write(Head::new(Kind::End, 7, 100), &[])
                .await
                .unwrap();
        });
        let frame = reader.read().await.unwrap().unwrap();
        assert_eq!((frame.head, frame.body.len()), (head, 1300));
        assert_eq!((frame.body[299], frame.body[300]), (1, 2));
        assert_eq!(reader.read().await.unwrap().unwrap().head.kind, Kind::End);
        sent.await.unwrap();
    }

    #[tokio::test]
    async fn small_frames_that_are_kept_share_their_memory() {
        let (mut reader, mut writer) = pair();
        let body = [Bytes::from(vec![5; 1000])];
        let frame_bytes = HEAD_BYTES + 1000;
        let mut kept: Vec<Bytes> = Vec::new();
        for id in 0..400 {
            let head = Head::new(Kind::Append, 7, id);
            let (sent, read) = tokio::join!(writer.write(head, &body), reader.read());
            sent.unwrap();
            kept.push(read.unwrap().unwrap().body);
        }
        let apart = kept
            .windows(2)
            .filter(|two| two[0].as_ptr() as usize + frame_bytes != two[1].as_ptr() as usize)
            .count();
        assert!(apart < 10, "{apart} allocations for 400 frames of 1 kB");
    }

    #[tokio::test]
    async fn absurd_frames_are_refused_without_allocating() {
        for bytes in [
            &[0xff; 16][..],
            &[3, 0, 0, 0, 9, 9, 9][..],
            &[12, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let (mut near, far) = tokio::io::duplex(64);
            near.write_all(bytes).await.unwrap();
            let (reader, writer) = tokio::io::split(far);
            let (mut reader, _writer) = framed(Connection {
                reader: Box::new(reader),
                writer: Box::new(writer),
            });
            assert_eq!(
                reader.read().await.unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
    }
}
