//! Reading messages: codes 11 and 361.

/// Bits of a pull's `sysFlag`.
pub mod pull_flags {
    /// `commitOffset` is valid and must be stored.
    pub const COMMIT_OFFSET: i32 = 1;
    /// The request may wait for a message.
    pub const SUSPEND: i32 = 2;
    /// `subscription` is carried.
    pub const SUBSCRIPTION: i32 = 4;
    /// Class filter, obsolete.
    pub const CLASS_FILTER: i32 = 8;
    /// Lite pull consumer.
    pub const LITE_PULL: i32 = 16;
}

header! {
    /// `PULL_MESSAGE` (11) and `LITE_PULL_MESSAGE` (361).
    PullRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// First queue offset wanted.
        queue_offset: i64 = "queueOffset",
        max_msg_nums: i32 = "maxMsgNums",
        /// See [`pull_flags`].
        sys_flag: i32 = "sysFlag",
        /// The group's next offset of this queue, if the flag says so.
        commit_offset: i64 = "commitOffset",
        /// How long the request may wait, in milliseconds.
        suspend_timeout_millis: i64 = "suspendTimeoutMillis",
        subscription: Option<&'a str> = "subscription",
        /// Subscription version: a millisecond timestamp.
        sub_version: Option<i64> = "subVersion",
        /// `TAG` or `SQL92`; absent means `TAG`.
        expression_type: Option<&'a str> = "expressionType",
        max_msg_bytes: Option<i32> = "maxMsgBytes",
        request_source: Option<i32> = "requestSource",
        /// The client behind a proxy. The wire name is misspelt.
        proxy_forward_client_id: Option<&'a str> = "proxyFrowardClientId",
    }
}

impl PullRequest<'_> {
    /// Whether a bit of [`pull_flags`] is set.
    pub fn has_flag(&self, flag: i32) -> bool {
        self.sys_flag & flag != 0
    }
}

header! {
    /// The response to a pull, needed for every outcome that is not an error.
    PullResponse {
        /// Broker id that the next pull of this queue should go to.
        suggest_which_broker_id: i64 = "suggestWhichBrokerId",
        next_begin_offset: i64 = "nextBeginOffset",
        min_offset: i64 = "minOffset",
        max_offset: i64 = "maxOffset",
        offset_delta: Option<i64> = "offsetDelta",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        group_sys_flag: Option<i32> = "groupSysFlag",
        forbidden_type: Option<i32> = "forbiddenType",
    }
}
