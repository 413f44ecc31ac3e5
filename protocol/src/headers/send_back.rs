//! Handing a message back for a later retry: code 36.

header! {
    /// `CONSUMER_SEND_MSG_BACK` (36).
    SendBackRequest<'a> {
        /// Physical offset of the message.
        offset: i64 = "offset",
        group: &'a str = "group",
        /// 0 lets the broker choose, -1 means dead letter.
        delay_level: i32 = "delayLevel",
        origin_msg_id: Option<&'a str> = "originMsgId",
        origin_topic: Option<&'a str> = "originTopic",
        unit_mode: Option<bool> = "unitMode",
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
    }
}
