//! The formats of this module for `testing::formats`.

use std::path::Path;

use super::format::{Header, RECORD_HEADER_BYTES};
use super::hard_state::{HardState, Held};
use super::mark::Mark;
use super::sidecar::Sidecar;
use crate::fs::FileSystem;

pub(crate) use super::hard_state::HARD_STATE_BYTES_MAX;

/// A header with these fields, its magic and CRC right.
pub(crate) fn seal_header(fields: &[u8]) -> Vec<u8> {
    let mut bytes = b"GLOG\x01".to_vec();
    bytes.extend_from_slice(fields);
    bytes.resize(RECORD_HEADER_BYTES - 4, 0);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

pub(crate) fn header_again(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = Header::decode(bytes.first_chunk()?).ok()?;
    Some(header.encode().to_vec())
}

pub(crate) fn mark_again(bytes: &[u8]) -> Option<Vec<u8>> {
    Mark::decode(bytes).ok().map(|mark| mark.encode())
}

/// An index file with these contents, its magic and CRC right.
pub(crate) fn seal_sidecar(contents: &[u8]) -> Vec<u8> {
    let mut bytes = b"ILOG".to_vec();
    bytes.extend_from_slice(&crc32fast::hash(contents).to_le_bytes());
    bytes.extend_from_slice(contents);
    bytes
}

pub(crate) fn sidecar_again(bytes: &[u8]) -> Option<Vec<u8>> {
    Sidecar::decode(bytes).map(|sidecar| sidecar.encode())
}

pub(crate) fn store_hard_state(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) {
    let (mut state, _) = HardState::open(fs, path).expect("the file is empty");
    state.store(bytes).expect("a disk in memory does not fail");
}

pub(crate) fn load_hard_state(fs: &dyn FileSystem, path: &Path) -> Option<Vec<u8>> {
    match HardState::open(fs, path).ok()?.1 {
        Held::Value(bytes) => Some(bytes),
        Held::Nothing | Held::Lost => None,
    }
}
