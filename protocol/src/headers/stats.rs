//! Statistics and connections: codes 26, 203, 204, 208, 315, 317, 321.

header! {
    /// The response to `GET_BROKER_CONFIG` (26); its body is properties text.
    BrokerConfigResponse<'a> {
        version: &'a str = "version",
    }
}

header! {
    /// `GET_CONSUMER_CONNECTION_LIST` (203).
    ConsumerConnectionRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
    }
}

header! {
    /// `GET_PRODUCER_CONNECTION_LIST` (204).
    ProducerConnectionRequest<'a> {
        producer_group: &'a str = "producerGroup",
    }
}

header! {
    /// `GET_CONSUME_STATS` (208).
    ConsumeStatsRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        /// Only this topic; absent or empty means all.
        topic: Option<&'a str> = "topic",
        topic_list: Option<&'a str> = "topicList",
    }
}

header! {
    /// `GET_BROKER_CONSUME_STATS` (317).
    BrokerConsumeStatsRequest {
        /// Only groups that consume in order.
        is_order: bool = "isOrder",
    }
}

header! {
    /// `VIEW_BROKER_STATS_DATA` (315).
    CounterRequest<'a> {
        /// `TOPIC_PUT_NUMS` and others.
        stats_name: &'a str = "statsName",
        /// `topic`, `topic@group` or a cluster.
        stats_key: &'a str = "statsKey",
    }
}

header! {
    /// `QUERY_CONSUME_QUEUE` (321).
    QueryConsumeQueueRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// First queue offset wanted.
        index: i64 = "index",
        count: i32 = "count",
        consumer_group: Option<&'a str> = "consumerGroup",
    }
}
