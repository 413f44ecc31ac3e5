//! Names of the files of a log directory.

use std::path::{Path, PathBuf};

use crate::position::PhysicalOffset;

/// A segment: twenty digits of base offset and this.
pub(crate) const SEGMENT_SUFFIX: &str = ".log";
/// The sparse index of a segment, see `sidecar`.
pub(crate) const INDEX_SUFFIX: &str = ".idx";
/// A file that waits to become a segment.
pub(crate) const SPARE_SUFFIX: &str = ".spare";
/// A file in the making.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";
/// The vote.
pub(crate) const VOTE_FILE: &str = "vote";
/// The synced mark.
pub(crate) const MARK_FILE: &str = "mark";

/// The file of the segment that begins at `base`.
pub(crate) fn segment_path(dir: &Path, base: PhysicalOffset) -> PathBuf {
    dir.join(format!("{:020}{SEGMENT_SUFFIX}", base.get()))
}

/// The index file of the segment that begins at `base`.
pub(crate) fn index_path(dir: &Path, base: PhysicalOffset) -> PathBuf {
    dir.join(format!("{:020}{INDEX_SUFFIX}", base.get()))
}

/// The base that a file name stands for, if it is that of a segment.
pub(crate) fn segment_of_name(name: &str) -> Option<PhysicalOffset> {
    base_of_name(name, SEGMENT_SUFFIX)
}

/// The base that a file name stands for, if it is that of an index file.
pub(crate) fn index_of_name(name: &str) -> Option<PhysicalOffset> {
    base_of_name(name, INDEX_SUFFIX)
}

fn base_of_name(name: &str, suffix: &str) -> Option<PhysicalOffset> {
    let digits = name.strip_suffix(suffix)?;
    let well_formed = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    well_formed.then(|| digits.parse().ok().map(PhysicalOffset::new))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_names_sort_like_their_bases() {
        let path = segment_path(Path::new("d"), PhysicalOffset::new(1 << 30));
        assert_eq!(path, Path::new("d/00000000001073741824.log"));
        let base = segment_of_name("00000000001073741824.log");
        assert_eq!(base, Some(PhysicalOffset::new(1 << 30)));
        assert_eq!(segment_of_name("1073741824.log"), None);
        assert_eq!(segment_of_name("00000000001073741824.idx"), None);
        assert_eq!(
            index_of_name("00000000000000000007.idx"),
            Some(PhysicalOffset::new(7))
        );
    }
}
