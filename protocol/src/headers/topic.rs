//! Topics as the tools manage them: codes 17, 21, 215, 217, 351.

header! {
    /// `UPDATE_AND_CREATE_TOPIC` (17).
    CreateTopicRequest<'a> {
        topic: &'a str = "topic",
        default_topic: &'a str = "defaultTopic",
        read_queue_nums: i32 = "readQueueNums",
        write_queue_nums: i32 = "writeQueueNums",
        /// Bits 4 read, 2 write, 1 inherit.
        perm: i32 = "perm",
        /// `SINGLE_TAG` or `MULTI_TAG`.
        topic_filter_type: &'a str = "topicFilterType",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        order: Option<bool> = "order",
        /// Changes of the form `+name=value,-name`.
        attributes: Option<&'a str> = "attributes",
        force: Option<bool> = "force",
    }
}

header! {
    /// `DELETE_TOPIC_IN_BROKER` (215), `REGISTER_TOPIC_IN_NAMESRV` (217), `GET_TOPIC_CONFIG` (351),
    /// `GET_TOPIC_STATS_INFO` (202) and `QUERY_TOPIC_CONSUME_BY_WHO` (300).
    TopicRequest<'a> {
        topic: &'a str = "topic",
    }
}

header! {
    /// `GET_ALL_TOPIC_CONFIG` (21); without fields everything is wanted.
    AllTopicConfigRequest<'a> {
        /// Number of the first topic of this page.
        topic_seq: Option<i32> = "topicSeq",
        data_version: Option<&'a str> = "dataVersion",
        max_topic_num: Option<i32> = "maxTopicNum",
    }
}

header! {
    /// The response to 21.
    AllTopicConfigResponse {
        total_topic_num: Option<i32> = "totalTopicNum",
    }
}
