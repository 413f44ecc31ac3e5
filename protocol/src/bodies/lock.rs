//! Orderly consumers' queue locks: bodies of 41 and 42.

use serde::{Deserialize, Serialize};

use super::MessageQueue;

/// Request body of lock (41) and unlock (42).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockRequest {
    /// Group that consumes.
    pub consumer_group: String,
    /// Member that wants the queues.
    pub client_id: String,
    /// The queues.
    pub mq_set: Vec<MessageQueue>,
    /// Always true from clients: locks belong to one broker group.
    pub only_this_broker: bool,
}

/// Response body of lock (41).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockResponse {
    /// The queues that the member now holds.
    #[serde(rename = "lockOKMQSet")]
    pub locked: Vec<MessageQueue>,
}

standard_body!(LockRequest);

standard_body!(LockResponse);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn request_as_clients_write_it() {
        let body = br#"{"clientId":"c@1","consumerGroup":"g","mqSet":[{"brokerName":"b",
            "queueId":"3","topic":"t"}],"onlyThisBroker":true,"extra":null}"#;
        let queue = MessageQueue {
            broker_name: "b".into(),
            queue_id: 3,
            topic: "t".into(),
        };
        let request = LockRequest::decode(body).unwrap();
        let expected = LockRequest {
            consumer_group: "g".into(),
            client_id: "c@1".into(),
            mq_set: vec![queue.clone()],
            only_this_broker: true,
        };
        assert_eq!(request, expected);
        assert_eq!(LockRequest::decode(&request.encode()).unwrap(), request);
        let response = LockResponse {
            locked: vec![queue],
        };
        let text = String::from_utf8(response.encode()).unwrap();
        let golden = r#"{"lockOKMQSet":[{"brokerName":"b","queueId":3,"topic":"t"}]}"#;
        assert_eq!(text, golden);
        assert_eq!(LockResponse::decode(text.as_bytes()).unwrap(), response);
    }
}
