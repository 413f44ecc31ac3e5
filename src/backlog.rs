//! How long what is under way will take: a send that would wait longer than its client does is refused when
//! it is read (ADR 19).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest that a send may have to wait for what is under way before it: half of what stock clients
/// wait for an answer.
const WAIT_MAX: Duration = Duration::from_millis(1500);

/// So many bytes are admitted on any disk: a group that has little to do is never busy, and one largest
/// message is little.
const FREE_BYTES: usize = 4 << 20;

/// With less than this under way the time is that of a commit, whatever is in it, and says nothing of how
/// fast more would go.
const TELLING_BYTES: usize = 1 << 20;

/// How fast a group's writes go through.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Bytes in a millisecond; 0 as long as that is not known.
    pace: AtomicU64,
}

impl Backlog {
    /// `bytes` that were under way have gone through, in so long.
    pub fn gone(&self, bytes: usize, took: Duration) {
        let ms = took.as_secs_f64() * 1000.0;
        if bytes < TELLING_BYTES || ms <= 0.0 {
            return;
        }
        let seen = (bytes as f64 / ms).max(1.0) as u64;
        let known = self.pace.load(Ordering::Relaxed);
        // Only the group's one apply task comes here.
        let pace = if known == 0 {
            seen
        } else {
            (3 * known + seen) / 4
        };
        self.pace.store(pace.max(1), Ordering::Relaxed);
    }

    /// How long a send behind so many bytes would wait, if that is too long.
    pub fn too_long(&self, bytes: usize) -> Option<Duration> {
        let pace = self.pace.load(Ordering::Relaxed);
        if bytes < FREE_BYTES || pace == 0 {
            return None;
        }
        let wait = Duration::from_millis(bytes as u64 / pace);
        (wait > WAIT_MAX).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_send_is_too_late_when_what_is_before_it_takes_longer_than_clients_wait() {
        let backlog = Backlog::default();
        assert_eq!(backlog.too_long(64 * MIB), None, "nothing is known yet");
        // 8 MiB a second.
        backlog.gone(8 * MIB, Duration::from_secs(1));
        assert_eq!(backlog.too_long(11 * MIB), None);
        let wait = backlog.too_long(16 * MIB);
        assert!(
            wait.is_some_and(|wait| wait.as_millis().abs_diff(2000) < 5),
            "{wait:?}"
        );
    }

    #[test]
    fn a_group_that_has_little_to_do_is_never_busy() {
        let backlog = Backlog::default();
        backlog.gone(2 * MIB, Duration::from_secs(60));
        assert_eq!(backlog.too_long(FREE_BYTES - 1), None);
        assert!(backlog.too_long(FREE_BYTES).is_some());
    }

    #[test]
    fn a_lone_commit_says_nothing_and_a_faster_disk_is_noticed() {
        let backlog = Backlog::default();
        backlog.gone(8 * MIB, Duration::from_secs(8));
        // A commit of a few bytes is no sign of a slow disk.
        backlog.gone(1000, Duration::from_millis(100));
        assert!(backlog.too_long(8 * MIB).is_some());
        for _ in 0..8 {
            backlog.gone(8 * MIB, Duration::from_millis(100));
        }
        assert_eq!(backlog.too_long(32 * MIB), None);
    }
}
