//! Routes and the name server's lists: codes 105, 216, 224, 205, 327.

header! {
    /// `GET_ROUTEINFO_BY_TOPIC` (105).
    RouteRequest<'a> {
        topic: &'a str = "topic",
        /// The body must have quoted keys.
        accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly",
    }
}

header! {
    /// `DELETE_TOPIC_IN_NAMESRV` (216).
    DeleteTopicFromNameServerRequest<'a> {
        topic: &'a str = "topic",
        cluster_name: Option<&'a str> = "clusterName",
    }
}

header! {
    /// `GET_TOPICS_BY_CLUSTER` (224).
    TopicsByClusterRequest<'a> {
        cluster: &'a str = "cluster",
    }
}

header! {
    /// `WIPE_WRITE_PERM_OF_BROKER` (205) and `ADD_WRITE_PERM_OF_BROKER` (327).
    BrokerWritePermRequest<'a> {
        broker_name: &'a str = "brokerName",
    }
}

header! {
    /// The response to 205.
    WipeWritePermResponse {
        wipe_topic_count: i32 = "wipeTopicCount",
    }
}

header! {
    /// The response to 327.
    AddWritePermResponse {
        add_topic_count: i32 = "addTopicCount",
    }
}
