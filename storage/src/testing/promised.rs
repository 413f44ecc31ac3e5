//! What a log has promised, by its files: for those who damage them.

use std::ops::Range;
use std::path::Path;

use super::FaultyFs;
use crate::commitlog::durable_range;
use crate::fs::FileSystem;
use crate::position::PhysicalOffset;

/// From where to where the log in `dir` is durable, and knows that it is, also after a power cut; `None` if
/// its mark does not say. Damage in there must be told from a torn end.
pub fn durable_log(fs: &FaultyFs, dir: &Path) -> Option<Range<PhysicalOffset>> {
    let path = dir.join("mark");
    let bytes = fs.durable_contents(&path)?;
    // Opening heals, so it must not be the file itself.
    let copy = FaultyFs::new();
    copy.create_dir(dir).ok()?;
    let file = copy.create(&path).ok()?;
    file.write_all_at(&bytes, 0).ok()?;
    durable_range(&copy, &path)
}
