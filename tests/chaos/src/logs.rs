//! The replicas' logs as they are on their disks, record by record: equal to the byte, or a promise is broken
//! (I16). Reads the segments itself (`docs/formats.md`), not with the code that wrote them.

use std::path::{Path, PathBuf};

use gantry_checker::Note;

use crate::cluster::Cluster;
use crate::net::name_of;
use crate::node::GROUPS;
use crate::shell::{Outcome, while_doing};

/// Records that a digest is over; the last of them has a number that this divides.
const DIGEST_RECORDS: u64 = 256;

const MAGIC: &[u8] = b"GLOG";
const HEADER: usize = 80;
const HEADER_CRC_AT: usize = 76;
const FILLER: u8 = 255;

/// What was read of all logs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// Records.
    pub records: u64,
    /// Digests.
    pub digests: u64,
    /// Places where a log cannot be read on.
    pub damaged: u64,
}

/// Writes digests of all logs into the history, while nothing is written.
pub fn compare(cluster: &Cluster) -> Outcome<Compared> {
    let mut compared = Compared::default();
    for node in &cluster.nodes {
        for broker in GROUPS {
            let directory = node.data().join("groups").join(broker);
            let mut log = Log::default();
            for (base, path) in segments(&directory)? {
                let bytes = std::fs::read(&path).map_err(while_doing("reading a segment"))?;
                log.walk(base, &bytes);
            }
            for (index, crc) in &log.digests {
                cluster.view.note(Note::Digest {
                    broker: broker.to_string(),
                    node: name_of(node.number),
                    index: *index,
                    crc: *crc,
                })?;
            }
            compared.records += log.records;
            compared.digests += log.digests.len() as u64;
            compared.damaged += log.damaged;
        }
    }
    Ok(compared)
}

fn segments(directory: &Path) -> Outcome<Vec<(u64, PathBuf)>> {
    let entries = std::fs::read_dir(directory).map_err(while_doing("listing a log"))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(while_doing("listing a log"))?.path();
        let is_segment = path.extension().is_some_and(|end| end == "log");
        let base = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(base) = base.filter(|_| is_segment) {
            found.push((base, path));
        }
    }
    found.sort();
    Ok(found)
}

/// A log as far as it was walked.
#[derive(Default)]
struct Log {
    records: u64,
    damaged: u64,
    digests: Vec<(u64, u32)>,
    /// The index that the next record has, if any was met.
    next: Option<u64>,
    /// The open digest, if it has all records from its first one on.
    hasher: Option<crc32fast::Hasher>,
}

impl Log {
    /// Walks a segment to its end, or to where no record follows.
    fn walk(&mut self, base: u64, bytes: &[u8]) {
        let mut at = 0;
        while let Some(header) = header_at(bytes, at, base) {
            if header.kind == FILLER {
                return;
            }
            let end = at + HEADER + header.payload;
            let payload = bytes.get(at + HEADER..end);
            let whole = payload.filter(|payload| crc32fast::hash(payload) == header.payload_crc);
            match whole {
                Some(payload) => self.take(&header, &bytes[at..at + HEADER], payload),
                None => self.broken(header.index),
            }
            at = end.next_multiple_of(8);
        }
    }

    fn take(&mut self, header: &Header, head: &[u8], payload: &[u8]) {
        let index = header.index;
        if self.next.is_some_and(|next| next != index) {
            self.broken(index);
        }
        if index % DIGEST_RECORDS == 1 {
            self.hasher = Some(crc32fast::Hasher::new());
        }
        self.next = Some(index + 1);
        self.records += 1;
        let Some(hasher) = &mut self.hasher else {
            return;
        };
        // Without the CRC at the head's end: with it the CRC of every head is the same.
        hasher.update(&head[..HEADER_CRC_AT]);
        hasher.update(payload);
        if index.is_multiple_of(DIGEST_RECORDS)
            && let Some(hasher) = self.hasher.take()
        {
            self.digests.push((index, hasher.finalize()));
        }
    }

    /// A record is not there or not whole: what it is in has no digest.
    fn broken(&mut self, index: u64) {
        self.damaged += 1;
        self.hasher = None;
        self.next = Some(index + 1);
    }
}

struct Header {
    kind: u8,
    index: u64,
    payload: usize,
    payload_crc: u32,
}

/// The header at a place, if one that belongs there is whole.
fn header_at(bytes: &[u8], at: usize, base: u64) -> Option<Header> {
    let head = bytes.get(at..at + HEADER)?;
    let u32_at = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let is_whole = u32_at(HEADER_CRC_AT)? == crc32fast::hash(&head[..HEADER_CRC_AT]);
    if !head.starts_with(MAGIC) || !is_whole || u64_at(32)? != base + at as u64 {
        return None;
    }
    Some(Header {
        kind: head[5],
        index: u64_at(24)?,
        payload: u32_at(64)? as usize,
        payload_crc: u32_at(68)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Records 1 to `count` in one segment.
    fn segment(count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for index in 1..=count {
            let payload = vec![index as u8; 13];
            let mut head = vec![0; HEADER];
            head[..4].copy_from_slice(MAGIC);
            head[5] = 2;
            head[24..32].copy_from_slice(&index.to_le_bytes());
            head[32..40].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            head[64..68].copy_from_slice(&13u32.to_le_bytes());
            head[68..72].copy_from_slice(&crc32fast::hash(&payload).to_le_bytes());
            let crc = crc32fast::hash(&head[..76]);
            head[76..].copy_from_slice(&crc.to_le_bytes());
            bytes.extend(head);
            bytes.extend(payload);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes.resize(bytes.len() + 4096, 0);
        bytes
    }

    fn walked(bytes: &[u8]) -> Log {
        let mut log = Log::default();
        log.walk(0, bytes);
        log
    }

    #[test]
    fn equal_logs_have_equal_digests_and_others_have_not() {
        let bytes = segment(2 * DIGEST_RECORDS + 5);
        let log = walked(&bytes);
        assert_eq!((log.records, log.damaged), (2 * DIGEST_RECORDS + 5, 0));
        assert_eq!(log.digests.len(), 2);
        assert_eq!(log.digests, walked(&bytes).digests);
        // A record that is whole and another.
        let mut other = segment(2 * DIGEST_RECORDS + 5);
        other[40] ^= 1;
        let crc = crc32fast::hash(&other[..76]);
        other[76..80].copy_from_slice(&crc.to_le_bytes());
        let other = walked(&other);
        assert_ne!(log.digests[0], other.digests[0]);
        assert_eq!(log.digests[1], other.digests[1]);
    }

    #[test]
    fn a_damaged_record_is_seen_and_what_is_behind_it_is_compared() {
        let mut bytes = segment(2 * DIGEST_RECORDS);
        let whole = walked(&bytes);
        bytes[HEADER + 3] ^= 1;
        let log = walked(&bytes);
        assert_eq!(log.damaged, 1);
        assert_eq!(log.digests, whole.digests[1..]);
    }
}
