//! The formats of this module for `testing::formats`.

use super::format::{RUN_HEADER_BYTES, RunHeader, decode_entries, encode_run};

/// A run with these contents (from, through, entries), its magic, count and CRCs right.
pub(crate) fn seal_run(contents: &[u8]) -> Vec<u8> {
    let (bounds, entries) = contents.split_at(contents.len().min(8));
    let entries = &entries[..entries.len() / 8 * 8];
    let mut bytes = b"GKEY".to_vec();
    bytes.extend_from_slice(&(entries.len() as u32 / 8).to_le_bytes());
    bytes.extend_from_slice(bounds);
    bytes.resize(16, 0);
    bytes.extend_from_slice(&crc32fast::hash(entries).to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(entries);
    bytes
}

pub(crate) fn run_again(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = RunHeader::decode(bytes.first_chunk()?)?;
    let entries = bytes[RUN_HEADER_BYTES..].get(..header.count as usize * 8)?;
    let entries = decode_entries(&header, entries)?;
    Some(encode_run(&entries, header.from, header.through).1)
}
