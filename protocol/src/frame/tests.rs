//! Cutting: hand-computed bytes, every split, every refusal.

#![allow(clippy::unwrap_used)]

use super::*;

/// Length 9 = 4 + header 3 + body 2; compact encoding.
const GOLDEN: [u8; 13] = [0, 0, 0, 9, 1, 0, 0, 3, b'h', b'd', b'r', b'b', b'o'];

fn buffer(bytes: &[u8]) -> BytesMut {
    BytesMut::from(bytes)
}

#[test]
fn golden_frame_is_cut_and_the_rest_stays() {
    let mut input = buffer(&GOLDEN);
    input.extend_from_slice(b"next");
    let frame = cut(&mut input).unwrap().unwrap();
    assert_eq!(frame.encoding, Encoding::RocketMq);
    assert_eq!(
        (&frame.header[..], &frame.body[..]),
        (&b"hdr"[..], &b"bo"[..])
    );
    assert_eq!(&input[..], b"next");
    assert_eq!(prefix(Encoding::RocketMq, 3, 2), GOLDEN[..8]);
}

#[test]
fn a_frame_split_at_every_point_arrives_whole() {
    let two = [GOLDEN, GOLDEN].concat();
    for split in 0..=two.len() {
        let mut input = buffer(&two[..split]);
        let mut frames = 0;
        while cut(&mut input).unwrap().is_some() {
            frames += 1;
        }
        assert_eq!(frames, split / GOLDEN.len(), "split at {split}");
        assert_eq!(input.len(), split % GOLDEN.len());
        input.extend_from_slice(&two[split..]);
        while let Some(frame) = cut(&mut input).unwrap() {
            assert_eq!(
                (&frame.header[..], &frame.body[..]),
                (&b"hdr"[..], &b"bo"[..])
            );
            frames += 1;
        }
        assert_eq!((frames, input.len()), (2, 0));
    }
}

#[test]
fn byte_by_byte() {
    let mut input = BytesMut::new();
    for (position, byte) in GOLDEN.iter().enumerate() {
        assert_eq!(cut(&mut input).unwrap(), None, "before byte {position}");
        input.extend_from_slice(&[*byte]);
    }
    assert!(cut(&mut input).unwrap().is_some());
}

#[test]
fn header_and_body_may_be_empty() {
    let mut input = buffer(&[0, 0, 0, 4, 0, 0, 0, 0]);
    let frame = cut(&mut input).unwrap().unwrap();
    assert_eq!(
        (frame.encoding, frame.header.len(), frame.body.len()),
        (Encoding::Json, 0, 0)
    );
    let mut input = buffer(&[0, 0, 0, 5, 0, 0, 0, 1, b'{']);
    assert_eq!(cut(&mut input).unwrap().unwrap().body.len(), 0);
}

#[test]
fn refusals_come_as_early_as_possible_and_take_nothing() {
    let largest = (FRAME_BYTES_MAX - 4) as u32;
    let bytes = FRAME_BYTES_MAX as u64 + 1;
    let cases: [(&[u8], FrameError); 6] = [
        (&(largest + 1).to_be_bytes(), FrameError::TooLarge { bytes }),
        (
            &[0xFF; 4],
            FrameError::TooLarge {
                bytes: 0x1_0000_0003,
            },
        ),
        (&[0, 0, 0, 3], FrameError::TooSmall { length: 3 }),
        (&[0, 0, 0, 9, 2, 0, 0, 3], FrameError::UnknownEncoding(2)),
        (
            &[0, 0, 0, 9, 0x16, 3, 1, 2],
            FrameError::UnknownEncoding(0x16),
        ),
        (
            &[0, 0, 0, 9, 0, 0, 0, 6],
            FrameError::HeaderBeyondFrame {
                header: 6,
                available: 5,
            },
        ),
    ];
    for (bytes, error) in cases {
        let mut input = buffer(bytes);
        assert_eq!(cut(&mut input), Err(error));
        assert_eq!(&input[..], bytes);
    }
}

#[test]
fn an_announced_length_allocates_nothing() {
    let announced = (FRAME_BYTES_MAX - 4) as u32;
    let mut input = buffer(&announced.to_be_bytes());
    input.extend_from_slice(&[0, 0, 0, 1]);
    let capacity = input.capacity();
    assert_eq!(cut(&mut input), Ok(None));
    assert_eq!(input.capacity(), capacity);
}
