//! Version ordinals: clients number their releases by position in a long enumeration.
//!
//! Only the positions that change what goes over the wire are named.

/// V3_4_9: from here on `maxReconsumeTimes` of a send-back is honoured.
pub const V3_4_9: i32 = 121;
/// V4_1_0_SNAPSHOT: below it Java clients refuse SQL92 subscriptions.
pub const V4_1_0_SNAPSHOT: i32 = 232;
/// V4_6_0: what the C++ client sends.
pub const V4_6_0: i32 = 333;
/// V4_9_3: up to here the unique-key query field is not covered by a request signature.
pub const V4_9_3: i32 = 399;
/// V4_9_4: from here on route bodies have quoted map keys.
pub const V4_9_4: i32 = 401;
/// V5_0_0.
pub const V5_0_0: i32 = 413;
/// V5_3_1: clients newer than this understand `GO_AWAY`.
pub const V5_3_1: i32 = 475;
/// V5_3_3.
pub const V5_3_3: i32 = 479;
/// The version our own commands carry.
pub const CURRENT: i32 = V5_3_3;

/// Whether a route for a request of this version is written with quoted integer keys.
///
/// `asked_for_standard_json` is the request's `acceptStandardJsonOnly` flag.
pub fn route_keys_are_quoted(version: i32, asked_for_standard_json: bool) -> bool {
    asked_for_standard_json || version >= V4_9_4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_keys_start_at_4_9_4() {
        assert!(!route_keys_are_quoted(V4_9_3, false));
        assert!(!route_keys_are_quoted(400, false));
        assert!(route_keys_are_quoted(V4_9_4, false));
        assert!(route_keys_are_quoted(V4_6_0, true));
    }
}
