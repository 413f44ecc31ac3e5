//! Bodies that need no dialect: what clients send, and each one there and back.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::json;

fn subscription() -> Subscription {
    Subscription {
        class_filter_mode: false,
        code_set: vec![2598919, -65],
        expression_type: "TAG".into(),
        sub_string: "TagA || B".into(),
        sub_version: 1_700_000_000_000,
        tags_set: vec!["TagA".into(), "B".into()],
        topic: "T".into(),
    }
}

fn heartbeat() -> Heartbeat {
    let consumer = ConsumerData {
        group_name: "g".into(),
        consume_type: ConsumeType::Pop,
        message_model: MessageModel::Broadcasting,
        consume_from_where: ConsumeFromWhere::Timestamp,
        subscription_data_set: vec![subscription()],
        unit_mode: true,
    };
    Heartbeat {
        client_id: "10.0.0.1@77".into(),
        producer_data_set: vec![ProducerData {
            group_name: "p".into(),
        }],
        consumer_data_set: vec![consumer],
        heartbeat_fingerprint: -5,
        without_sub: true,
    }
}

#[test]
fn heartbeat_of_the_java_client() {
    let body = r#"{"clientID":"10.0.0.1@77","consumerDataSet":[{
        "consumeFromWhere":"CONSUME_FROM_TIMESTAMP","consumeType":"CONSUME_POP","groupName":"g",
        "messageModel":"BROADCASTING","subscriptionDataSet":[{"classFilterMode":false,
        "codeSet":[2598919,-65],"expressionType":"TAG","subString":"TagA || B",
        "subVersion":1700000000000,"tagsSet":["TagA","B"],"topic":"T"}],"unitMode":true}],
        "heartbeatFingerprint":-5,"producerDataSet":[{"groupName":"p"}],"withoutSub":true}"#;
    assert_eq!(Heartbeat::decode(body.as_bytes()).unwrap(), heartbeat());
    assert_eq!(
        Heartbeat::decode(&heartbeat().encode()).unwrap(),
        heartbeat()
    );
}

#[test]
fn heartbeat_of_the_cpp_client() {
    let body = r#"{"clientID":"c","consumerDataSet":[{"consumeFromWhere":4,"consumeType":0,
        "groupName":"g","messageModel":1,"subscriptionDataSet":[{"subString":"*",
        "subVersion":"1700000000000","codeSet":["7",4294967303],"topic":"T"}]}]}"#;
    let heartbeat = Heartbeat::decode(body.as_bytes()).unwrap();
    assert!(heartbeat.producer_data_set.is_empty() && !heartbeat.without_sub);
    let consumer = &heartbeat.consumer_data_set[0];
    assert_eq!(consumer.consume_from_where, ConsumeFromWhere::FirstOffset);
    assert_eq!(consumer.consume_type, ConsumeType::Actively);
    assert_eq!(consumer.message_model, MessageModel::Clustering);
    let subscription = &consumer.subscription_data_set[0];
    assert_eq!(
        (subscription.sub_version, &subscription.code_set[..]),
        (1_700_000_000_000, &[7, 7][..])
    );
    assert_eq!(subscription.expression_type, "TAG");
}

#[test]
fn unknown_names_and_positions_are_the_default() {
    for (text, expected) in [
        ("\"Broadcasting\"", MessageModel::Broadcasting),
        ("0", MessageModel::Broadcasting),
        ("\"SOMETHING\"", MessageModel::Clustering),
        ("99", MessageModel::Clustering),
        ("-1", MessageModel::Clustering),
        ("null", MessageModel::Clustering),
    ] {
        let body = format!("{{\"consumerDataSet\":[{{\"messageModel\":{text}}}]}}");
        let heartbeat = Heartbeat::decode(body.as_bytes()).unwrap();
        assert_eq!(
            heartbeat.consumer_data_set[0].message_model, expected,
            "{text}"
        );
    }
    assert_eq!(ConsumeType::Pop.name(), "CONSUME_POP");
    assert_eq!(ConsumeFromWhere::Timestamp.name(), "CONSUME_FROM_TIMESTAMP");
}

#[test]
fn a_body_of_the_wrong_shape_is_an_error() {
    for body in [
        "",
        "[]",
        "{\"clientID\":7}",
        "{\"consumerDataSet\":{}}",
        "{\"clientID\":\"c\"",
    ] {
        assert!(Heartbeat::decode(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn topic_config_has_rocketmqs_names_and_defaults() {
    let config = TopicConfig {
        topic_name: "T".into(),
        ..TopicConfig::default()
    };
    let golden = json!({
        "attributes": {}, "order": false, "perm": 6, "readQueueNums": 16,
        "topicFilterType": "SINGLE_TAG", "topicName": "T", "topicSysFlag": 0,
        "writeQueueNums": 16,
    });
    assert_eq!(json::parse(&config.encode()).unwrap(), golden);
    assert_eq!(TopicConfig::decode(&config.encode()).unwrap(), config);
    assert_eq!(
        TopicConfig::decode(b"{\"topicName\":\"T\"}").unwrap(),
        config
    );
    let list = TopicConfigList {
        topic_config_list: vec![config.clone()],
    };
    assert_eq!(TopicConfigList::decode(&list.encode()).unwrap(), list);
    let all = AllTopicConfig {
        data_version: DataVersion {
            counter: 3,
            state_version: 1,
            timestamp: 9,
        },
        topic_config_table: [("T".to_string(), config)].into(),
    };
    assert_eq!(AllTopicConfig::decode(&all.encode()).unwrap(), all);
}

#[test]
fn group_config_has_rocketmqs_names_and_defaults() {
    let config = GroupConfig {
        group_name: "g".into(),
        ..GroupConfig::default()
    };
    let golden = json!({
        "attributes": {}, "brokerId": 0, "consumeBroadcastEnable": true, "consumeEnable": true,
        "consumeFromMinEnable": true, "consumeMessageOrderly": false, "consumeTimeoutMinute": 15,
        "groupName": "g", "groupRetryPolicy": {"type": "CUSTOMIZED"}, "groupSysFlag": 0,
        "notifyConsumerIdsChangedEnable": true, "retryMaxTimes": 16, "retryQueueNums": 1,
        "whichBrokerWhenConsumeSlowly": 1,
    });
    assert_eq!(json::parse(&config.encode()).unwrap(), golden);
    assert_eq!(
        GroupConfig::decode(b"{\"groupName\":\"g\"}").unwrap(),
        config
    );
    let policy = RetryPolicy {
        customized_retry_policy: Some(CustomizedRetry { next: vec![1, 2] }),
        exponential_retry_policy: Some(ExponentialRetry {
            initial: 1,
            max: 2,
            multiplier: 3,
        }),
        kind: RetryKind::Exponential,
    };
    let fixed = FixedSubscription {
        expression: "*".into(),
        expression_type: "TAG".into(),
        topic: "T".into(),
        version: 4,
    };
    let config = GroupConfig {
        group_retry_policy: policy,
        subscription_data_set: vec![fixed],
        consume_enable: false,
        retry_max_times: 3,
        ..config
    };
    let list = GroupConfigList {
        group_config_list: vec![config.clone()],
    };
    assert_eq!(GroupConfigList::decode(&list.encode()).unwrap(), list);
    let all = AllGroupConfig {
        data_version: DataVersion::default(),
        forbidden_table: [("g".to_string(), [("T".to_string(), 1)].into())].into(),
        subscription_group_table: [("g".to_string(), config)].into(),
    };
    assert_eq!(AllGroupConfig::decode(&all.encode()).unwrap(), all);
    let partial = br#"{"groupRetryPolicy":{"type":"EXPONENTIAL","exponentialRetryPolicy":{}}}"#;
    let policy = GroupConfig::decode(partial).unwrap().group_retry_policy;
    assert_eq!(
        policy.exponential_retry_policy,
        Some(ExponentialRetry::default())
    );
}

#[test]
fn connections_there_and_back() {
    let connection = Connection {
        client_addr: "10.0.0.1:5".into(),
        client_id: "c".into(),
        language: "JAVA".into(),
        version: 479,
    };
    let consumers = ConsumerConnection {
        connection_set: vec![connection.clone()],
        consume_from_where: ConsumeFromWhere::FirstOffset,
        consume_type: ConsumeType::Actively,
        message_model: MessageModel::Broadcasting,
        subscription_table: [("T".to_string(), subscription())].into(),
    };
    let text = String::from_utf8(consumers.encode()).unwrap();
    assert!(
        text.contains("\"consumeType\":\"CONSUME_ACTIVELY\""),
        "{text}"
    );
    assert_eq!(
        ConsumerConnection::decode(text.as_bytes()).unwrap(),
        consumers
    );
    let producers = ProducerConnection {
        connection_set: vec![connection],
    };
    assert_eq!(
        ProducerConnection::decode(&producers.encode()).unwrap(),
        producers
    );
    let info = ProducerInfo {
        client_id: "c".into(),
        language: "GO".into(),
        last_update_timestamp: 5,
        remote_ip: "10.0.0.1:5".into(),
        version: 317,
    };
    let all = AllProducers {
        data: [("p".to_string(), vec![info])].into(),
    };
    assert!(
        String::from_utf8(all.encode())
            .unwrap()
            .contains("\"remoteIP\":\"10.0.0.1:5\"")
    );
    assert_eq!(AllProducers::decode(&all.encode()).unwrap(), all);
}

#[test]
fn lists_tables_and_counters_there_and_back() {
    let members = ConsumerList {
        consumer_id_list: vec!["a@1".into(), "b@2".into()],
    };
    let text = String::from_utf8(members.encode()).unwrap();
    assert_eq!(text, r#"{"consumerIdList":["a@1","b@2"]}"#);
    assert_eq!(ConsumerList::decode(text.as_bytes()).unwrap(), members);
    let topics = TopicList {
        broker_addr: None,
        topic_list: vec!["T".into()],
    };
    assert_eq!(
        String::from_utf8(topics.encode()).unwrap(),
        r#"{"topicList":["T"]}"#
    );
    assert_eq!(TopicList::decode(&topics.encode()).unwrap(), topics);
    let with_addr = TopicList {
        broker_addr: Some("h:1".into()),
        ..topics
    };
    assert_eq!(TopicList::decode(&with_addr.encode()).unwrap(), with_addr);
    let groups = GroupList {
        group_list: vec!["g".into()],
    };
    assert_eq!(GroupList::decode(&groups.encode()).unwrap(), groups);
    let table = KvTable {
        table: [("k".to_string(), "v\"".to_string())].into(),
    };
    assert_eq!(
        String::from_utf8(table.encode()).unwrap(),
        r#"{"table":{"k":"v\""}}"#
    );
    assert_eq!(KvTable::decode(&table.encode()).unwrap(), table);
    let window = CounterWindow {
        avgpt: 0.5,
        sum: 9,
        tps: 1.25,
    };
    let counter = CounterStats {
        stats_minute: window,
        ..CounterStats::default()
    };
    assert_eq!(CounterStats::decode(&counter.encode()).unwrap(), counter);
    let span = ConsumeTimeSpan {
        delay_time: 4,
        ..ConsumeTimeSpan::default()
    };
    let spans = ConsumeTimeSpans {
        consume_time_span_set: vec![span],
    };
    assert_eq!(ConsumeTimeSpans::decode(&spans.encode()).unwrap(), spans);
}

#[test]
fn single_subscriptions_there_and_back() {
    let check = SubscriptionCheck {
        client_id: "c".into(),
        group: "g".into(),
        namespace: String::new(),
        subscription_data: subscription(),
    };
    assert_eq!(SubscriptionCheck::decode(&check.encode()).unwrap(), check);
    let held = GroupSubscription {
        group: "g".into(),
        subscription_data: Some(subscription()),
        topic: "T".into(),
    };
    assert_eq!(GroupSubscription::decode(&held.encode()).unwrap(), held);
    let none = GroupSubscription {
        subscription_data: None,
        ..held
    };
    assert_eq!(
        String::from_utf8(none.encode()).unwrap(),
        r#"{"group":"g","topic":"T"}"#
    );
}
