//! Finding single messages: codes 12 and 33.

use crate::Fields;

/// Extra field of a query that asks for a unique key instead of an application key.
pub const UNIQUE_KEY_QUERY: &str = "_UNIQUE_KEY_QUERY";

header! {
    /// `QUERY_MESSAGE` (12).
    QueryMessageRequest<'a> {
        topic: &'a str = "topic",
        key: &'a str = "key",
        max_num: i32 = "maxNum",
        /// Earliest store time, milliseconds since 1970.
        begin_timestamp: i64 = "beginTimestamp",
        /// Latest store time, milliseconds since 1970.
        end_timestamp: i64 = "endTimestamp",
    }
}

/// Whether a query is for a unique key; upstream then raises the limit to 32 messages.
pub fn is_unique_key_query(fields: &Fields) -> bool {
    fields
        .get(UNIQUE_KEY_QUERY)
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

header! {
    /// The response to 12.
    QueryMessageResponse {
        index_last_update_timestamp: i64 = "indexLastUpdateTimestamp",
        index_last_update_phyoffset: i64 = "indexLastUpdatePhyoffset",
    }
}

header! {
    /// `VIEW_MESSAGE_BY_ID` (33).
    ViewMessageRequest<'a> {
        topic: Option<&'a str> = "topic",
        /// Physical offset in the log.
        offset: i64 = "offset",
    }
}
