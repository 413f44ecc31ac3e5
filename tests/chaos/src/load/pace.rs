//! How fast messages are sent, all producers together.

use std::sync::Mutex;
use std::time::Instant;

/// What was not sent in time may be made up for later, but not more than this many seconds of it.
const BACKLOG_S: f64 = 2.0;

/// A bucket of messages that may be sent.
pub struct Pace {
    per_second: f64,
    bucket: Mutex<(Instant, f64)>,
}

impl Pace {
    /// So many messages a second.
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            bucket: Mutex::new((Instant::now(), 0.0)),
        }
    }

    /// Takes up to `most` messages; 0 when it is too early for one.
    pub fn claim(&self, most: u32) -> u32 {
        let mut bucket = self
            .bucket
            .lock()
            .expect("nothing panics while it holds this");
        let now = Instant::now();
        let fresh = now.duration_since(bucket.0).as_secs_f64() * self.per_second;
        bucket.0 = now;
        bucket.1 = (bucket.1 + fresh).min(BACKLOG_S * self.per_second);
        let claimed = (bucket.1.floor() as u32).min(most);
        bucket.1 -= f64::from(claimed);
        claimed
    }
}
