//! Offsets of queues and of consumers: codes 14, 15, 29 to 32.

header! {
    /// `QUERY_CONSUMER_OFFSET` (14).
    QueryConsumerOffsetRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// Unless false, a young queue without a stored offset may answer 0.
        set_zero_if_not_found: Option<bool> = "setZeroIfNotFound",
    }
}

header! {
    /// `UPDATE_CONSUMER_OFFSET` (15), usually oneway.
    UpdateConsumerOffsetRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// The next queue offset to read; may be lower than the stored one.
        commit_offset: i64 = "commitOffset",
    }
}

header! {
    /// `SEARCH_OFFSET_BY_TIMESTAMP` (29).
    SearchOffsetRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// Store time in milliseconds since 1970.
        timestamp: i64 = "timestamp",
        /// `lower` or `upper`, in any case; absent means lower.
        boundary_type: Option<&'a str> = "boundaryType",
    }
}

impl SearchOffsetRequest<'_> {
    /// Whether the last offset at or before the time is wanted, not the first at or after it.
    pub fn wants_upper(&self) -> bool {
        self.boundary_type
            .is_some_and(|boundary| boundary.eq_ignore_ascii_case("upper"))
    }
}

header! {
    /// `GET_MAX_OFFSET` (30).
    MaxOffsetRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// Only replicated messages count.
        committed: Option<bool> = "committed",
    }
}

header! {
    /// `GET_MIN_OFFSET` (31) and `GET_EARLIEST_MSG_STORETIME` (32).
    MinOffsetRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
    }
}

header! {
    /// The response to 14, 29, 30 and 31.
    OffsetResponse {
        offset: i64 = "offset",
    }
}

header! {
    /// The response to 32.
    TimestampResponse {
        /// Milliseconds since 1970; -1 for an empty queue.
        timestamp: i64 = "timestamp",
    }
}
