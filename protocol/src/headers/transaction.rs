//! Transactions, replies and recalls: codes 37, 39, 326, 370.

header! {
    /// `END_TRANSACTION` (37), usually oneway.
    EndTransactionRequest<'a> {
        topic: Option<&'a str> = "topic",
        producer_group: &'a str = "producerGroup",
        /// Queue offset of the half message.
        tran_state_table_offset: i64 = "tranStateTableOffset",
        /// Physical offset of the half message.
        commit_log_offset: i64 = "commitLogOffset",
        /// 8 commit, 12 roll back, 0 unknown.
        commit_or_rollback: i32 = "commitOrRollback",
        from_transaction_check: Option<bool> = "fromTransactionCheck",
        msg_id: &'a str = "msgId",
        transaction_id: Option<&'a str> = "transactionId",
    }
}

header! {
    /// `CHECK_TRANSACTION_STATE` (39), from us to a producer, oneway.
    CheckTransactionRequest<'a> {
        topic: Option<&'a str> = "topic",
        tran_state_table_offset: i64 = "tranStateTableOffset",
        commit_log_offset: i64 = "commitLogOffset",
        msg_id: Option<&'a str> = "msgId",
        transaction_id: Option<&'a str> = "transactionId",
        offset_msg_id: Option<&'a str> = "offsetMsgId",
    }
}

header! {
    /// `RESUME_CHECK_HALF_MESSAGE` (323).
    ResumeCheckRequest<'a> {
        topic: Option<&'a str> = "topic",
        /// The offsetMsgId of the half message that was given up.
        msg_id: &'a str = "msgId",
    }
}

header! {
    /// `PUSH_REPLY_MESSAGE_TO_CLIENT` (326), from us to a producer that waits for a reply.
    PushReplyRequest<'a> {
        producer_group: &'a str = "producerGroup",
        topic: &'a str = "topic",
        default_topic: &'a str = "defaultTopic",
        default_topic_queue_nums: i32 = "defaultTopicQueueNums",
        queue_id: i32 = "queueId",
        sys_flag: i32 = "sysFlag",
        /// Milliseconds since 1970.
        born_timestamp: i64 = "bornTimestamp",
        flag: i32 = "flag",
        properties: Option<&'a str> = "properties",
        reconsume_times: Option<i32> = "reconsumeTimes",
        unit_mode: Option<bool> = "unitMode",
        born_host: &'a str = "bornHost",
        store_host: &'a str = "storeHost",
        /// Milliseconds since 1970.
        store_timestamp: i64 = "storeTimestamp",
    }
}

header! {
    /// `RECALL_MESSAGE` (370).
    RecallRequest<'a> {
        producer_group: Option<&'a str> = "producerGroup",
        topic: &'a str = "topic",
        recall_handle: &'a str = "recallHandle",
    }
}

header! {
    /// The response to 370.
    RecallResponse<'a> {
        msg_id: &'a str = "msgId",
    }
}
