//! Memory that several logs share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory for records of several logs. Clones are the same budget.
///
/// While it is not used up, any log may keep more than its share; then each gives back what it has beyond
/// that the next time it keeps something. Nobody takes from another.
#[derive(Clone)]
pub struct MemoryBudget(Arc<Budget>);

struct Budget {
    bytes_max: usize,
    used: AtomicUsize,
    /// Shares that are not empty.
    holders: AtomicUsize,
}

impl MemoryBudget {
    /// `bytes_max` bytes of payload and heads; 0 keeps only what has to be there.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Budget {
            bytes_max,
            used: AtomicUsize::new(0),
            holders: AtomicUsize::new(0),
        }))
    }

    /// Bytes in use; more than the budget by what has to be there, and while logs take turns.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("bytes_max", &self.0.bytes_max)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

/// What one log has of a budget; goes back when it is dropped.
pub(crate) struct Share {
    budget: MemoryBudget,
    bytes: usize,
}

impl Share {
    pub(crate) fn of(budget: MemoryBudget) -> Self {
        Self { budget, bytes: 0 }
    }

    pub(crate) fn budget(&self) -> MemoryBudget {
        self.budget.clone()
    }

    /// `bytes` more are in memory.
    pub(crate) fn add(&mut self, bytes: usize) {
        let Budget { used, holders, .. } = &*self.budget.0;
        if self.bytes == 0 && bytes > 0 {
            holders.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes += bytes;
        used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// `bytes` of them have gone.
    pub(crate) fn remove(&mut self, bytes: usize) {
        let Budget { used, holders, .. } = &*self.budget.0;
        self.bytes -= bytes;
        used.fetch_sub(bytes, Ordering::Relaxed);
        if self.bytes == 0 && bytes > 0 {
            holders.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether some of it has to go back.
    pub(crate) fn is_over(&self) -> bool {
        let bytes_max = self.budget.0.bytes_max;
        let holders = self.budget.0.holders.load(Ordering::Relaxed).max(1);
        self.budget.used() > bytes_max && self.bytes > bytes_max / holders
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.remove(self.bytes);
    }
}
