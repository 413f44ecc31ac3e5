//! A copy of the state in `sled`, so that a restart replays seconds of log and not a segment.
//!
//! One database per node, one tree per group. The state is cut into pieces of 64 KiB; a save writes the
//! pieces that changed, and the head that says which record they are of, in one batch. Nothing depends on
//! the copy: whatever is wrong with it, it is ignored and written anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::checkpoint::{Checkpoint, Image};
use crate::codec;

/// Memory that the database may use as its cache; bytes.
const CACHE_BYTES: u64 = 16 << 20;
const PIECE_BYTES: usize = 64 << 10;
const HEAD: &[u8] = b"head";

/// Opens the node's database in `dir`. A database that does not open is moved aside and replaced by an empty
/// one.
///
/// # Errors
/// Not even an empty one can be created.
pub fn open(dir: &Path) -> io::Result<sled::Db> {
    remove_drafts(dir)?;
    match config(dir).open() {
        Ok(database) => Ok(database),
        Err(error) => {
            let aside = move_aside(dir)?;
            let aside = aside.display();
            tracing::warn!(%error, %aside, "the copy of the tables does not open, starting anew");
            config(dir).open().map_err(io::Error::other)
        }
    }
}

fn config(dir: &Path) -> sled::Config {
    sled::Config::new().path(dir).cache_capacity(CACHE_BYTES)
}

/// A crash may leave a half-written file that the database would take for its newest.
fn remove_drafts(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn move_aside(dir: &Path) -> io::Result<PathBuf> {
    for number in 0u32.. {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".broken-{number}"));
        let aside = PathBuf::from(name);
        if !aside.exists() {
            fs::rename(dir, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::other(
        "no free name to move the copy of the tables to",
    ))
}

/// The copy of one group's state.
pub(crate) struct TableCopy {
    tree: sled::Tree,
    /// CRC of each piece as it is in the tree; empty when unknown.
    saved: Vec<u32>,
}

impl TableCopy {
    pub(crate) fn new(tree: sled::Tree) -> Self {
        Self {
            tree,
            saved: Vec::new(),
        }
    }

    /// The state in the copy, if there is a whole one.
    pub(crate) fn load(&self) -> Option<Image<'static>> {
        let bytes = match self.read() {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!(%error, "the copy of the tables is ignored");
                return None;
            }
        };
        match Checkpoint::decode(&bytes) {
            Ok(image) => Some(image),
            Err(error) => {
                tracing::warn!(%error, "the copy of the tables is ignored");
                None
            }
        }
    }

    fn read(&self) -> Result<Option<Bytes>, sled::Error> {
        let Some(head) = self.tree.get(HEAD)? else {
            return Ok(None);
        };
        let Ok(pieces) = codec::decode::<u32>(&head) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        for number in 0..pieces {
            let Some(piece) = self.tree.get(number.to_be_bytes())? else {
                return Ok(None);
            };
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(Bytes::from(bytes)))
    }

    /// Replaces the copy. Durable when this returns.
    pub(crate) fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), sled::Error> {
        let mut batch = sled::Batch::default();
        let mut crcs = Vec::new();
        for (number, piece) in checkpoint.bytes.chunks(PIECE_BYTES).enumerate() {
            let crc = crc32fast::hash(piece);
            if self.saved.get(number) != Some(&crc) {
                batch.insert(&(number as u32).to_be_bytes(), piece);
            }
            crcs.push(crc);
        }
        for number in crcs.len()..self.saved.len() {
            batch.remove(&(number as u32).to_be_bytes());
        }
        batch.insert(HEAD, codec::encode(&(crcs.len() as u32)));
        // Unknown until all of it is written.
        self.saved.clear();
        self.tree.apply_batch(batch)?;
        self.tree.flush()?;
        self.saved = crcs;
        Ok(())
    }
}
