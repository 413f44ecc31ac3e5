//! The wall clock, handed in so that tests decide what time it is.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, as someone tells them. May jump either way.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl WallClock {
    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        WallClock(Arc::new(now))
    }

    /// The machine's clock; a time before 1970 counts as 1970.
    pub fn system() -> Self {
        WallClock::new(|| {
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            since.as_millis() as u64
        })
    }

    /// The time now.
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}
