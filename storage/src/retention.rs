//! Which segments may go.
//!
//! A pure function of what is on disk, the time and the settings; whoever calls it moves the boundary
//! ([`Store::set_boundary`](crate::store::Store::set_boundary)), lets raft purge, and tells the store
//! ([`Store::log_purged`](crate::store::Store::log_purged)). The segment that is being written always stays.

use std::time::Duration;

use crate::commitlog::SegmentInfo;
use crate::fs::Space;
use crate::position::PhysicalOffset;

/// Settings of retention. All have defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Messages are kept for at least this long, unless another limit says otherwise. Default 72 h,
    /// minimum 0.
    pub max_age: Duration,
    /// Most bytes of log of one group; the oldest segments go beyond that. Default none.
    pub max_bytes: Option<u64>,
    /// Share of the volume in use from which on it is said to fill up. Default 75, 1 to 100; percent.
    pub warn_percent: u8,
    /// Share of the volume in use from which on the oldest segments go, whatever their age. Default 85, 1 to
    /// 100; percent.
    pub force_percent: u8,
    /// Share of the volume in use from which on no message is accepted. Default 90, 1 to 100; percent.
    pub refuse_percent: u8,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(72 * 3600),
            max_bytes: None,
            warn_percent: 75,
            force_percent: 85,
            refuse_percent: 90,
        }
    }
}

/// How full the volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum DiskPressure {
    /// There is room.
    #[default]
    None,
    /// It fills up.
    Warn,
    /// Segments go before their time.
    Force,
    /// Messages must be refused.
    Refuse,
}

/// What retention wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Base of the first segment to keep; `None` if all stay.
    pub keep_from: Option<PhysicalOffset>,
    /// How full the volume is.
    pub pressure: DiskPressure,
}

/// Decides what may go: `segments` as the log lists them (oldest first), `now_ms` since 1970.
pub fn plan(segments: &[SegmentInfo], now_ms: u64, space: Space, config: &RetentionConfig) -> Plan {
    let pressure = pressure(space, config);
    let mut bytes: u64 = segments.iter().map(len).sum();
    let mut to_free = match pressure {
        DiskPressure::Force | DiskPressure::Refuse => excess(space, config.force_percent),
        DiskPressure::None | DiskPressure::Warn => 0,
    };
    let max_age_ms = u64::try_from(config.max_age.as_millis()).unwrap_or(u64::MAX);
    let mut keep_from = None;
    // Each pair is a segment and the one that would be the first then.
    for pair in segments.windows(2) {
        let (oldest, next) = (&pair[0], &pair[1]);
        let age_ms = now_ms.saturating_sub(oldest.last_store_time_ms);
        let expired = age_ms > max_age_ms;
        let too_many = config.max_bytes.is_some_and(|max| bytes > max);
        if !expired && !too_many && to_free == 0 {
            break;
        }
        bytes -= len(oldest);
        to_free = to_free.saturating_sub(len(oldest));
        keep_from = Some(next.base);
    }
    Plan {
        keep_from,
        pressure,
    }
}

fn len(segment: &SegmentInfo) -> u64 {
    segment.end_offset.get() - segment.base.get()
}

fn pressure(space: Space, config: &RetentionConfig) -> DiskPressure {
    let reached = |percent: u8| space.total > 0 && excess(space, percent) > 0;
    if reached(config.refuse_percent) {
        DiskPressure::Refuse
    } else if reached(config.force_percent) {
        DiskPressure::Force
    } else if reached(config.warn_percent) {
        DiskPressure::Warn
    } else {
        DiskPressure::None
    }
}

/// Bytes in use beyond `percent` of the volume.
fn excess(space: Space, percent: u8) -> u64 {
    let used = space.total.saturating_sub(space.free);
    let allowed = u128::from(space.total) * u128::from(percent) / 100;
    used.saturating_sub(u64::try_from(allowed).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::LogIndex;

    const HOUR_MS: u64 = 3_600_000;
    const ROOMY: Space = Space {
        free: 1 << 40,
        total: 1 << 40,
    };

    /// Four segments of 100 bytes, the last record of number n stored at hour n + 1.
    fn segments() -> Vec<SegmentInfo> {
        let segment = |number: u64| SegmentInfo {
            base: PhysicalOffset::new(number * 100),
            first_index: LogIndex::new(number * 10),
            end_offset: PhysicalOffset::new(number * 100 + 100),
            last_store_time_ms: (number + 1) * HOUR_MS,
            sealed: number < 3,
        };
        (0..4).map(segment).collect()
    }

    fn keep_from(now_ms: u64, space: Space, config: &RetentionConfig) -> Option<u64> {
        plan(&segments(), now_ms, space, config)
            .keep_from
            .map(PhysicalOffset::get)
    }

    #[test]
    fn segments_go_when_their_last_record_is_old_enough() {
        let config = RetentionConfig::default();
        assert_eq!(keep_from(73 * HOUR_MS, ROOMY, &config), None);
        assert_eq!(keep_from(73 * HOUR_MS + 1, ROOMY, &config), Some(100));
        assert_eq!(keep_from(75 * HOUR_MS, ROOMY, &config), Some(200));
        assert_eq!(
            keep_from(1_000 * HOUR_MS, ROOMY, &config),
            Some(300),
            "the last one stays"
        );
        assert_eq!(
            keep_from(0, ROOMY, &config),
            None,
            "a clock that went back expires nothing"
        );
    }

    #[test]
    fn a_byte_limit_keeps_the_newest() {
        let limited = |max| RetentionConfig {
            max_bytes: Some(max),
            ..Default::default()
        };
        assert_eq!(keep_from(0, ROOMY, &limited(400)), None);
        assert_eq!(keep_from(0, ROOMY, &limited(399)), Some(100));
        assert_eq!(keep_from(0, ROOMY, &limited(0)), Some(300));
    }

    #[test]
    fn a_full_disk_takes_the_oldest_and_then_refuses() {
        let config = RetentionConfig::default();
        let with = |used: u64| Space {
            free: 1_000 - used,
            total: 1_000,
        };
        let planned = |used| plan(&segments(), 0, with(used), &config);
        assert_eq!(planned(750).pressure, DiskPressure::None);
        assert_eq!(planned(751).pressure, DiskPressure::Warn);
        assert_eq!(planned(850).keep_from, None);
        let force = planned(851);
        assert_eq!(
            (force.pressure, force.keep_from),
            (DiskPressure::Force, Some(PhysicalOffset::new(100)))
        );
        assert_eq!(planned(901).pressure, DiskPressure::Refuse);
        assert_eq!(
            keep_from(0, with(960), &config),
            Some(200),
            "110 bytes too many"
        );
        assert_eq!(
            keep_from(0, Space { free: 0, total: 0 }, &config),
            None,
            "unknown size"
        );
    }

    #[test]
    fn an_empty_log_has_nothing_to_give() {
        let planned = plan(&[], 1_000 * HOUR_MS, ROOMY, &RetentionConfig::default());
        assert_eq!(planned.keep_from, None);
    }
}
