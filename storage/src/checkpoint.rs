//! All replicated state as of one record, as bytes: what a snapshot carries and what a restart begins with.
//!
//! ```text
//!  0 magic u32  4 version u32  8 CRC u32 (of the rest)  12 bincode of `Image`
//! ```
//!
//! Version 1 ended before what is parked, version 2 before the recent sends: they are read as version 3 with
//! nothing behind their end.
//!
//! On disk in `checkpoint-<index of the record, 20 digits>`.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::codec;
use crate::commitlog::{LeaderTag, LogStart};
use crate::fs::FileSystem;
use crate::planted::{Bug, planted};
use crate::position::{LogIndex, PhysicalOffset, QueueOffset};
use crate::queue_offsets::QueueKey;
use crate::tables::{ConsumerOffsets, Leases, Parked, RecentSends, RequestModes, Tables};

/// `GCKP`, little-endian.
const MAGIC: u32 = 0x504b_4347;
const VERSION: u32 = 3;
/// The version that ends before what is parked.
const VERSION_WITHOUT_PARKED: u32 = 1;
/// The version that ends before the recent sends.
const VERSION_WITHOUT_SENDS: u32 = 2;
const HEADER_BYTES: usize = 12;
const PREFIX: &str = "checkpoint-";
const DRAFT_SUFFIX: &str = ".new";

/// Bytes that are no checkpoint of this version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a checkpoint: {0}")]
pub struct NotACheckpoint(String);

/// What a checkpoint says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image<'a> {
    /// The last record that is in it.
    pub applied: Option<(LogIndex, LeaderTag)>,
    pub membership: Option<(LogIndex, LeaderTag, Vec<u8>)>,
    /// Where the log ended after that record.
    pub next_offset: PhysicalOffset,
    pub tables: Cow<'a, Tables>,
    /// Next offset of each queue, ordered.
    pub queues: Vec<(QueueKey, QueueOffset)>,
    /// What waits in the log; the tables are encoded without it. Borrowed for encoding, since there may be
    /// millions.
    pub parked: Cow<'a, Parked>,
    /// Messages that are handed out; the tables are encoded without them. Borrowed for encoding, since there
    /// may be many.
    pub leases: Cow<'a, Leases>,
    /// How groups ask for messages; the tables are encoded without it.
    pub request_modes: Cow<'a, RequestModes>,
    /// Where groups were moved to and do not read from yet; the tables are encoded without it.
    pub resets: Cow<'a, ConsumerOffsets>,
    /// What was sent lately to topics that keep one copy of a message; the tables are encoded without it.
    /// Borrowed for encoding, since there may be many.
    pub recent_sends: Cow<'a, RecentSends>,
}

impl Image<'_> {
    /// Where a log begins that goes on after this.
    pub(crate) fn log_start(&self) -> LogStart {
        let (last_index, last_tag) = self.applied.unzip();
        LogStart {
            last_index,
            last_tag: last_tag.unwrap_or_default(),
            next_offset: self.next_offset,
        }
    }
}

/// An encoded checkpoint. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub applied: Option<(LogIndex, LeaderTag)>,
    pub bytes: Bytes,
}

impl Checkpoint {
    pub(crate) fn encode(image: &Image<'_>) -> Self {
        Self {
            applied: image.applied,
            bytes: Bytes::from(Self::seal(&codec::encode(image))),
        }
    }

    /// The header, and the body behind it.
    pub(crate) fn seal(body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// Checks and decodes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Image<'static>, NotACheckpoint> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(NotACheckpoint(format!("{} bytes", bytes.len())));
        };
        let word =
            |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        if word(0) != MAGIC {
            return Err(NotACheckpoint("no magic".to_owned()));
        }
        let version = word(4);
        let Some(rest) = behind(version) else {
            return Err(NotACheckpoint(format!(
                "version {version}, known are {VERSION_WITHOUT_PARKED} to {VERSION}"
            )));
        };
        if word(8) != crc32fast::hash(body) {
            return Err(NotACheckpoint("CRC mismatch".to_owned()));
        }
        let decoded = if rest.is_empty() {
            codec::decode(body)
        } else {
            codec::decode(&[body, &rest].concat())
        };
        decoded.map_err(|error| NotACheckpoint(error.to_string()))
    }
}

/// What a version lacks at its end, with nothing in it; `None` for a version that is not known.
fn behind(version: u32) -> Option<Vec<u8>> {
    let sends = RecentSends::default();
    match version {
        VERSION_WITHOUT_PARKED => {
            let (parked, leases) = (Parked::default(), Leases::default());
            let (modes, resets) = (RequestModes::default(), ConsumerOffsets::default());
            Some(codec::encode(&(parked, leases, modes, resets, sends)))
        }
        VERSION_WITHOUT_SENDS => Some(codec::encode(&sends)),
        VERSION => Some(Vec::new()),
        _ => None,
    }
}

/// The checkpoint files of a group. One caller at a time.
pub(crate) struct CheckpointFiles {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
}

impl CheckpointFiles {
    /// Uses `dir`, which exists.
    pub(crate) fn new(fs: Arc<dyn FileSystem>, dir: &Path) -> Self {
        Self {
            fs,
            dir: dir.to_path_buf(),
        }
    }

    /// Indexes that there are files for, ascending. Whether they are whole shows when they are read.
    pub(crate) fn list(&self) -> io::Result<Vec<LogIndex>> {
        let names = self.fs.list(&self.dir)?;
        let index = |name: &String| name.strip_prefix(PREFIX)?.parse().ok().map(LogIndex::new);
        Ok(names.iter().filter_map(index).collect())
    }

    /// Writes a file; durable under its name when this returns.
    pub(crate) fn write(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        let (index, _) = checkpoint
            .applied
            .expect("a checkpoint on disk is of a record");
        let path = self.path(index);
        let mut draft = path.clone().into_os_string();
        draft.push(DRAFT_SUFFIX);
        let draft = PathBuf::from(draft);
        let file = self.fs.create(&draft)?;
        file.write_all_at(&checkpoint.bytes, 0)?;
        if !planted(Bug::CheckpointNotSynced) {
            file.sync_data()?;
        }
        self.fs.rename(&draft, &path)?;
        self.fs.sync_dir(&self.dir)
    }

    /// Bytes of the file for `index`.
    pub(crate) fn read(&self, index: LogIndex) -> io::Result<Bytes> {
        let file = self.fs.open(&self.path(index))?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Bytes::from(bytes))
    }

    /// Removes the files for indexes below `index`.
    pub(crate) fn remove_below(&self, index: LogIndex) -> io::Result<()> {
        for old in self.list()? {
            if old < index {
                self.fs.remove(&self.path(old))?;
            }
        }
        Ok(())
    }

    /// File of `index`.
    pub(crate) fn path(&self, index: LogIndex) -> PathBuf {
        self.dir.join(format!("{PREFIX}{:020}", index.get()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fs::RealFs;

    fn sample(index: u64) -> Image<'static> {
        let tag = LeaderTag { term: 2, leader: 1 };
        Image {
            applied: Some((LogIndex::new(index), tag)),
            membership: Some((LogIndex::new(1), tag, b"members".to_vec())),
            next_offset: PhysicalOffset::new(4096),
            tables: Cow::default(),
            queues: vec![(
                QueueKey {
                    topic_id: 1,
                    queue: 0,
                },
                QueueOffset::new(5),
            )],
            parked: Cow::default(),
            leases: Cow::default(),
            request_modes: Cow::default(),
            resets: Cow::default(),
            recent_sends: Cow::default(),
        }
    }

    #[test]
    fn an_image_comes_back_and_damage_is_noticed() {
        let image = sample(7);
        let bytes = Checkpoint::encode(&image).bytes;
        assert_eq!(Checkpoint::decode(&bytes).unwrap(), image);
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 4;
            assert!(Checkpoint::decode(&bad).is_err(), "byte {at}");
            assert!(Checkpoint::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn checkpoints_of_older_versions_have_nothing_behind_their_end() {
        let image = sample(7);
        let (applied, membership) = (image.applied, image.membership.clone());
        let (next_offset, tables) = (image.next_offset, image.tables.clone());
        let before = (
            applied,
            membership,
            next_offset,
            tables,
            image.queues.clone(),
        );
        let mut bytes = Checkpoint::seal(&codec::encode(&before));
        assert!(Checkpoint::decode(&bytes).is_err(), "it says version 3");
        bytes[4..8].copy_from_slice(&VERSION_WITHOUT_PARKED.to_le_bytes());
        assert_eq!(Checkpoint::decode(&bytes).unwrap(), image);
        let parked = (image.parked.clone(), image.leases.clone());
        let rest = (image.request_modes.clone(), image.resets.clone());
        let mut bytes = Checkpoint::seal(&codec::encode(&(before, parked, rest)));
        bytes[4..8].copy_from_slice(&VERSION_WITHOUT_SENDS.to_le_bytes());
        assert_eq!(Checkpoint::decode(&bytes).unwrap(), image);
        bytes[4..8].copy_from_slice(&(VERSION + 1).to_le_bytes());
        assert!(Checkpoint::decode(&bytes).is_err(), "of a newer program");
    }

    #[test]
    fn files_are_listed_in_order_and_removed_from_below() {
        let dir = tempfile::tempdir().unwrap();
        let files = CheckpointFiles::new(Arc::new(RealFs), dir.path());
        for index in [100, 9, 20] {
            files.write(&Checkpoint::encode(&sample(index))).unwrap();
        }
        std::fs::write(dir.path().join("checkpoint-1.new"), "draft").unwrap();
        let listed = |files: &CheckpointFiles| -> Vec<u64> {
            files
                .list()
                .unwrap()
                .into_iter()
                .map(LogIndex::get)
                .collect()
        };
        assert_eq!(listed(&files), [9, 20, 100]);
        let read = files.read(LogIndex::new(20)).unwrap();
        assert_eq!(Checkpoint::decode(&read).unwrap(), sample(20));
        files.remove_below(LogIndex::new(20)).unwrap();
        assert_eq!(listed(&files), [20, 100]);
    }
}
