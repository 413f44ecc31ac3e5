//! Opening a log: what is on disk, what of it counts, and what is cut off.
//!
//! The log is walked (`walk`). What follows its end was never acknowledged, and is cut off. If something
//! that was durable is damaged, nothing is touched, and the log does not open before it is mended (ADR 10).
//!
//! Vote and mark are needed to open a log. A vote that is lost cannot be made up: the replica might vote
//! twice in a term. A mark that is lost can, if the log ends cleanly: everything in it then counts as
//! durable.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::CommitLog;
use super::blocks::Blocks;
use super::cursor::{Cursor, Source};
use super::format::segment_base;
use super::hard_state::{HardState, Held};
use super::mark::Mark;
use super::segment::{MARK_FILE, VOTE_FILE, index_of_name, segment_of_name, segment_path};
use super::shared::{Shared, State};
use super::sidecar;
use super::spares::Spares;
use super::view::{LogStart, View};
use super::walk::Walk;
use super::writer::{Active, WriterFiles};
use crate::config::LogConfig;
use crate::error::{Damage, LogError, OpenError};
use crate::fs::FileSystem;
use crate::position::{LogIndex, PhysicalOffset};

/// What was found when the log was opened, for the log file and for tests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The end of the log; its next record goes here.
    pub end: LogStart,
    /// The durable end as it was recorded on disk before.
    pub marked_end: PhysicalOffset,
    /// Set if a record at the end was damaged or incomplete and was cut off: what was wrong with it.
    pub torn: Option<&'static str>,
    /// Segment files behind the end that were removed.
    pub removed_segments: usize,
    /// Bytes of log that were walked because no index file vouched for them.
    pub walked_bytes: u64,
}

/// Opens everything in `dir`.
pub(crate) fn recover(
    fs: Arc<dyn FileSystem>,
    dir: &Path,
    config: LogConfig,
) -> Result<(Shared, WriterFiles, Recovered), OpenError> {
    ensure_dir(&*fs, dir)?;
    let names = fs.list(dir).map_err(OpenError::io("list", dir))?;
    let bases: Vec<PhysicalOffset> = names.iter().filter_map(|n| segment_of_name(n)).collect();
    let HardStates {
        vote_file,
        vote,
        mark_file,
        mut mark,
    } = open_hard_states(&*fs, dir, &config, &bases)?;

    let mut walk = Walk::new(&*fs, dir, &config, mark);
    let torn = walk.run(&bases)?;
    let Walk {
        view,
        end,
        walked_bytes,
        damaged,
        ..
    } = walk;
    let marked_end = mark.end();
    let mut files = WriterFiles {
        mark_file,
        mark,
        vote_file,
        active: None,
    };
    let limits = (config.segment_bytes, config.spare_segments);
    let state = State {
        view,
        queue: VecDeque::new(),
        failed: None,
        vote,
        committed: mark.committed.min(end.last_index),
        history: 0,
    };
    if let Some(first) = damaged {
        return Err(damage((fs, dir), config, state, first)?);
    }
    let removed_segments = remove_others(&*fs, dir, &names, &state.view)?;
    files.active = reopen_active(&*fs, &state.view, end, &config, dir)?;
    mark.synced = end;
    mark.purged = state.view.purged;
    mark.committed = state.committed;
    if mark != files.mark {
        files
            .mark_file
            .store(&mark.encode())
            .map_err(OpenError::io("write", dir.join(MARK_FILE)))?;
        files.mark = mark;
    }
    let spares = Spares::open(fs.clone(), dir, &names, limits)?;
    fs.sync_dir(dir)
        .map_err(OpenError::io("sync directory", dir))?;
    let recovered = Recovered {
        end,
        marked_end,
        torn,
        removed_segments,
        walked_bytes,
    };
    let shared = Shared::new(fs, dir, config, spares, state);
    Ok((shared, files, recovered))
}

/// A log with holes: can be read around them, and takes no changes.
fn damage(
    (fs, dir): (Arc<dyn FileSystem>, &Path),
    config: LogConfig,
    mut state: State,
    (base, offset, reason): (PhysicalOffset, u64, String),
) -> Result<OpenError, OpenError> {
    state.failed = Some(LogError::Closed);
    let limits = (config.segment_bytes, config.spare_segments);
    let spares = Spares::open(fs.clone(), dir, &[], limits)?;
    let shared = Arc::new(Shared::new(fs, dir, config, spares, state));
    Ok(OpenError::Damaged(Box::new(Damage {
        log: CommitLog { shared },
        path: segment_path(dir, base),
        offset,
        reason,
    })))
}

fn ensure_dir(fs: &dyn FileSystem, dir: &Path) -> Result<(), OpenError> {
    match fs.list(dir) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs.create_dir(dir)
                .map_err(OpenError::io("create directory", dir))?;
            match dir.parent() {
                Some(above) if above != Path::new("") => fs
                    .sync_dir(above)
                    .map_err(OpenError::io("sync directory", above)),
                _ => Ok(()),
            }
        }
        Err(error) => Err(OpenError::io("list", dir)(error)),
    }
}

/// Vote and mark, and what they hold.
struct HardStates {
    vote_file: HardState,
    vote: Option<Vec<u8>>,
    mark_file: HardState,
    mark: Mark,
}

/// Opens vote and mark. The vote's file is made first, so that a mark without a vote is damage.
fn open_hard_states(
    fs: &dyn FileSystem,
    dir: &Path,
    config: &LogConfig,
    bases: &[PhysicalOffset],
) -> Result<HardStates, OpenError> {
    let (vote_path, mark_path) = (dir.join(VOTE_FILE), dir.join(MARK_FILE));
    let (mut vote_file, vote) = HardState::open(fs, &vote_path)?;
    let (mut mark_file, mark) = HardState::open(fs, &mark_path)?;
    let is_new = bases.is_empty() && !matches!(mark, Held::Value(_));
    let lost = |path: &Path, reason: &str| OpenError::Lost {
        path: path.to_path_buf(),
        reason: reason.to_owned(),
    };
    let vote = match vote {
        Held::Value(vote) => Some(vote).filter(|vote| !vote.is_empty()),
        Held::Nothing | Held::Lost if is_new => {
            // Never voted, and that is known from now on.
            vote_file
                .store(&[])
                .map_err(OpenError::io("write", &vote_path))?;
            None
        }
        Held::Nothing => {
            // The one that was just made says nothing: whoever looks next must see the same.
            fs.remove(&vote_path)
                .map_err(OpenError::io("remove", &vote_path))?;
            return Err(lost(&vote_path, "the vote is missing"));
        }
        Held::Lost => return Err(lost(&vote_path, "both copies of the vote are damaged")),
    };
    let mark = match mark {
        Held::Value(bytes) => checked_mark(&bytes, &mark_path, config)?,
        Held::Nothing | Held::Lost => {
            let mark = match bases {
                [] if vote.is_none() => Mark::new(config.segment_bytes, LogStart::default()),
                [] => return Err(lost(&mark_path, "the log and its mark are gone")),
                [..] => rebuilt_mark((fs, dir), config, bases)?
                    .ok_or_else(|| lost(&mark_path, "the mark is lost and the log is damaged"))?,
            };
            // Durable before the first segment is created.
            mark_file
                .store(&mark.encode())
                .map_err(OpenError::io("write", &mark_path))?;
            mark
        }
    };
    Ok(HardStates {
        vote_file,
        vote,
        mark_file,
        mark,
    })
}

fn checked_mark(bytes: &[u8], path: &Path, config: &LogConfig) -> Result<Mark, OpenError> {
    let mismatch = |reason| OpenError::Mismatch {
        path: path.to_path_buf(),
        reason,
    };
    let mark = Mark::decode(bytes).map_err(mismatch)?;
    if mark.segment_bytes != config.segment_bytes {
        return Err(mismatch(format!(
            "the log has segments of {} bytes, the configuration says {}; the size cannot change",
            mark.segment_bytes, config.segment_bytes
        )));
    }
    Ok(mark)
}

/// The mark of a log whose own is lost: all of it counts as durable. `None` if anything in it is doubtful.
fn rebuilt_mark(
    (fs, dir): (&dyn FileSystem, &Path),
    config: &LogConfig,
    bases: &[PhysicalOffset],
) -> Result<Option<Mark>, OpenError> {
    let path = segment_path(dir, bases[0]);
    let file = fs
        .open_direct(&path)
        .map_err(OpenError::io("open", &path))?;
    let limit = bases[0].plus(config.segment_bytes);
    let mut cursor = Cursor::new(file, bases[0], limit, Source::Device);
    let first = cursor.find_record(bases[0], |_| true);
    let first = first.map_err(OpenError::io("read", &path))?;
    // A log that begins inside of a segment looks the same as one whose beginning is damaged.
    let Some(first) = first.filter(|first| first.offset == bases[0]) else {
        return Ok(None);
    };
    let start = LogStart {
        last_index: (first.index > LogIndex::ZERO).then(|| first.index.before()),
        last_tag: first.previous,
        next_offset: first.offset,
    };
    let mut mark = Mark::new(config.segment_bytes, start);
    let mut walk = Walk::new(fs, dir, config, mark);
    let torn = walk.run(bases)?;
    let beyond = walk.find_record(bases, PhysicalOffset::new(u64::MAX))?;
    if torn.is_some() || beyond.is_some() {
        return Ok(None);
    }
    mark.synced = walk.end;
    tracing::warn!(dir = %dir.display(), end = %mark.end(), "the mark was lost and is made anew");
    Ok(Some(mark))
}

/// Removes the segments and index files that are not part of the log.
fn remove_others(
    fs: &dyn FileSystem,
    dir: &Path,
    names: &[String],
    view: &View,
) -> Result<usize, OpenError> {
    let mut removed = 0;
    let bases: Vec<_> = names.iter().filter_map(|n| segment_of_name(n)).collect();
    for base in bases.iter().rev() {
        if view.segment_at(*base).is_some() {
            continue;
        }
        let path = segment_path(dir, *base);
        fs.remove(&path).map_err(OpenError::io("remove", &path))?;
        fs.sync_dir(dir)
            .map_err(OpenError::io("sync directory", dir))?;
        removed += 1;
    }
    for base in names.iter().filter_map(|name| index_of_name(name)) {
        if view.segment_at(base).is_none() {
            sidecar::remove(fs, dir, base);
        }
    }
    Ok(removed)
}

fn reopen_active(
    fs: &dyn FileSystem,
    view: &View,
    end: LogStart,
    config: &LogConfig,
    dir: &Path,
) -> Result<Option<Active>, OpenError> {
    let base = segment_base(end.next_offset, config.segment_bytes);
    if view.segment_at(base).is_none() {
        return Ok(None);
    }
    let path = segment_path(dir, base);
    let file = fs
        .open_direct(&path)
        .map_err(OpenError::io("open", &path))?;
    if file.len().map_err(OpenError::io("measure", &path))? < config.segment_bytes {
        file.allocate(config.segment_bytes)
            .map_err(OpenError::io("allocate", &path))?;
        file.sync_data().map_err(OpenError::io("sync", &path))?;
    }
    let blocks = Blocks::at(&*file, end.next_offset.get() - base.get())
        .map_err(OpenError::io("read", &path))?;
    Ok(Some(Active { base, file, blocks }))
}
