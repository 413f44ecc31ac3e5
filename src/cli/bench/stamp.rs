//! A time within a message, read again by the consumer in the same process.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bytes at the beginning of a stamped body.
pub(super) const STAMP_BYTES: usize = 16;

/// Stamps of one run; those of other runs are not taken for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    run: u64,
    base: Instant,
}

impl Stamp {
    pub(super) fn new() -> Stamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Stamp {
            run: since.as_nanos() as u64 ^ u64::from(std::process::id()) << 40,
            base: Instant::now(),
        }
    }

    /// Writes a time over the beginning of a body.
    pub(super) fn write(&self, at: Instant, body: &mut [u8]) {
        let nanos = at.saturating_duration_since(self.base).as_nanos() as u64;
        body[..8].copy_from_slice(&self.run.to_be_bytes());
        body[8..STAMP_BYTES].copy_from_slice(&nanos.to_be_bytes());
    }

    /// The time in a body of this run.
    pub(super) fn read(&self, body: &[u8]) -> Option<Instant> {
        let (run, rest) = body.split_first_chunk()?;
        let nanos = u64::from_be_bytes(*rest.first_chunk()?);
        (u64::from_be_bytes(*run) == self.run).then(|| self.base + Duration::from_nanos(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_by_its_own_run_only() {
        let stamp = Stamp::new();
        let at = stamp.base + Duration::from_micros(1234);
        let mut body = [b'x'; 20];
        stamp.write(at, &mut body);
        assert_eq!((stamp.read(&body), &body[16..]), (Some(at), &b"xxxx"[..]));
        let other = Stamp {
            run: stamp.run + 1,
            ..stamp
        };
        assert_eq!((other.read(&body), stamp.read(&body[..15])), (None, None));
    }
}
