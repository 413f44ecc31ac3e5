//! A bounded number of open files.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::fs::File;

/// Files by key; the least recently used ones are closed when there are too many.
pub(crate) struct Handles<K> {
    open: HashMap<K, (Arc<dyn File>, u64)>,
    max: usize,
    uses: u64,
}

impl<K: Copy + Eq + Hash> Handles<K> {
    /// Keeps at most `max` files open, not counting those that are in use elsewhere.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            open: HashMap::new(),
            max,
            uses: 0,
        }
    }

    pub(crate) fn get(&mut self, key: K) -> Option<Arc<dyn File>> {
        self.uses += 1;
        let (file, used) = self.open.get_mut(&key)?;
        *used = self.uses;
        Some(Arc::clone(file))
    }

    pub(crate) fn insert(&mut self, key: K, file: Arc<dyn File>) {
        if self.open.len() >= self.max {
            self.close_oldest_quarter();
        }
        self.uses += 1;
        self.open.insert(key, (file, self.uses));
    }

    /// A quarter at once, so that finding the oldest ones costs little per file.
    fn close_oldest_quarter(&mut self) {
        let mut uses: Vec<u64> = self.open.values().map(|(_, used)| *used).collect();
        let at = uses.len() / 4;
        let (_, limit, _) = uses.select_nth_unstable(at);
        let limit = *limit;
        self.open.retain(|_, (_, used)| *used > limit);
    }

    pub(crate) fn retain(&mut self, stays: impl Fn(&K) -> bool) {
        self.open.retain(|key, _| stays(key));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fs::{FileSystem, RealFs};

    #[test]
    fn the_number_of_open_files_is_bounded_and_used_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealFs.create(&dir.path().join("f")).unwrap();
        let mut handles = Handles::new(8);
        handles.insert(0, Arc::clone(&file));
        for key in 1..100 {
            assert!(handles.get(0).is_some(), "in use all the time");
            handles.insert(key, Arc::clone(&file));
            assert!(handles.open.len() <= 8);
        }
        handles.retain(|key| *key != 0);
        assert!(handles.get(0).is_none());
    }
}
