//! How fast messages are sent, all producers together.

use std::sync::Mutex;
use std::time::Instant;

/// What was not sent in time may be made up for later, but not more than this many seconds of it.
const BACKLOG_S: f64 = 2.0;

/// A bucket of messages that may be sent.
pub struct Pace {
    bucket: Mutex<Bucket>,
}

struct Bucket {
    per_second: f64,
    at: Instant,
    messages: f64,
}

impl Pace {
    /// So many messages a second.
    pub fn new(per_second: u32) -> Self {
        let bucket = Bucket {
            per_second: f64::from(per_second),
            at: Instant::now(),
            messages: 0.0,
        };
        Self {
            bucket: Mutex::new(bucket),
        }
    }

    /// From here on so many a second, without a backlog.
    pub fn set(&self, per_second: u32) {
        let fresh = Self::new(per_second).bucket.into_inner();
        *self.lock() = fresh.expect("nothing panics while it holds this");
    }

    /// Takes up to `most` messages; 0 when it is too early for one.
    pub fn claim(&self, most: u32) -> u32 {
        let mut bucket = self.lock();
        let now = Instant::now();
        let fresh = now.duration_since(bucket.at).as_secs_f64() * bucket.per_second;
        bucket.at = now;
        bucket.messages = (bucket.messages + fresh).min(BACKLOG_S * bucket.per_second);
        let claimed = (bucket.messages.floor() as u32).min(most);
        bucket.messages -= f64::from(claimed);
        claimed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Bucket> {
        self.bucket
            .lock()
            .expect("nothing panics while it holds this")
    }
}
