//! What a disk, an operator or an enemy may do to the files of a group.

use std::path::{Path, PathBuf};

use super::ground::Files;
use crate::input::Input;

const EDITS_MAX: usize = 6;
/// Bytes that an edit inserts or moves at most.
const PIECE_BYTES_MAX: usize = 4096;
/// Files do not grow beyond this: what takes long because it is large is no finding.
const FILE_BYTES_MAX: usize = 64 << 10;

/// What was done, as far as the checks must know.
pub(super) struct Damage {
    /// A checksum was made right again, or whole contents were invented: what is read may be another truth.
    pub forged: bool,
    /// Neither records nor mark nor vote were touched.
    pub only_derived: bool,
}

/// Carries out the edits that `input` describes.
pub(super) fn apply_edits(files: &mut Files, input: &mut Input<'_>) -> Damage {
    let mut damage = Damage {
        forged: false,
        only_derived: true,
    };
    for _ in 0..EDITS_MAX {
        if input.is_empty() || files.is_empty() {
            break;
        }
        let number = input.below(files.len());
        let path = files.keys().nth(number).unwrap().clone();
        damage.only_derived &= is_derived(&path);
        edit(files, &path, input, &mut damage);
    }
    damage
}

fn is_derived(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    !(name.ends_with(".log") || name == "mark" || name == "vote")
}

/// Vote and mark have the same form and do not say which they are.
fn takes_any(path: &Path, source: &Path) -> bool {
    path != source && ["mark", "vote"].iter().any(|name| path.ends_with(name))
}

fn edit(files: &mut Files, path: &PathBuf, input: &mut Input<'_>, damage: &mut Damage) {
    let kind = input.byte() % 10;
    let number = input.below(files.len());
    let other = files.keys().nth(number).unwrap().clone();
    let bytes = files.get_mut(path).unwrap();
    let at = input.below(bytes.len().max(1)).min(bytes.len());
    match kind {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << (input.byte() % 8),
        1 => overwrite(bytes, at, input.piece()),
        2 => bytes.truncate(at),
        3 => {
            let count = input.below(PIECE_BYTES_MAX);
            let end = (at + count).min(bytes.len());
            bytes[at..end].fill(input.byte());
        }
        4 => drop(files.remove(path)),
        5 => {
            // A write that went to the wrong place, or a page of another time.
            let from = input.below(PIECE_BYTES_MAX * 4);
            let count = input.below(PIECE_BYTES_MAX);
            let source = &files[&other];
            let from = from.min(source.len());
            let piece = source[from..source.len().min(from + count)].to_vec();
            damage.forged |= takes_any(path, &other);
            overwrite(files.get_mut(path).unwrap(), at, &piece);
        }
        6 => {
            // The file of another name.
            let contents = files[&other].clone();
            damage.forged |= takes_any(path, &other);
            *files.get_mut(path).unwrap() = contents;
        }
        7 => {
            overwrite(bytes, at, input.piece());
            reseal(path, bytes, at);
            damage.forged = true;
        }
        8 => {
            *bytes = input.piece().to_vec();
            reseal(path, bytes, 0);
            damage.forged = true;
        }
        _ => add_file(files, path, input, damage),
    }
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = (at + piece.len()).min(FILE_BYTES_MAX);
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(&piece[..end - at]);
}

/// A copy under the name of another position: as a segment, an index file, a checkpoint of another time.
fn add_file(files: &mut Files, path: &Path, input: &mut Input<'_>, damage: &mut Damage) {
    let position = match input.byte() % 4 {
        0 => input.u64(),
        1 => u64::from(input.byte()) * (8 << 10),
        2 => u64::from(input.u16()),
        _ => u64::MAX - u64::from(input.byte()),
    };
    let name = match input.byte() % 5 {
        0 => format!("{position:020}.log"),
        1 => format!("{position:020}.idx"),
        2 => format!("checkpoint-{position:020}"),
        3 => format!("{position:020}.spare"),
        _ => format!("{position:020}.log.tmp"),
    };
    let contents = files[path].clone();
    let path = Path::new(super::DIRECTORY).join(name);
    damage.only_derived &= is_derived(&path);
    files.insert(path, contents);
}

/// Makes the checksums right that cover what stands at `at`. Written from `docs/formats.md`, not the code.
fn reseal(path: &Path, bytes: &mut [u8], at: usize) {
    let name = path.file_name().unwrap().to_string_lossy();
    if name.ends_with(".log") {
        reseal_record(bytes, at);
    } else if name.ends_with(".idx") {
        reseal_from(bytes, 4, 8);
    } else if name.starts_with("checkpoint-") {
        reseal_from(bytes, 8, 12);
    } else if name == "mark" || name == "vote" {
        for slot in bytes.chunks_mut(4096).filter(|slot| slot.len() > 20) {
            let length = u32::from_le_bytes(slot[16..20].try_into().unwrap()) as usize;
            let end = (20 + length).min(slot.len());
            put_crc(&mut slot[..end], 4, 8);
        }
    } else if name.ends_with(".keys") && bytes.len() >= 24 {
        let crc = crc32fast::hash(&bytes[24..]).to_le_bytes();
        bytes[16..20].copy_from_slice(&crc);
        let crc = crc32fast::hash(&bytes[..20]).to_le_bytes();
        bytes[20..24].copy_from_slice(&crc);
    }
}

/// The record in whose header or payload `at` lies.
fn reseal_record(bytes: &mut [u8], at: usize) {
    let start = at.min(bytes.len().saturating_sub(1)) / 8 * 8;
    let found = (0..=start)
        .rev()
        .step_by(8)
        .find(|start| bytes[*start..].starts_with(b"GLOG"));
    let Some(start) = found else {
        return;
    };
    let record = &mut bytes[start..];
    if record.len() < 80 {
        return;
    }
    let length = u32::from_le_bytes(record[64..68].try_into().unwrap()) as usize;
    if let Some(payload) = record.get(80..80usize.saturating_add(length)) {
        let crc = crc32fast::hash(payload).to_le_bytes();
        record[68..72].copy_from_slice(&crc);
    }
    let crc = crc32fast::hash(&record[..76]).to_le_bytes();
    record[76..80].copy_from_slice(&crc);
}

fn reseal_from(bytes: &mut [u8], at: usize, from: usize) {
    if bytes.len() >= from {
        put_crc(bytes, at, from);
    }
}

/// Puts the CRC of everything from `from` on at `at`.
fn put_crc(bytes: &mut [u8], at: usize, from: usize) {
    let crc = crc32fast::hash(&bytes[from..]).to_le_bytes();
    bytes[at..at + 4].copy_from_slice(&crc);
}
