//! Every header goes through both encodings whole, with its optional fields absent, and with each
//! required field missing.

#![allow(clippy::unwrap_used)]

use bytes::BytesMut;

use super::*;
use crate::codes::RequestCode;
use crate::{Encoding, FieldError, Fields, RemotingCommand, frame};

/// The fields after a trip over the wire in that encoding.
fn over_the_wire(fields: Fields, encoding: Encoding) -> Fields {
    let mut command = RemotingCommand::request(RequestCode(1), 1);
    command.encoding = encoding;
    command.fields = fields;
    let mut buffer = BytesMut::new();
    command.encode_into(&mut buffer).unwrap();
    let frame = frame::cut(&mut buffer).unwrap().unwrap();
    assert!(buffer.is_empty());
    RemotingCommand::decode(frame).unwrap().fields
}

/// One test per header: a value whose fields are all set, and the names of the required ones.
macro_rules! round_trips {
    ($(
        $test:ident: $header:ident { $($field:ident: $value:expr),* $(,)? },
        [$($required:literal),* $(,)?];
    )*) => {$(
        #[test]
        fn $test() {
            let whole = $header { $($field: $value),* };
            let mut written = Fields::new();
            whole.write(&mut written);
            assert_eq!(written.len(), [$(stringify!($field)),*].len());
            for encoding in [Encoding::Json, Encoding::RocketMq] {
                let fields = over_the_wire(written.clone(), encoding);
                assert_eq!($header::parse(&fields).unwrap(), whole);
            }
            let required: &[&'static str] = &[$($required),*];
            let mut least = Fields::new();
            for name in required {
                least.push(name, written.get(name).unwrap());
            }
            let parsed = $header::parse(&least).unwrap();
            let mut rewritten = Fields::new();
            parsed.write(&mut rewritten);
            assert_eq!(rewritten.len(), required.len());
            for name in required {
                let mut lacking = least.clone();
                lacking.remove(name);
                let error = $header::parse(&lacking).unwrap_err();
                assert_eq!(error, FieldError::Missing { name });
            }
        }
    )*};
}

round_trips! {
    heartbeat_response: HeartbeatResponse {
        supports_v2: Some(true),
        subscription_changed: Some(false),
    }, [];
    unregister_client_request: UnregisterClientRequest {
        client_id: "text-0",
        producer_group: Some("text-1"),
        consumer_group: Some("text-2"),
    }, ["clientID"];
    consumer_list_request: ConsumerListRequest { consumer_group: "text-0" }, ["consumerGroup"];
    notify_consumers_request: NotifyConsumersRequest {
        consumer_group: "text-0",
    }, ["consumerGroup"];
    reset_client_offset_request: ResetClientOffsetRequest {
        topic: "text-0",
        group: "text-1",
        timestamp: 1_099_511_627_778,
        is_force: false,
    }, ["topic", "group", "timestamp", "isForce"];
    client_offsets_request: ClientOffsetsRequest {
        topic: "text-0",
        group: "text-1",
    }, ["topic", "group"];
    reset_offset_request: ResetOffsetRequest {
        topic: "text-0",
        group: "text-1",
        queue_id: Some(-3),
        timestamp: 1_099_511_627_779,
        offset: Some(1_099_511_627_780),
        is_force: Some(false),
    }, ["topic", "group", "timestamp"];
    group_offsets_request: GroupOffsetsRequest {
        topic: "text-0",
        group: "text-1",
        client_addr: Some("text-2"),
    }, ["topic", "group"];
    running_info_request: RunningInfoRequest {
        consumer_group: "text-0",
        client_id: "text-1",
        jstack_enable: Some(true),
    }, ["consumerGroup", "clientId"];
    consume_directly_request: ConsumeDirectlyRequest {
        consumer_group: "text-0",
        client_id: Some("text-1"),
        msg_id: Some("text-2"),
        broker_name: Some("text-3"),
        topic: Some("text-4"),
        topic_sys_flag: Some(-6),
        group_sys_flag: Some(-7),
    }, ["consumerGroup"];
    clone_offsets_request: CloneOffsetsRequest {
        src_group: "text-0",
        dest_group: "text-1",
        topic: Some("text-2"),
        offline: false,
    }, ["srcGroup", "destGroup", "offline"];
    all_group_config_request: AllGroupConfigRequest {
        group_seq: Some(-1),
        data_version: Some("text-1"),
        max_group_num: Some(-3),
    }, [];
    all_group_config_response: AllGroupConfigResponse { total_group_num: Some(-1) }, [];
    delete_group_request: DeleteGroupRequest {
        group_name: "text-0",
        clean_offset: Some(false),
    }, ["groupName"];
    group_request: GroupRequest { group: "text-0" }, ["group"];
    group_topic_request: GroupTopicRequest {
        group: "text-0",
        topic: "text-1",
    }, ["group", "topic"];
    forbidden_request: ForbiddenRequest {
        group: "text-0",
        topic: "text-1",
        readable: Some(true),
    }, ["group", "topic"];
    put_kv_request: PutKvRequest {
        namespace: "text-0",
        key: "text-1",
        value: "text-2",
    }, ["namespace", "key", "value"];
    kv_request: KvRequest { namespace: "text-0", key: "text-1" }, ["namespace", "key"];
    kv_response: KvResponse { value: Some("text-0") }, [];
    kv_list_request: KvListRequest { namespace: "text-0" }, ["namespace"];
    query_consumer_offset_request: QueryConsumerOffsetRequest {
        consumer_group: "text-0",
        topic: "text-1",
        queue_id: -3,
        set_zero_if_not_found: Some(false),
    }, ["consumerGroup", "topic", "queueId"];
    update_consumer_offset_request: UpdateConsumerOffsetRequest {
        consumer_group: "text-0",
        topic: "text-1",
        queue_id: -3,
        commit_offset: 1_099_511_627_779,
    }, ["consumerGroup", "topic", "queueId", "commitOffset"];
    search_offset_request: SearchOffsetRequest {
        topic: "text-0",
        queue_id: -2,
        timestamp: 1_099_511_627_778,
        boundary_type: Some("text-3"),
    }, ["topic", "queueId", "timestamp"];
    max_offset_request: MaxOffsetRequest {
        topic: "text-0",
        queue_id: -2,
        committed: Some(true),
    }, ["topic", "queueId"];
    min_offset_request: MinOffsetRequest { topic: "text-0", queue_id: -2 }, ["topic", "queueId"];
    offset_response: OffsetResponse { offset: 1_099_511_627_776 }, ["offset"];
    timestamp_response: TimestampResponse { timestamp: 1_099_511_627_776 }, ["timestamp"];
    pop_request: PopRequest {
        consumer_group: "text-0",
        topic: "text-1",
        queue_id: -3,
        max_msg_nums: -4,
        invisible_time: 1_099_511_627_780,
        poll_time: 1_099_511_627_781,
        born_time: 1_099_511_627_782,
        init_mode: -8,
        exp_type: Some("text-8"),
        exp: Some("text-9"),
        order: Some(true),
        attempt_id: Some("text-11"),
    }, [
        "consumerGroup", "topic", "queueId", "maxMsgNums", "invisibleTime", "pollTime", "bornTime",
        "initMode",
    ];
    pop_response: PopResponse {
        pop_time: 1_099_511_627_776,
        invisible_time: 1_099_511_627_777,
        revive_qid: -3,
        rest_num: 1_099_511_627_779,
        start_offset_info: Some("text-4"),
        msg_offset_info: Some("text-5"),
        order_count_info: Some("text-6"),
    }, ["popTime", "invisibleTime", "reviveQid", "restNum"];
    ack_request: AckRequest {
        consumer_group: "text-0",
        topic: "text-1",
        queue_id: -3,
        extra_info: "text-3",
        offset: 1_099_511_627_780,
    }, ["consumerGroup", "topic", "queueId", "extraInfo", "offset"];
    peek_request: PeekRequest {
        topic: "text-0",
        queue_id: -2,
        max_msg_nums: -3,
        consumer_group: "text-3",
    }, ["topic", "queueId", "maxMsgNums", "consumerGroup"];
    change_invisible_request: ChangeInvisibleRequest {
        consumer_group: "text-0",
        topic: "text-1",
        queue_id: -3,
        extra_info: "text-3",
        offset: 1_099_511_627_780,
        invisible_time: 1_099_511_627_781,
    }, ["consumerGroup", "topic", "queueId", "extraInfo", "offset", "invisibleTime"];
    change_invisible_response: ChangeInvisibleResponse {
        pop_time: 1_099_511_627_776,
        invisible_time: 1_099_511_627_777,
        revive_qid: -3,
    }, ["popTime", "invisibleTime", "reviveQid"];
    notification_request: NotificationRequest {
        consumer_group: "text-0",
        topic: "text-1",
        queue_id: -3,
        poll_time: 1_099_511_627_779,
        born_time: 1_099_511_627_780,
        order: Some(false),
        attempt_id: Some("text-6"),
    }, ["consumerGroup", "topic", "queueId", "pollTime", "bornTime"];
    notification_response: NotificationResponse {
        has_msg: true,
        polling_full: Some(false),
    }, ["hasMsg"];
    polling_info_request: PollingInfoRequest {
        consumer_group: "text-0",
        topic: "text-1",
        queue_id: -3,
    }, ["consumerGroup", "topic", "queueId"];
    polling_info_response: PollingInfoResponse { polling_num: -1 }, ["pollingNum"];
    pull_request: PullRequest {
        consumer_group: "text-0",
        topic: "text-1",
        queue_id: -3,
        queue_offset: 1_099_511_627_779,
        max_msg_nums: -5,
        sys_flag: -6,
        commit_offset: 1_099_511_627_782,
        suspend_timeout_millis: 1_099_511_627_783,
        subscription: Some("text-8"),
        sub_version: Some(1_099_511_627_785),
        expression_type: Some("text-10"),
        max_msg_bytes: Some(-12),
        request_source: Some(-13),
        proxy_forward_client_id: Some("text-13"),
    }, [
        "consumerGroup", "topic", "queueId", "queueOffset", "maxMsgNums", "sysFlag", "commitOffset",
        "suspendTimeoutMillis",
    ];
    pull_response: PullResponse {
        suggest_which_broker_id: 1_099_511_627_776,
        next_begin_offset: 1_099_511_627_777,
        min_offset: 1_099_511_627_778,
        max_offset: 1_099_511_627_779,
        offset_delta: Some(1_099_511_627_780),
        topic_sys_flag: Some(-6),
        group_sys_flag: Some(-7),
        forbidden_type: Some(-8),
    }, ["suggestWhichBrokerId", "nextBeginOffset", "minOffset", "maxOffset"];
    query_message_request: QueryMessageRequest {
        topic: "text-0",
        key: "text-1",
        max_num: -3,
        begin_timestamp: 1_099_511_627_779,
        end_timestamp: 1_099_511_627_780,
    }, ["topic", "key", "maxNum", "beginTimestamp", "endTimestamp"];
    query_message_response: QueryMessageResponse {
        index_last_update_timestamp: 1_099_511_627_776,
        index_last_update_phyoffset: 1_099_511_627_777,
    }, ["indexLastUpdateTimestamp", "indexLastUpdatePhyoffset"];
    view_message_request: ViewMessageRequest {
        topic: Some("text-0"),
        offset: 1_099_511_627_777,
    }, ["offset"];
    route_request: RouteRequest {
        topic: "text-0",
        accept_standard_json_only: Some(false),
    }, ["topic"];
    delete_topic_from_name_server_request: DeleteTopicFromNameServerRequest {
        topic: "text-0",
        cluster_name: Some("text-1"),
    }, ["topic"];
    topics_by_cluster_request: TopicsByClusterRequest { cluster: "text-0" }, ["cluster"];
    broker_write_perm_request: BrokerWritePermRequest { broker_name: "text-0" }, ["brokerName"];
    wipe_write_perm_response: WipeWritePermResponse { wipe_topic_count: -1 }, ["wipeTopicCount"];
    add_write_perm_response: AddWritePermResponse { add_topic_count: -1 }, ["addTopicCount"];
    send_response: SendResponse {
        msg_id: "text-0",
        queue_id: -2,
        queue_offset: 1_099_511_627_778,
        transaction_id: Some("text-3"),
        batch_uniq_id: Some("text-4"),
        recall_handle: Some("text-5"),
        region: Some("text-6"),
        trace_on: Some(false),
    }, ["msgId", "queueId", "queueOffset"];
    send_back_request: SendBackRequest {
        offset: 1_099_511_627_776,
        group: "text-1",
        delay_level: -3,
        origin_msg_id: Some("text-3"),
        origin_topic: Some("text-4"),
        unit_mode: Some(false),
        max_reconsume_times: Some(-7),
    }, ["offset", "group", "delayLevel"];
    broker_config_response: BrokerConfigResponse { version: "text-0" }, ["version"];
    consumer_connection_request: ConsumerConnectionRequest {
        consumer_group: "text-0",
    }, ["consumerGroup"];
    producer_connection_request: ProducerConnectionRequest {
        producer_group: "text-0",
    }, ["producerGroup"];
    consume_stats_request: ConsumeStatsRequest {
        consumer_group: "text-0",
        topic: Some("text-1"),
        topic_list: Some("text-2"),
    }, ["consumerGroup"];
    broker_consume_stats_request: BrokerConsumeStatsRequest { is_order: true }, ["isOrder"];
    counter_request: CounterRequest {
        stats_name: "text-0",
        stats_key: "text-1",
    }, ["statsName", "statsKey"];
    query_consume_queue_request: QueryConsumeQueueRequest {
        topic: "text-0",
        queue_id: -2,
        index: 1_099_511_627_778,
        count: -4,
        consumer_group: Some("text-4"),
    }, ["topic", "queueId", "index", "count"];
    create_topic_request: CreateTopicRequest {
        topic: "text-0",
        default_topic: "text-1",
        read_queue_nums: -3,
        write_queue_nums: -4,
        perm: -5,
        topic_filter_type: "text-5",
        topic_sys_flag: Some(-7),
        order: Some(false),
        attributes: Some("text-8"),
        force: Some(false),
    }, ["topic", "defaultTopic", "readQueueNums", "writeQueueNums", "perm", "topicFilterType"];
    topic_request: TopicRequest { topic: "text-0" }, ["topic"];
    all_topic_config_request: AllTopicConfigRequest {
        topic_seq: Some(-1),
        data_version: Some("text-1"),
        max_topic_num: Some(-3),
    }, [];
    all_topic_config_response: AllTopicConfigResponse { total_topic_num: Some(-1) }, [];
    end_transaction_request: EndTransactionRequest {
        topic: Some("text-0"),
        producer_group: "text-1",
        tran_state_table_offset: 1_099_511_627_778,
        commit_log_offset: 1_099_511_627_779,
        commit_or_rollback: -5,
        from_transaction_check: Some(false),
        msg_id: "text-6",
        transaction_id: Some("text-7"),
    }, ["producerGroup", "tranStateTableOffset", "commitLogOffset", "commitOrRollback", "msgId"];
    check_transaction_request: CheckTransactionRequest {
        topic: Some("text-0"),
        tran_state_table_offset: 1_099_511_627_777,
        commit_log_offset: 1_099_511_627_778,
        msg_id: Some("text-3"),
        transaction_id: Some("text-4"),
        offset_msg_id: Some("text-5"),
    }, ["tranStateTableOffset", "commitLogOffset"];
    push_reply_request: PushReplyRequest {
        producer_group: "text-0",
        topic: "text-1",
        default_topic: "text-2",
        default_topic_queue_nums: -4,
        queue_id: -5,
        sys_flag: -6,
        born_timestamp: 1_099_511_627_782,
        flag: -8,
        properties: Some("text-8"),
        reconsume_times: Some(-10),
        unit_mode: Some(true),
        born_host: "text-11",
        store_host: "text-12",
        store_timestamp: 1_099_511_627_789,
    }, [
        "producerGroup", "topic", "defaultTopic", "defaultTopicQueueNums", "queueId", "sysFlag",
        "bornTimestamp", "flag", "bornHost", "storeHost", "storeTimestamp",
    ];
    recall_request: RecallRequest {
        producer_group: Some("text-0"),
        topic: "text-1",
        recall_handle: "text-2",
    }, ["topic", "recallHandle"];
    recall_response: RecallResponse { msg_id: "text-0" }, ["msgId"];
}
