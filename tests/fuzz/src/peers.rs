//! What peers say: frames in any pieces, every message of Raft, snapshots, and calls to a real broker.

use std::sync::PoisonError;

use bytes::Bytes;
use gantry_raft::testing::{self, Message};
use gantry_storage::Snapshot;
use gantry_storage::tables::encode_commands;

use crate::input::Input;
use crate::node::Node;
use crate::requests::NODE;
use crate::round_trips::command_of;

/// Call methods that there may be: beyond these the number does not fit into its byte on the wire.
const METHODS: u8 = 12;

/// The largest frame from someone who has not proved to be a peer, and some room around it; bytes.
const UNTRUSTED_ROOM_MAX: usize = 160 * 1024;

/// The first byte chooses.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 8 {
        0 | 1 => stream(&mut input),
        2 => snapshot(&mut input),
        3 => call(&mut input),
        _ => message(&mut input),
    }
}

fn message(input: &mut Input<'_>) {
    let message = Message::ALL[input.below(Message::ALL.len())];
    let Some(once) = message.again(Bytes::copy_from_slice(input.rest())) else {
        return;
    };
    if message == Message::SnapshotBegin {
        let length = u64::from_le_bytes(once[..].try_into().unwrap());
        assert!(length <= 1 << 30, "a snapshot of {length} bytes");
        return;
    }
    let twice = message.again(Bytes::from(once.clone()));
    assert_eq!(twice, Some(once), "{message:?} after another trip");
}

/// Frames do not depend on how they arrive, and an announced length takes no memory before a proof.
fn stream(input: &mut Input<'_>) {
    let trusted = input.flag();
    let mut bytes = Vec::new();
    if input.flag() {
        let kind = input.byte() % 13;
        let bodies: Vec<&[u8]> = (0..input.byte() % 4).map(|_| input.piece()).collect();
        bytes = testing::encode_frames(kind, &bodies).unwrap_or_default();
    }
    let step = usize::from(input.byte()) % 61 + 1;
    bytes.extend_from_slice(input.rest());
    let whole = testing::frames(vec![bytes.clone()], trusted);
    let pieces = bytes.chunks(step).map(<[u8]>::to_vec).collect();
    let pieced = testing::frames(pieces, trusted);
    assert_eq!(
        (&whole.0, &whole.1),
        (&pieced.0, &pieced.1),
        "depends on the pieces"
    );
    let body_bytes: usize = whole.0.iter().map(|frame| frame.4.len()).sum();
    assert!(body_bytes <= bytes.len());
    if !trusted {
        let room = whole.2.max(pieced.2);
        assert!(room <= UNTRUSTED_ROOM_MAX, "{room} bytes for a stranger");
    }
}

fn snapshot(input: &mut Input<'_>) {
    let format = gantry_storage::testing::Format::Checkpoint;
    let sealed = input.flag();
    let bytes = input.rest();
    let bytes = if sealed {
        format.seal(bytes)
    } else {
        bytes.to_vec()
    };
    drop(Snapshot::decode(Bytes::from(bytes)));
}

/// Any body for any method; and commands that are well formed, whatever they say.
fn call(input: &mut Input<'_>) {
    let mut kept = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    let node = Node::for_input(&mut kept);
    if input.flag() {
        let commands: Vec<_> = (0..input.byte() % 4).map(|_| command_of(input)).collect();
        return node.call(0, encode_commands(&commands));
    }
    let method = input.byte() % METHODS;
    node.call(method, input.rest().to_vec());
}
