//! Handing out single messages: codes 200050 to 200055.

header! {
    /// `POP_MESSAGE` (200050).
    PopRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        /// -1 means any queue.
        queue_id: i32 = "queueId",
        max_msg_nums: i32 = "maxMsgNums",
        /// Milliseconds until the messages are handed out again.
        invisible_time: i64 = "invisibleTime",
        /// How long the request may wait, in milliseconds.
        poll_time: i64 = "pollTime",
        /// Sender's time, milliseconds since 1970.
        born_time: i64 = "bornTime",
        /// Where a new group begins: 0 at the first message, 1 at the end.
        init_mode: i32 = "initMode",
        exp_type: Option<&'a str> = "expType",
        exp: Option<&'a str> = "exp",
        order: Option<bool> = "order",
        attempt_id: Option<&'a str> = "attemptId",
    }
}

header! {
    /// The response to 200050 and 200052.
    PopResponse<'a> {
        /// Milliseconds since 1970.
        pop_time: i64 = "popTime",
        invisible_time: i64 = "invisibleTime",
        revive_qid: i32 = "reviveQid",
        rest_num: i64 = "restNum",
        start_offset_info: Option<&'a str> = "startOffsetInfo",
        msg_offset_info: Option<&'a str> = "msgOffsetInfo",
        order_count_info: Option<&'a str> = "orderCountInfo",
    }
}

header! {
    /// `ACK_MESSAGE` (200051).
    AckRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// The handle that the message was handed out with.
        extra_info: &'a str = "extraInfo",
        offset: i64 = "offset",
    }
}

header! {
    /// `PEEK_MESSAGE` (200052).
    PeekRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        max_msg_nums: i32 = "maxMsgNums",
        consumer_group: &'a str = "consumerGroup",
    }
}

header! {
    /// `CHANGE_MESSAGE_INVISIBLETIME` (200053).
    ChangeInvisibleRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// The handle that the message was handed out with.
        extra_info: &'a str = "extraInfo",
        offset: i64 = "offset",
        /// Milliseconds from now.
        invisible_time: i64 = "invisibleTime",
    }
}

header! {
    /// The response to 200053.
    ChangeInvisibleResponse {
        /// Milliseconds since 1970.
        pop_time: i64 = "popTime",
        invisible_time: i64 = "invisibleTime",
        revive_qid: i32 = "reviveQid",
    }
}

header! {
    /// `NOTIFICATION` (200054).
    NotificationRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// How long the request may wait, in milliseconds.
        poll_time: i64 = "pollTime",
        /// Sender's time, milliseconds since 1970.
        born_time: i64 = "bornTime",
        order: Option<bool> = "order",
        attempt_id: Option<&'a str> = "attemptId",
    }
}

header! {
    /// The response to 200054.
    NotificationResponse {
        has_msg: bool = "hasMsg",
        polling_full: Option<bool> = "pollingFull",
    }
}

header! {
    /// `POLLING_INFO` (200055).
    PollingInfoRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
    }
}

header! {
    /// The response to 200055.
    PollingInfoResponse {
        polling_num: i32 = "pollingNum",
    }
}
