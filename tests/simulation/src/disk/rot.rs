//! Bits that flip where there is a second source: another slot, the log, another replica.

use std::path::{Path, PathBuf};

use gantry_storage::testing::durable_log;

use super::{Disk, State, is_slotted};

/// Flips of one kind at a time, at most.
const FLIPS_MAX: u64 = 4;

impl Disk {
    /// Flips a bit of the index of a segment, or, if `slots` may be hit, of the vote or the mark in one of
    /// their two. Says whether there was one.
    pub fn rot(&self, slots: bool) -> bool {
        let is_covered = |path: &Path| {
            let is_index = path.extension().is_some_and(|end| end == "idx");
            is_index || (slots && is_slotted(path))
        };
        let mut state = self.lock();
        let Some(path) = self.pick(&mut state, is_covered) else {
            return false;
        };
        if !is_slotted(&path) {
            return self.flip_anywhere(&mut state, &path);
        }
        // Only in one of two slots.
        let slot = if state.rng.per_mille(500) { 4096 } else { 0 };
        let at = slot + state.rng.below(60);
        self.flip(&mut state, &path, at)
    }

    /// Flips bits of files that are made from the log: units of queues, keys.
    pub fn rot_derived(&self) -> bool {
        let is_derived = |path: &Path| {
            let within = |name: &str| path.components().any(|part| part.as_os_str() == name);
            within("consume_queue") || within("key_index")
        };
        let mut state = self.lock();
        let mut flipped = false;
        for _ in 0..state.rng.between(1, FLIPS_MAX) {
            if let Some(path) = self.pick(&mut state, is_derived) {
                flipped |= self.flip_anywhere(&mut state, &path);
            }
        }
        flipped
    }

    /// Flips bits of the log, below what is durable for certain.
    pub fn rot_log(&self) -> bool {
        let mut state = self.lock();
        let Some(mark) = self.pick(&mut state, |path| path.ends_with("mark")) else {
            return false;
        };
        let dir = mark.parent().unwrap_or(Path::new("/"));
        let Some(log) = durable_log(&self.fs, dir).filter(|log| !log.is_empty()) else {
            return false;
        };
        let base_of = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
        let segments = self.fs.paths().into_iter().filter(is_segment);
        let segments: Vec<(u64, PathBuf)> = segments
            .filter_map(|path| Some((base_of(&path)?, path)))
            .collect();
        let mut flipped = false;
        for _ in 0..state.rng.between(1, FLIPS_MAX) {
            let at = state.rng.between(log.start.get(), log.end.get() - 1);
            let segment = segments.iter().rfind(|(base, _)| *base <= at);
            if let Some((base, path)) = segment {
                flipped |= self.flip(&mut state, path, at - base);
            }
        }
        flipped
    }

    fn pick(&self, state: &mut State, wanted: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        let paths = self.fs.paths().into_iter();
        let paths: Vec<PathBuf> = paths.filter(|path| wanted(path)).collect();
        (!paths.is_empty()).then(|| state.rng.pick(&paths).clone())
    }

    fn flip_anywhere(&self, state: &mut State, path: &Path) -> bool {
        let bytes = self.fs.contents(path).map_or(0, |bytes| bytes.len() as u64);
        bytes > 0 && {
            let at = state.rng.below(bytes);
            self.flip(state, path, at)
        }
    }

    fn flip(&self, state: &mut State, path: &Path, at: u64) -> bool {
        let bit = state.rng.below(8) as u8;
        let shown = path.display();
        state
            .trace
            .line(&self.name, format_args!("rot {shown} byte {at} bit {bit}"));
        self.fs.flip(path, at, bit)
    }
}
