//! The three kinds of position in a log, as types that never mix.
//!
//! A *log index* counts records, a *physical offset* counts bytes, a *queue offset* counts messages of one
//! queue. All three are `u64` on disk and on the wire; there is no conversion from a bare `u64` other than
//! `new`, so that a mix-up shows at the place where it happens.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! position {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The first position there is.
            pub const ZERO: Self = Self(0);

            /// Wraps a number that came from disk, from the wire or from arithmetic.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The bare number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The position right in front of this one.
            ///
            /// # Panics
            /// At 0.
            pub const fn before(self) -> Self {
                match self.0.checked_sub(1) {
                    Some(value) => Self(value),
                    None => panic!("there is no position before 0"),
                }
            }

            /// The position right after this one.
            ///
            /// # Panics
            /// At `u64::MAX`, which no log reaches.
            pub const fn next(self) -> Self {
                match self.0.checked_add(1) {
                    Some(value) => Self(value),
                    None => panic!("a position ran past u64::MAX"),
                }
            }

            /// The position `count` further on.
            ///
            /// # Panics
            /// When the sum does not fit into a `u64`.
            pub const fn plus(self, count: u64) -> Self {
                match self.0.checked_add(count) {
                    Some(value) => Self(value),
                    None => panic!("a position ran past u64::MAX"),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

position! {
    /// Number of a record in the log of a group. The first record is 0 or 1, as its writer decides; from
    /// there on indexes are consecutive.
    LogIndex
}

position! {
    /// Byte position in the log of a group, counted from the beginning of time: purging does not renumber.
    /// The same record has the same physical offset on all replicas.
    PhysicalOffset
}

position! {
    /// Number of a message in one queue of one topic.
    QueueOffset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_and_order() {
        assert_eq!(LogIndex::ZERO.next(), LogIndex::new(1));
        assert_eq!(PhysicalOffset::new(8).plus(8).get(), 16);
        assert!(QueueOffset::new(2) < QueueOffset::new(10));
        assert_eq!(LogIndex::new(7).to_string(), "7");
    }

    #[test]
    #[should_panic(expected = "ran past")]
    fn a_position_never_wraps() {
        let _ = LogIndex::new(u64::MAX).next();
    }
}
