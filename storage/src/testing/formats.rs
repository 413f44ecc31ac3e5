//! The formats on disk as functions of bytes, for whoever feeds them with arbitrary ones.

use std::path::Path;

use super::FaultyFs;
use crate::checkpoint::Checkpoint;
use crate::commitlog::formats as log;
use crate::consume_queue::Unit;
use crate::fs::FileSystem;
use crate::key_index::formats as keys;
use crate::position::{PhysicalOffset, QueueOffset};
use crate::queue_offsets::QueueKey;

/// A format with a decoder of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Header of a record.
    RecordHeader,
    /// Contents of the synced mark.
    Mark,
    /// Index file of a segment.
    Sidecar,
    /// A two-slot file.
    HardState,
    /// A checkpoint, or snapshot.
    Checkpoint,
    /// A unit of a consume queue.
    Unit,
    /// A run of the key index.
    KeyRun,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 7] = [
        Format::RecordHeader,
        Format::Mark,
        Format::Sidecar,
        Format::HardState,
        Format::Checkpoint,
        Format::Unit,
        Format::KeyRun,
    ];

    /// `contents` with the magic, version and checksums that make a decoder look at them.
    pub fn seal(self, contents: &[u8]) -> Vec<u8> {
        match self {
            Format::RecordHeader => log::seal_header(contents),
            Format::Sidecar => log::seal_sidecar(contents),
            Format::HardState => hard_state_file(contents),
            Format::Checkpoint => Checkpoint::seal(contents),
            Format::KeyRun => keys::seal_run(contents),
            Format::Mark => contents.to_vec(),
            Format::Unit => seal_unit(contents),
        }
    }

    /// What `bytes` stand for, as bytes again; `None` if they are refused.
    pub fn again(self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Format::RecordHeader => log::header_again(bytes),
            Format::Mark => log::mark_again(bytes),
            Format::Sidecar => log::sidecar_again(bytes),
            Format::HardState => hard_state_in(bytes).map(|state| hard_state_file(&state)),
            Format::Checkpoint => {
                let image = Checkpoint::decode(bytes).ok()?;
                Some(Checkpoint::encode(&image).bytes.to_vec())
            }
            Format::Unit => {
                let mut out = Vec::new();
                Unit::decode(bytes.first_chunk()?, UNIT_KEY, UNIT_OFFSET)?.encode(
                    UNIT_KEY,
                    UNIT_OFFSET,
                    &mut out,
                );
                Some(out)
            }
            Format::KeyRun => keys::run_again(bytes),
        }
    }
}

const FILE: &str = "/d/state";

/// Where the units stand that are looked at; their CRCs cover it.
const UNIT_KEY: QueueKey = QueueKey {
    topic_id: 1,
    queue: 2,
};
const UNIT_OFFSET: QueueOffset = QueueOffset::new(3);

/// A unit with these fields, if they are long enough for one.
fn seal_unit(contents: &[u8]) -> Vec<u8> {
    let field = |from: usize| contents.get(from..).and_then(|rest| rest.first_chunk());
    let (Some(offset), Some(tags_code)) = (field(0), field(12)) else {
        return contents.to_vec();
    };
    let size = contents[8..12].try_into().expect("four bytes");
    let unit = Unit {
        offset: PhysicalOffset::new(u64::from_be_bytes(*offset)),
        size: u32::from_be_bytes(size),
        tags_code: i64::from_be_bytes(*tags_code),
    };
    let mut out = Vec::new();
    unit.encode(UNIT_KEY, UNIT_OFFSET, &mut out);
    out
}

/// A two-slot file to which `state` was written once.
fn hard_state_file(state: &[u8]) -> Vec<u8> {
    let fs = disk_with(&[]);
    let state = &state[..state.len().min(log::HARD_STATE_BYTES_MAX)];
    log::store_hard_state(&fs, Path::new(FILE), state);
    fs.contents(Path::new(FILE)).expect("it was just written")
}

fn hard_state_in(file: &[u8]) -> Option<Vec<u8>> {
    log::load_hard_state(&disk_with(file), Path::new(FILE))
}

fn disk_with(file: &[u8]) -> FaultyFs {
    let fs = FaultyFs::new();
    let written = fs
        .create_dir(Path::new("/d"))
        .and_then(|()| fs.create(Path::new(FILE)))
        .and_then(|created| created.write_all_at(file, 0));
    written.expect("a disk in memory takes what it is given");
    fs
}
