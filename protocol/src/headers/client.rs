//! Clients and their group memberships: codes 34, 35, 38, 40.

header! {
    /// `HEART_BEAT` (34), the response's fields.
    HeartbeatResponse {
        /// We understand heartbeats with a fingerprint.
        supports_v2: Option<bool> = "IS_SUPPORT_HEART_BEAT_V2",
        /// The next heartbeat must carry the subscriptions.
        subscription_changed: Option<bool> = "IS_SUB_CHANGE",
    }
}

header! {
    /// `UNREGISTER_CLIENT` (35).
    UnregisterClientRequest<'a> {
        client_id: &'a str = "clientID",
        producer_group: Option<&'a str> = "producerGroup",
        consumer_group: Option<&'a str> = "consumerGroup",
    }
}

header! {
    /// `GET_CONSUMER_LIST_BY_GROUP` (38).
    ConsumerListRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
    }
}

header! {
    /// `NOTIFY_CONSUMER_IDS_CHANGED` (40), from us to the group's members, oneway.
    NotifyConsumersRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
    }
}
