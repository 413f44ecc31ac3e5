//! The one true time of a simulation, and the clocks of its machines, which are wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Nanoseconds in a step of the simulation.
pub const STEP_NS: u64 = 1_000_000;

/// What the wall clocks show when a simulation begins; milliseconds since 1970.
const EPOCH_MS: i64 = 1_780_000_000_000;

/// The true time. Clones show the same.
#[derive(Clone, Default)]
pub struct Time(Arc<AtomicU64>);

impl Time {
    /// Nanoseconds since the simulation began.
    pub fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Goes on by a step.
    pub fn step(&self) {
        self.0.fetch_add(STEP_NS, Ordering::Relaxed);
    }
}

/// The clocks of one machine.
#[derive(Clone)]
pub struct MachineTime(Arc<Clocks>);

struct Clocks {
    /// How fast they go, in parts of a million of the true time.
    rate: u64,
    monotonic_ns: AtomicU64,
    /// How far the wall clock is from the monotonic one, beside the epoch.
    offset_ms: AtomicI64,
}

impl MachineTime {
    /// Clocks that show the true time now, and go at `rate` millionths of it.
    pub fn new(rate: u64) -> Self {
        MachineTime(Arc::new(Clocks {
            rate,
            monotonic_ns: AtomicU64::new(0),
            offset_ms: AtomicI64::new(0),
        }))
    }

    /// Follows the true time.
    pub fn follow(&self, true_ns: u64) {
        let ns = (u128::from(true_ns) * u128::from(self.0.rate) / 1_000_000) as u64;
        self.0.monotonic_ns.store(ns, Ordering::Relaxed);
    }

    /// Nanoseconds by the monotonic clock.
    pub fn monotonic_ns(&self) -> u64 {
        self.0.monotonic_ns.load(Ordering::Relaxed)
    }

    /// Milliseconds since 1970 by the wall clock.
    pub fn wall_ms(&self) -> u64 {
        let since = (self.monotonic_ns() / 1_000_000) as i64;
        let offset = self.0.offset_ms.load(Ordering::Relaxed);
        (EPOCH_MS + since + offset).max(0) as u64
    }

    /// How fast its clocks go, in millionths of true time.
    pub fn rate(&self) -> u64 {
        self.0.rate
    }

    /// Somebody sets the wall clock to so much from where it should be.
    pub fn set_offset_ms(&self, offset_ms: i64) {
        self.0.offset_ms.store(offset_ms, Ordering::Relaxed);
    }
}
