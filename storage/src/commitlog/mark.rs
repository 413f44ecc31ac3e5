//! The synced mark: up to where the log is known to be durable.
//!
//! It separates a torn tail from rot: a bad record beyond it was never acknowledged or at least never
//! confirmed by a later sync, one below it was durable and is damaged. It is written after the sync of the
//! data it speaks of, so it may lag behind but never runs ahead; before a truncation it is lowered first.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::format::LeaderTag;
use super::hard_state::{HardState, Held};
use super::view::LogStart;
use crate::fs::FileSystem;
use crate::position::{LogIndex, PhysicalOffset};

const VERSION: u32 = 1;

/// What is known to be durable, and where the log begins. Stored with `bincode` (fixed-size integers) in a
/// [`HardState`](super::hard_state::HardState).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    version: u32,
    /// Constant of the group.
    pub segment_bytes: u64,
    /// Before the first record on disk. Moved, durably, before segments are retired.
    pub start: LogStart,
    /// Logical start.
    pub purged: Option<(LogIndex, LeaderTag)>,
    /// End of the synced log.
    pub synced: LogStart,
    /// Committed as far as was known.
    pub committed: Option<LogIndex>,
}

impl Mark {
    /// Mark of an empty log.
    pub(crate) fn new(segment_bytes: u64, start: LogStart) -> Self {
        let purged = start.last();
        Self {
            version: VERSION,
            segment_bytes,
            start,
            purged,
            synced: start,
            committed: None,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        bincode::serialize(self).expect("a mark has a fixed shape")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mark: Self = bincode::deserialize(bytes).map_err(|error| error.to_string())?;
        if mark.version == VERSION {
            Ok(mark)
        } else {
            Err(format!(
                "mark version {}, this program knows {VERSION}",
                mark.version
            ))
        }
    }

    /// Offset of the end of what is durable.
    pub(crate) fn end(&self) -> PhysicalOffset {
        self.synced.next_offset
    }
}

/// From where to where the log is durable by the mark at `path`; `None` if that is lost.
pub(crate) fn durable_range(fs: &dyn FileSystem, path: &Path) -> Option<Range<PhysicalOffset>> {
    let (_, held) = HardState::open(fs, path).ok()?;
    let Held::Value(bytes) = held else {
        return None;
    };
    let mark = Mark::decode(&bytes).ok()?;
    Some(mark.start.next_offset..mark.end())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_as_it_was() {
        let tag = LeaderTag { term: 4, leader: 1 };
        let end = PhysicalOffset::new(888);
        let synced = LogStart {
            last_index: Some(LogIndex::new(3)),
            last_tag: tag,
            next_offset: end,
        };
        let mut mark = Mark::new(4096, LogStart::default());
        mark.synced = synced;
        mark.committed = Some(LogIndex::new(2));
        assert_eq!(Mark::decode(&mark.encode()).unwrap(), mark);
        mark.version = 9;
        assert!(
            Mark::decode(&mark.encode())
                .unwrap_err()
                .contains("version 9")
        );
    }
}
