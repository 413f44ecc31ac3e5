//! Whether the disk takes more messages: looked at every second, and whenever some megabytes have come.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use std::sync::Arc;

use gantry_storage::fs::{FileSystem, Space};

use crate::config::Config;

/// The disk is looked at again after so many bytes of sends, however soon they come.
const LOOK_BYTES: u64 = 8 << 20;

/// The disk of the data directory, shared by the groups of a node.
pub struct Disk {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    refuse_percent: u8,
    /// Room for a new segment of every group: one that cannot be made ends the process.
    needed_bytes: u64,
    counted: AtomicU64,
    refusal: Mutex<Option<String>>,
}

impl Disk {
    /// The disk that the configuration names. It takes sends until [`Disk::look`] finds otherwise.
    pub fn new(config: &Config, fs: Arc<dyn FileSystem>) -> Self {
        Disk {
            fs,
            directory: config.data.clone(),
            refuse_percent: config.retention.refuse_percent,
            needed_bytes: config.log.segment_bytes * config.groups.len() as u64,
            counted: AtomicU64::new(0),
            refusal: Mutex::default(),
        }
    }

    /// Why a send of `bytes` bytes is refused, if it is.
    pub fn refuses(&self, bytes: usize) -> Option<String> {
        let before = self.counted.fetch_add(bytes as u64, Ordering::Relaxed);
        if (before + bytes as u64) / LOOK_BYTES != before / LOOK_BYTES
            && let Err(error) = self.look()
        {
            tracing::error!(%error, "cannot look at the disk");
        }
        self.refusal()
    }

    /// Why sends are refused at the moment, if they are.
    pub fn refusal(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Looks at the disk and notes whether it takes sends.
    pub fn look(&self) -> io::Result<Space> {
        let space = self.fs.space(&self.directory)?;
        *self.lock() = self.judge(space);
        Ok(space)
    }

    fn judge(&self, space: Space) -> Option<String> {
        let remedy = "free space, shorten storage.retention, or form groups of smaller segments";
        let used = 100 * space.total.saturating_sub(space.free) / space.total.max(1);
        if used >= u64::from(self.refuse_percent) {
            let limit = self.refuse_percent;
            return Some(format!(
                "the disk of the data directory is {used} % full and takes no sends from {limit} % on: \
                 {remedy}"
            ));
        }
        (space.free < self.needed_bytes).then(|| {
            format!(
                "the disk of the data directory has {} MiB left, and new segments take {} MiB: {remedy}",
                space.free >> 20,
                self.needed_bytes >> 20
            )
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        Disk {
            fs: Arc::new(gantry_storage::fs::RealFs),
            directory: PathBuf::new(),
            refuse_percent: 90,
            needed_bytes: 3 << 30,
            counted: AtomicU64::new(0),
            refusal: Mutex::default(),
        }
    }

    fn space(free_gib: u64, total_gib: u64) -> Space {
        Space {
            free: free_gib << 30,
            total: total_gib << 30,
        }
    }

    #[test]
    fn a_full_disk_and_one_without_room_for_segments_take_no_sends() {
        assert_eq!(disk().judge(space(50, 100)), None);
        assert!(
            disk()
                .judge(space(10, 100))
                .is_some_and(|why| why.contains("90 % full"))
        );
        assert!(
            disk()
                .judge(space(2, 10))
                .is_some_and(|why| why.contains("2048 MiB left"))
        );
    }
}
