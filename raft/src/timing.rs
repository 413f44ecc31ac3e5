//! The timers of a group.

/// Timing of a group, in milliseconds. See ADR 1.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A leader lets its followers hear from it this often.
    pub heartbeat_ms: u64,
    /// A follower that heard nothing for this long campaigns, at the earliest.
    pub election_min_ms: u64,
    /// The same, at the latest; also how long a voter holds on to a leader it has heard from.
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat_ms: 100,
            election_min_ms: 250,
            election_max_ms: 350,
        }
    }
}
