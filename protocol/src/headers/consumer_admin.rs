//! Tools steering a group's members: codes 220 to 223, 307, 308, 309, 314.

header! {
    /// `RESET_CONSUMER_CLIENT_OFFSET` (220), from us to members, oneway.
    ResetClientOffsetRequest<'a> {
        topic: &'a str = "topic",
        group: &'a str = "group",
        /// Milliseconds since 1970; -1 means the end.
        timestamp: i64 = "timestamp",
        is_force: bool = "isForce",
    }
}

header! {
    /// `GET_CONSUMER_STATUS_FROM_CLIENT` (221), from us to a member.
    ClientOffsetsRequest<'a> {
        topic: &'a str = "topic",
        group: &'a str = "group",
    }
}

header! {
    /// `INVOKE_BROKER_TO_RESET_OFFSET` (222).
    ResetOffsetRequest<'a> {
        topic: &'a str = "topic",
        group: &'a str = "group",
        /// -1 or absent means all queues.
        queue_id: Option<i32> = "queueId",
        /// Milliseconds since 1970; -1 means the end.
        timestamp: i64 = "timestamp",
        /// Wins over the time.
        offset: Option<i64> = "offset",
        is_force: Option<bool> = "isForce",
    }
}

header! {
    /// `INVOKE_BROKER_TO_GET_CONSUMER_STATUS` (223).
    GroupOffsetsRequest<'a> {
        topic: &'a str = "topic",
        group: &'a str = "group",
        /// Only this member.
        client_addr: Option<&'a str> = "clientAddr",
    }
}

header! {
    /// `GET_CONSUMER_RUNNING_INFO` (307), from a tool and on to the member.
    RunningInfoRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        client_id: &'a str = "clientId",
        jstack_enable: Option<bool> = "jstackEnable",
    }
}

header! {
    /// `CONSUME_MESSAGE_DIRECTLY` (309), from a tool and on to the member.
    ConsumeDirectlyRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        client_id: Option<&'a str> = "clientId",
        msg_id: Option<&'a str> = "msgId",
        broker_name: Option<&'a str> = "brokerName",
        topic: Option<&'a str> = "topic",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        group_sys_flag: Option<i32> = "groupSysFlag",
    }
}

header! {
    /// `QUERY_CORRECTION_OFFSET` (308).
    CorrectionOffsetsRequest<'a> {
        /// Groups that do not count, joined by commas.
        filter_groups: Option<&'a str> = "filterGroups",
        compare_group: &'a str = "compareGroup",
        topic: &'a str = "topic",
    }
}

header! {
    /// `CLONE_GROUP_OFFSET` (314).
    CloneOffsetsRequest<'a> {
        src_group: &'a str = "srcGroup",
        dest_group: &'a str = "destGroup",
        topic: Option<&'a str> = "topic",
        offline: bool = "offline",
    }
}
