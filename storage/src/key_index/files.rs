//! The index files: `<dir>/<base of the segment, 20 digits>.keys`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::format::{
    ENTRY_BYTES, KeyEntry, RUN_ENTRIES, RUN_HEADER_BYTES, RunHeader, decode_entries, encode_run,
};
use super::pending::KeyBatch;
use crate::fs::{File, FileSystem};
use crate::position::PhysicalOffset;

const SUFFIX: &str = ".keys";

/// A run that lookups may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// First byte of its header in the file.
    at: u64,
    header: RunHeader,
}

/// Full runs of one segment; behind them in the file there may be a shorter one, whose entries are in memory
/// as well and which is overwritten by the next run.
#[derive(Clone, Default)]
struct SegmentRuns {
    file: Option<Arc<dyn File>>,
    runs: Vec<Run>,
}

impl SegmentRuns {
    fn end(&self) -> u64 {
        self.runs
            .last()
            .map_or(0, |run| run.at + run.header.run_bytes())
    }
}

/// What is left to do after a batch was written: the first `count` entries are in full runs, the others
/// begin at `from`; `u32::MAX` if the segment is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub base: PhysicalOffset,
    pub count: usize,
    pub from: u32,
}

/// What a file holds that a restart can go on from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resumed {
    /// Where the runs that stay in the file end.
    pub from: u32,
    /// Entries behind that.
    pub entries: Vec<KeyEntry>,
}

/// The index files of one group. Lookups may run next to everything; the rest is one caller's at a time.
pub(crate) struct KeyFiles {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    segments: Mutex<BTreeMap<PhysicalOffset, SegmentRuns>>,
    unsynced: Mutex<Vec<Arc<dyn File>>>,
}

impl KeyFiles {
    /// Uses `dir`, creating it if needed. Knows of no runs until [`resume`](Self::resume).
    pub(crate) fn open(fs: Arc<dyn FileSystem>, dir: &Path) -> io::Result<Self> {
        fs.create_dir(dir)?;
        let (segments, unsynced) = (Mutex::default(), Mutex::default());
        Ok(Self {
            fs,
            dir: dir.to_path_buf(),
            segments,
            unsynced,
        })
    }

    /// Takes up the index of the segment at `base` as of position `through` (`u32::MAX`: the whole segment):
    /// later runs are ignored and will be overwritten. `None` if the file does not hold everything from
    /// position `from` up to there.
    pub(crate) fn resume(
        &self,
        base: PhysicalOffset,
        from: u32,
        through: u32,
    ) -> io::Result<Option<Resumed>> {
        let file = match self.fs.open(&self.path(base)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut runs = SegmentRuns {
            file: Some(Arc::clone(&file)),
            runs: Vec::new(),
        };
        let mut reached = None;
        while let Some(run) = read_header(&*file, runs.end())? {
            let expected = reached.unwrap_or(run.header.from.min(from));
            if run.header.from != expected {
                return Ok(None);
            }
            reached = Some(run.header.through);
            let whole = run.header.count as usize == RUN_ENTRIES || run.header.through == u32::MAX;
            if whole && run.header.through <= through {
                runs.runs.push(run);
                if run.header.through == u32::MAX {
                    break;
                }
                continue;
            }
            let Some(mut entries) = read_entries(&*file, &run)? else {
                return Ok(None);
            };
            if run.header.through < through {
                return Ok(None);
            }
            entries.retain(|entry| entry.position < through);
            entries.sort_unstable_by_key(|entry| entry.position);
            self.segments().insert(base, runs);
            return Ok(Some(Resumed {
                from: run.header.from,
                entries,
            }));
        }
        if reached != Some(through) {
            return Ok(None);
        }
        self.segments().insert(base, runs);
        Ok(Some(Resumed {
            from: through,
            entries: Vec::new(),
        }))
    }

    /// Writes a batch: full runs, and what is left as a shorter one. In the page cache when it returns.
    pub(crate) fn write(&self, batch: &KeyBatch) -> io::Result<Written> {
        let mut runs = self
            .segments()
            .get(&batch.base)
            .cloned()
            .unwrap_or_default();
        let file = match &runs.file {
            Some(file) => Arc::clone(file),
            None => self.fs.create(&self.path(batch.base))?,
        };
        runs.file = Some(Arc::clone(&file));
        let (mut from, mut done) = (batch.from, 0);
        loop {
            let rest = &batch.entries[done..];
            let full = rest.len() >= RUN_ENTRIES;
            let part = &rest[..rest.len().min(RUN_ENTRIES)];
            let next = rest.get(part.len());
            let through = next.map_or(batch.through, |entry| entry.position);
            let (header, bytes) = encode_run(part, from, through);
            file.write_all_at(&bytes, runs.end())?;
            if full || through == u32::MAX {
                runs.runs.push(Run {
                    at: runs.end(),
                    header,
                });
                done += part.len();
                from = through;
            }
            if next.is_none() {
                break;
            }
        }
        self.segments().insert(batch.base, runs);
        self.unsynced().push(file);
        Ok(Written {
            base: batch.base,
            count: done,
            from,
        })
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let files = std::mem::take(&mut *self.unsynced());
        for file in files {
            file.sync_data()?;
        }
        self.fs.sync_dir(&self.dir)
    }

    /// Places with this hash, newest first, as far as they are in full runs.
    pub(crate) fn find(&self, hash: u32) -> io::Result<Vec<PhysicalOffset>> {
        let segments: Vec<_> = self
            .segments()
            .iter()
            .rev()
            .map(|(base, runs)| (*base, runs.clone()))
            .collect();
        let mut found = Vec::new();
        for (base, segment) in segments {
            let Some(file) = &segment.file else { continue };
            for run in segment.runs.iter().rev() {
                let mut positions = find_in_run(&**file, run, hash)?;
                positions.reverse();
                found.extend(
                    positions
                        .into_iter()
                        .map(|position| base.plus(u64::from(position))),
                );
            }
        }
        Ok(found)
    }

    /// Removes the files of segments before the one at `base`.
    pub(crate) fn remove_before(&self, base: PhysicalOffset) -> io::Result<()> {
        let stay = self.segments().split_off(&base);
        *self.segments() = stay;
        for name in self.fs.list(&self.dir)? {
            let number = name
                .strip_suffix(SUFFIX)
                .and_then(|digits| digits.parse().ok());
            if number.is_some_and(|number: u64| number < base.get()) {
                self.fs.remove(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Forgets all runs; the files are overwritten when their segments are indexed again.
    pub(crate) fn forget(&self) {
        self.segments().clear();
    }

    fn path(&self, base: PhysicalOffset) -> PathBuf {
        self.dir.join(format!("{:020}{SUFFIX}", base.get()))
    }

    fn segments(&self) -> MutexGuard<'_, BTreeMap<PhysicalOffset, SegmentRuns>> {
        self.segments
            .lock()
            .expect("nothing panics with the runs locked")
    }

    fn unsynced(&self) -> MutexGuard<'_, Vec<Arc<dyn File>>> {
        self.unsynced
            .lock()
            .expect("nothing panics with this locked")
    }
}

/// The run at `at`, if a whole one with an intact header lies there.
fn read_header(file: &dyn File, at: u64) -> io::Result<Option<Run>> {
    let mut bytes = [0; RUN_HEADER_BYTES];
    if file.read_at(&mut bytes, at)? < RUN_HEADER_BYTES {
        return Ok(None);
    }
    let Some(header) = RunHeader::decode(&bytes) else {
        return Ok(None);
    };
    Ok((at + header.run_bytes() <= file.len()?).then_some(Run { at, header }))
}

fn read_entries(file: &dyn File, run: &Run) -> io::Result<Option<Vec<KeyEntry>>> {
    let mut bytes = vec![0; run.header.count as usize * ENTRY_BYTES];
    file.read_exact_at(&mut bytes, run.at + RUN_HEADER_BYTES as u64)?;
    Ok(decode_entries(&run.header, &bytes))
}

/// Positions of the entries with this hash, ascending.
fn find_in_run(file: &dyn File, run: &Run, hash: u32) -> io::Result<Vec<u32>> {
    let entry_at = |number: u32| -> io::Result<KeyEntry> {
        let mut bytes = [0; ENTRY_BYTES];
        let at = run.at + RUN_HEADER_BYTES as u64 + u64::from(number) * ENTRY_BYTES as u64;
        file.read_exact_at(&mut bytes, at)?;
        Ok(KeyEntry::decode(&bytes))
    };
    let (mut low, mut high) = (0, run.header.count);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry_at(middle)?.hash < hash {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let mut positions = Vec::new();
    while low < run.header.count {
        let entry = entry_at(low)?;
        if entry.hash != hash {
            break;
        }
        positions.push(entry.position);
        low += 1;
    }
    Ok(positions)
}
