//! What tools ask over the wire, of a cluster of three nodes: the tool, the consumer and the leader are at
//! different nodes.

#![allow(clippy::unwrap_used)]

#[path = "support/member.rs"]
mod member;
mod support;

use std::time::Duration;

use gantry_protocol::bodies::{
    AllProducers, ClientOffsets, ConsumeQueueRows, ConsumeStats, ConsumeTimeSpans, ConsumerData,
    CounterStats, EpochCache, GroupConfig, GroupForbidden, HaStatus, Heartbeat, KvTable,
    MessageQueue, ProducerData, ResetOffsets, Subscription, TopicRoute, TopicStats,
};
use gantry_protocol::headers::{
    BrokerWritePermRequest, CloneOffsetsRequest, ConsumeDirectlyRequest, CounterRequest,
    ForbiddenRequest, GroupOffsetsRequest, GroupTopicRequest, PullResponse, PushReplyRequest,
    QueryConsumeQueueRequest, QueryConsumerOffsetRequest, QueryMessageRequest, ResetOffsetRequest,
    RunningInfoRequest, SendRequest, SendResponse, UpdateConsumerOffsetRequest,
};
use gantry_protocol::message::Message;
use gantry_protocol::{Language, RemotingCommand, RequestCode, ResponseCode};

use member::{Member, pull, request};
use support::cluster::Cluster;
use support::messages::create_topic;

const TOPIC: &str = "Orders";
const GROUP: &str = "Billing";

fn heartbeat(client_id: &str) -> RemotingCommand {
    let subscription = Subscription {
        topic: TOPIC.into(),
        sub_string: "*".into(),
        ..Subscription::default()
    };
    let consumer = ConsumerData {
        group_name: GROUP.into(),
        subscription_data_set: vec![subscription],
        ..ConsumerData::default()
    };
    let heartbeat = Heartbeat {
        client_id: client_id.into(),
        consumer_data_set: vec![consumer],
        producer_data_set: vec![ProducerData {
            group_name: "Sellers".into(),
        }],
        ..Heartbeat::default()
    };
    request(RequestCode::HEART_BEAT, |_| {}).with_body(heartbeat.encode())
}

fn send(code: RequestCode, topic: &str, body: &str, properties: &str) -> RemotingCommand {
    let header = SendRequest {
        producer_group: "Sellers",
        topic,
        default_topic: "TBW102",
        default_topic_queue_nums: 1,
        queue_id: 0,
        born_timestamp: 1,
        properties: Some(properties),
        ..SendRequest::default()
    };
    request(code, |fields| header.write(code, fields)).with_body(body.to_string())
}

/// Sends so many messages to queue 0; the ids of their places.
async fn fill(client: &mut Member, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for nth in 0..count {
        let sent = send(RequestCode::SEND_MESSAGE_V2, TOPIC, &format!("m{nth}"), "");
        let answer = client.ask_well(sent).await;
        let sent = SendResponse::parse(&answer.fields).unwrap();
        ids.push(sent.msg_id.to_string());
    }
    ids
}

/// What a consumer written in Java answers.
fn java(asked: &RemotingCommand) -> Option<RemotingCommand> {
    let answer = RemotingCommand::success_to(asked);
    Some(match asked.request_code() {
        RequestCode::GET_CONSUMER_RUNNING_INFO => answer.with_body("{\"as\":{{\"x\":1}:2}}"),
        RequestCode::CONSUME_MESSAGE_DIRECTLY => {
            let messages = Message::decode_all(asked.body.clone()).unwrap();
            let body = String::from_utf8(messages[0].body.to_vec()).unwrap();
            answer.with_body(format!(
                "{{\"consumeResult\":\"CR_SUCCESS\",\"remark\":\"{body}\"}}"
            ))
        }
        RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT => {
            let offsets = ClientOffsets {
                message_queue_table: [(queue(0), 7)].into(),
            };
            answer.with_body(offsets.encode())
        }
        RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT => answer,
        _ => return None,
    })
}

fn queue(queue_id: i32) -> MessageQueue {
    MessageQueue {
        broker_name: "broker-a".into(),
        queue_id,
        topic: TOPIC.into(),
    }
}

fn running_info(client_id: &str) -> RemotingCommand {
    let header = RunningInfoRequest {
        consumer_group: GROUP,
        client_id,
        jstack_enable: Some(false),
    };
    request(RequestCode::GET_CONSUMER_RUNNING_INFO, |fields| {
        header.write(fields)
    })
}

/// Until every node knows the client.
async fn known(tool: &mut Member, client_id: &str) {
    for _ in 0..200 {
        let answer = tool.ask(running_info(client_id)).await;
        if answer.response_code() == ResponseCode::SUCCESS {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{client_id} does not become known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_is_asked_through_the_node_that_it_is_connected_to() {
    let cluster = Cluster::start_led_by_the_first().await;
    let mut tool = Member::connect(cluster.group_address(3), Language::Java, |_| None).await;
    let mut consumer = Member::connect(cluster.group_address(2), Language::Java, java).await;
    let ids = fill(&mut tool, 3).await;
    consumer.ask_well(heartbeat("c1")).await;
    known(&mut tool, "c1").await;

    let info = tool.ask_well(running_info("c1")).await;
    assert_eq!(info.body, "{\"as\":{{\"x\":1}:2}}", "relayed as it is");
    let asked = consumer
        .asked_for(RequestCode::GET_CONSUMER_RUNNING_INFO)
        .await;
    assert_eq!(asked.fields.get("consumerGroup"), Some(GROUP));

    let header = ConsumeDirectlyRequest {
        consumer_group: GROUP,
        client_id: Some("c1"),
        msg_id: Some(&ids[1]),
        ..ConsumeDirectlyRequest::default()
    };
    let code = RequestCode::CONSUME_MESSAGE_DIRECTLY;
    let done = tool
        .ask_well(request(code, |fields| header.write(fields)))
        .await;
    let text = String::from_utf8(done.body.to_vec()).unwrap();
    assert!(text.contains("\"remark\":\"m1\""), "{text}");
    let asked = consumer.asked_for(code).await;
    assert_eq!(asked.fields.get("brokerName"), Some("broker-a"));

    let header = GroupOffsetsRequest {
        topic: TOPIC,
        group: GROUP,
        client_addr: None,
    };
    let code = RequestCode::INVOKE_BROKER_TO_GET_CONSUMER_STATUS;
    let told = tool
        .ask_well(request(code, |fields| header.write(fields)))
        .await;
    let expected = "{\"consumerTable\":{\"c1\":{{\"brokerName\":\"broker-a\",\"queueId\":0,\
                    \"topic\":\"Orders\"}:7}}}";
    assert_eq!(told.body, expected);
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_there_or_does_not_answer_is_told_apart() {
    let cluster = Cluster::start_led_by_the_first().await;
    let mut tool = Member::connect(cluster.group_address(3), Language::Java, |_| None).await;
    let nobody = tool.ask(running_info("nobody")).await;
    assert_eq!(nobody.response_code(), ResponseCode::SYSTEM_ERROR);
    assert!(nobody.remark.unwrap().contains("not online"));

    // A C++ client knows no 221.
    fn cpp(asked: &RemotingCommand) -> Option<RemotingCommand> {
        let code = ResponseCode::REQUEST_CODE_NOT_SUPPORTED;
        let wants = asked.request_code() == RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT;
        let refused = RemotingCommand::response_to(asked, code, "unknown");
        if wants { Some(refused) } else { java(asked) }
    }
    let mut consumer = Member::connect(cluster.group_address(1), Language::Cpp, cpp).await;
    consumer.ask_well(heartbeat("c2")).await;
    known(&mut tool, "c2").await;
    let header = GroupOffsetsRequest {
        topic: TOPIC,
        group: GROUP,
        client_addr: None,
    };
    let code = RequestCode::INVOKE_BROKER_TO_GET_CONSUMER_STATUS;
    let told = tool.ask(request(code, |fields| header.write(fields))).await;
    assert_eq!(told.response_code(), ResponseCode::SYSTEM_ERROR);
    assert!(told.remark.unwrap().contains("c2"), "says who refused");

    let header = ConsumeDirectlyRequest {
        consumer_group: GROUP,
        client_id: Some("c2"),
        msg_id: Some("no id"),
        ..ConsumeDirectlyRequest::default()
    };
    let code = RequestCode::CONSUME_MESSAGE_DIRECTLY;
    let refused = tool.ask(request(code, |fields| header.write(fields))).await;
    assert_eq!(refused.response_code(), ResponseCode::SYSTEM_ERROR);

    let mut silent = Member::connect(cluster.group_address(2), Language::Java, java).await;
    silent.ask_well(heartbeat("c3")).await;
    known(&mut tool, "c3").await;
    silent.hang_up().await;
    let gone = tool.ask(running_info("c3")).await;
    assert_ne!(gone.response_code(), ResponseCode::SUCCESS);
    cluster.stop();
}

fn commit(offset: i64) -> RemotingCommand {
    let header = UpdateConsumerOffsetRequest {
        consumer_group: GROUP,
        topic: TOPIC,
        queue_id: 0,
        commit_offset: offset,
    };
    request(RequestCode::UPDATE_CONSUMER_OFFSET, |fields| {
        header.write(fields)
    })
}

async fn committed(client: &mut Member, group: &str) -> Option<i64> {
    let header = QueryConsumerOffsetRequest {
        consumer_group: group,
        topic: TOPIC,
        queue_id: 0,
        set_zero_if_not_found: Some(false),
    };
    let code = RequestCode::QUERY_CONSUMER_OFFSET;
    let answer = client
        .ask(request(code, |fields| header.write(fields)))
        .await;
    answer
        .fields
        .get("offset")
        .map(|offset| offset.parse().unwrap())
}

fn reset(offset: Option<i64>, timestamp: i64) -> RemotingCommand {
    let header = ResetOffsetRequest {
        topic: TOPIC,
        group: GROUP,
        queue_id: offset.map(|_| 0),
        timestamp,
        offset,
        is_force: Some(true),
    };
    let code = RequestCode::INVOKE_BROKER_TO_RESET_OFFSET;
    request(code, |fields| header.write(fields))
}

fn moved_to(pulled: &RemotingCommand) -> i64 {
    assert_eq!(
        pulled.response_code(),
        ResponseCode::PULL_OFFSET_MOVED,
        "{pulled:?}"
    );
    PullResponse::parse(&pulled.fields)
        .unwrap()
        .next_begin_offset
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_reaches_a_group_wherever_it_pulls() {
    let cluster = Cluster::start_led_by_the_first().await;
    let mut tool = Member::connect(cluster.group_address(3), Language::Java, |_| None).await;
    let mut consumer = Member::connect(cluster.group_address(2), Language::Cpp, java).await;
    fill(&mut tool, 6).await;
    let unknown = tool.ask(reset(Some(2), 0)).await;
    let code = ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST;
    assert_eq!(unknown.response_code(), code, "{unknown:?}");
    consumer.ask_well(heartbeat("c1")).await;
    known(&mut tool, "c1").await;
    consumer.ask_well(commit(5)).await;

    let out_of_range = tool.ask(reset(Some(8), 0)).await;
    assert_eq!(out_of_range.response_code(), ResponseCode::SYSTEM_ERROR);
    let done = tool.ask_well(reset(Some(2), 0)).await;
    let table = ResetOffsets::decode(&done.body).unwrap().offset_table;
    assert_eq!(table, [(queue(0), 2)].into());
    let notice = consumer
        .asked_for(RequestCode::RESET_CONSUMER_CLIENT_OFFSET)
        .await;
    let text = String::from_utf8(notice.body.to_vec()).unwrap();
    assert!(text.starts_with("{\"offsetTable\":[{"), "for C++: {text}");

    // The consumer goes on reporting where it was.
    consumer.ask_well(commit(6)).await;
    assert_eq!(committed(&mut tool, GROUP).await, Some(2));
    assert_eq!(moved_to(&consumer.ask(pull(GROUP, TOPIC, 6)).await), 2);
    assert_eq!(
        moved_to(&consumer.ask(pull(GROUP, TOPIC, 6)).await),
        2,
        "not there yet"
    );
    let other = tool.ask(pull("Other", TOPIC, 5)).await;
    assert_eq!(
        other.response_code(),
        ResponseCode::SUCCESS,
        "others are left alone"
    );
    consumer.ask_well(pull(GROUP, TOPIC, 2)).await;
    consumer.ask_well(commit(4)).await;
    assert_eq!(
        committed(&mut tool, GROUP).await,
        Some(4),
        "commits count again"
    );

    // To the end, as tools skip what has accumulated; and a group that was never here.
    tool.ask_well(reset(None, -1)).await;
    assert_eq!(committed(&mut tool, GROUP).await, Some(6));
    tool.ask_well(reset(None, 1)).await;
    assert_eq!(
        committed(&mut tool, GROUP).await,
        Some(0),
        "all are newer than 1970"
    );
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_pull_hears_of_a_reset_at_its_node() {
    let cluster = Cluster::start_led_by_the_first().await;
    let mut tool = Member::connect(cluster.group_address(2), Language::Java, |_| None).await;
    let mut consumer = Member::connect(cluster.group_address(2), Language::Java, java).await;
    fill(&mut tool, 3).await;
    consumer.ask_well(heartbeat("c1")).await;
    consumer.ask_well(commit(3)).await;
    let mut parked = pull(GROUP, TOPIC, 3);
    parked.fields.set("sysFlag", "6");
    parked.fields.set("suspendTimeoutMillis", "20000");
    let started = std::time::Instant::now();
    let (pulled, _) = tokio::join!(consumer.ask(parked), async {
        // The pull is most likely parked by now; if it is not, it finds the reset at once.
        tokio::time::sleep(Duration::from_millis(200)).await;
        tool.ask_well(reset(Some(1), 0)).await
    });
    assert_eq!(moved_to(&pulled), 1);
    assert!(started.elapsed() < Duration::from_secs(10));
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_cloned_and_queues_looked_into() {
    let cluster = Cluster::start_led_by_the_first().await;
    let mut tool = Member::connect(cluster.group_address(3), Language::Java, |_| None).await;
    fill(&mut tool, 4).await;
    let config = GroupConfig {
        group_name: GROUP.into(),
        ..GroupConfig::default()
    };
    let code = RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
    tool.ask_well(request(code, |_| {}).with_body(config.encode()))
        .await;
    tool.ask_well(commit(3)).await;
    let header = CloneOffsetsRequest {
        src_group: GROUP,
        dest_group: "Audit",
        topic: Some(TOPIC),
        offline: true,
    };
    let code = RequestCode::CLONE_GROUP_OFFSET;
    tool.ask_well(request(code, |fields| header.write(fields)))
        .await;
    assert_eq!(committed(&mut tool, "Audit").await, Some(3));
    let nothing = CloneOffsetsRequest {
        src_group: "Nobody",
        ..header
    };
    let refused = tool
        .ask(request(code, |fields| nothing.write(fields)))
        .await;
    assert_eq!(refused.response_code(), ResponseCode::SYSTEM_ERROR);

    let header = QueryConsumeQueueRequest {
        topic: TOPIC,
        queue_id: 0,
        index: 1,
        count: 2,
        consumer_group: None,
    };
    let code = RequestCode::QUERY_CONSUME_QUEUE;
    let answer = tool
        .ask_well(request(code, |fields| header.write(fields)))
        .await;
    let rows = ConsumeQueueRows::decode(&answer.body).unwrap();
    assert_eq!((rows.min_queue_index, rows.max_queue_index), (0, 4));
    assert_eq!(rows.queue_data.len(), 2);
    assert!(rows.queue_data[0].physic_offset < rows.queue_data[1].physic_offset);

    let header = GroupTopicRequest {
        group: GROUP,
        topic: TOPIC,
    };
    let code = RequestCode::QUERY_CONSUME_TIME_SPAN;
    let answer = tool
        .ask_well(request(code, |fields| header.write(fields)))
        .await;
    let spans = ConsumeTimeSpans::decode(&answer.body)
        .unwrap()
        .consume_time_span_set;
    assert!(spans[0].consume_time_stamp >= spans[0].min_time_stamp);
    assert!(spans[0].consume_time_stamp <= spans[0].max_time_stamp);
    assert!(spans[0].min_time_stamp > 1_700_000_000_000);

    let order = |is_order| {
        let mut asked = request(RequestCode::GET_BROKER_CONSUME_STATS, |_| {});
        asked.fields.set("isOrder", is_order);
        asked
    };
    let all = tool.ask_well(order("false")).await;
    let text = String::from_utf8(all.body.to_vec()).unwrap();
    assert!(text.contains("\"Billing\":[{"), "{text}");
    assert!(text.contains("\"totalDiff\":1,"), "{text}");
    let ordered = tool.ask_well(order("true")).await;
    let text = String::from_utf8(ordered.body.to_vec()).unwrap();
    assert!(text.contains("\"consumeStatsList\":[]"), "{text}");
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_in_and_out_is_counted_once_over_all_nodes() {
    let cluster = Cluster::start_led_by_the_first().await;
    // Sent through a follower, consumed at a follower, asked of a third node.
    let mut sender = Member::connect(cluster.group_address(2), Language::Java, java).await;
    let mut tool = Member::connect(cluster.group_address(3), Language::Java, |_| None).await;
    fill(&mut sender, 5).await;
    sender.ask_well(heartbeat("p1")).await;
    sender.ask_well(commit(0)).await;
    known(&mut tool, "p1").await;
    let count = |name, key| {
        let header = CounterRequest {
            stats_name: name,
            stats_key: key,
        };
        let code = RequestCode::VIEW_BROKER_STATS_DATA;
        request(code, |fields| header.write(fields))
    };
    let key = format!("{TOPIC}@{GROUP}");
    let nothing = tool.ask(count("GROUP_GET_NUMS", &key)).await;
    assert_eq!(
        nothing.response_code(),
        ResponseCode::SYSTEM_ERROR,
        "nothing was pulled"
    );
    sender.ask_well(pull(GROUP, TOPIC, 0)).await;
    for (name, key, sum) in [
        ("TOPIC_PUT_NUMS", TOPIC, 5),
        ("GROUP_GET_NUMS", key.as_str(), 5),
        ("BROKER_PUT_NUMS", "gantry", 5),
        ("BROKER_GET_NUMS", "gantry", 5),
    ] {
        let answer = tool.ask_well(count(name, key)).await;
        let stats = CounterStats::decode(&answer.body).unwrap();
        for window in [stats.stats_minute, stats.stats_hour, stats.stats_day] {
            assert_eq!(window.sum, sum, "{name}");
            assert!(window.tps > 0.0, "{name}");
        }
    }
    let size = tool.ask_well(count("TOPIC_PUT_SIZE", TOPIC)).await;
    let size = CounterStats::decode(&size.body).unwrap().stats_day;
    assert!(size.sum >= 10 && size.avgpt > 1.0, "{size:?}");
    for (name, key) in [("TOPIC_PUT_NUMS", "Unknown"), ("SOMETHING", TOPIC)] {
        let refused = tool.ask(count(name, key)).await;
        assert_eq!(refused.response_code(), ResponseCode::SYSTEM_ERROR);
    }

    let asked = request(RequestCode::GET_TOPIC_STATS_INFO, |fields| {
        fields.set("topic", TOPIC);
    });
    let stats = TopicStats::decode(&tool.ask_well(asked).await.body).unwrap();
    assert!(stats.topic_put_tps > 0.0);
    let asked = request(RequestCode::GET_CONSUME_STATS, |fields| {
        fields.set("consumerGroup", GROUP);
    });
    let stats = ConsumeStats::decode(&tool.ask_well(asked).await.body).unwrap();
    assert!(stats.consume_tps > 0.0);

    let mut leader = Member::connect(cluster.group_address(1), Language::Java, java).await;
    let asked = request(RequestCode::GET_BROKER_RUNTIME_INFO, |_| {});
    let table = KvTable::decode(&leader.ask_well(asked).await.body)
        .unwrap()
        .table;
    assert_eq!(table["msgPutTotalTodayNow"], "5");
    assert_eq!(table["putTps"].split(' ').count(), 3);
    let rate: f64 = table["putTps"].split(' ').next().unwrap().parse().unwrap();
    assert!(rate > 0.0, "{table:?}");
    assert!(table["putLatency99"].parse::<f64>().unwrap() > 0.0);
    // What RocketMQ 4 and its dashboard read.
    assert_eq!(table["getTransferedTps"], table["getTransferredTps"]);
    let earliest: u64 = table["earliestMessageTimeStamp"].parse().unwrap();
    assert!(earliest > 1_700_000_000_000);
    let asked = request(RequestCode::GET_BROKER_CONFIG, |_| {});
    let settings = leader.ask_well(asked).await.body;
    let settings = std::str::from_utf8(&settings).unwrap();
    let levels = "messageDelayLevel=1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";
    assert!(settings.lines().any(|line| line == levels), "{settings}");

    let asked = request(RequestCode::GET_ALL_PRODUCER_INFO, |_| {});
    let all = AllProducers::decode(&tool.ask_well(asked).await.body).unwrap();
    assert_eq!(all.data["Sellers"][0].client_id, "p1");
    assert!(all.data["Sellers"][0].last_update_timestamp > 1_700_000_000_000);
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_finds_the_producer_that_asked() {
    let cluster = Cluster::start_led_by_the_first().await;
    let mut producer = Member::connect(cluster.group_address(2), Language::Java, java).await;
    let mut consumer = Member::connect(cluster.group_address(3), Language::Java, java).await;
    fill(&mut consumer, 1).await;
    producer.ask_well(heartbeat("p1")).await;
    known(&mut consumer, "p1").await;
    let properties = "REPLY_TO_CLIENT\u{1}p1\u{2}CORRELATION_ID\u{1}7\u{2}MSG_TYPE\u{1}reply\u{2}";
    for code in [
        RequestCode::SEND_REPLY_MESSAGE_V2,
        RequestCode::SEND_REPLY_MESSAGE,
    ] {
        let reply = send(code, "gantry_REPLY_TOPIC", "pong", properties);
        let answer = consumer.ask_well(reply).await;
        let stored = SendResponse::parse(&answer.fields).unwrap();
        assert_eq!(stored.msg_id.len(), 32);
        let pushed = producer
            .asked_for(RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT)
            .await;
        assert_eq!(pushed.body, "pong");
        let header = PushReplyRequest::parse(&pushed.fields).unwrap();
        assert_eq!(header.producer_group, "Sellers");
        let text = header.properties.unwrap();
        assert!(text.contains("CORRELATION_ID\u{1}7\u{2}"), "{text:?}");
        assert!(text.contains("PUSH_REPLY_TIME\u{1}"), "{text:?}");
    }
    // The stored copies are ordinary messages; a follower may be a moment behind.
    let mut stored = 0;
    for _ in 0..200 {
        let pulled = consumer.ask(pull("Audit", "gantry_REPLY_TOPIC", 0)).await;
        stored = Message::decode_all(pulled.body).unwrap().len();
        if stored == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(stored, 2);

    let nobody = "REPLY_TO_CLIENT\u{1}nobody\u{2}";
    for properties in [nobody, ""] {
        let code = RequestCode::SEND_REPLY_MESSAGE_V2;
        let reply = send(code, "gantry_REPLY_TOPIC", "pong", properties);
        let refused = consumer.ask(reply).await;
        assert_eq!(refused.response_code(), ResponseCode::SYSTEM_ERROR);
        assert!(refused.remark.is_some());
    }
    cluster.stop();
}

async fn route_perm(client: &mut Member) -> i32 {
    let asked = request(RequestCode::GET_ROUTEINFO_BY_TOPIC, |fields| {
        fields.set("topic", TOPIC);
    });
    let route = TopicRoute::decode(&client.ask_well(asked).await.body).unwrap();
    route.queue_datas[0].perm
}

async fn until_perm(client: &mut Member, wanted: i32) {
    for _ in 0..200 {
        if route_perm(client).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the route does not come to show {wanted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_of_brokers_and_groups_are_replicated() {
    let cluster = Cluster::start_led_by_the_first().await;
    let mut tool = Member::connect(cluster.name_server(3), Language::Java, |_| None).await;
    let mut other = Member::connect(cluster.name_server(2), Language::Java, |_| None).await;
    fill(&mut tool, 1).await;
    until_perm(&mut other, 6).await;
    let named = |code, name: &str| {
        let header = BrokerWritePermRequest { broker_name: name };
        request(code, |fields| header.write(fields))
    };
    let wiped = tool
        .ask_well(named(RequestCode::WIPE_WRITE_PERM_OF_BROKER, "broker-a"))
        .await;
    let count: i32 = wiped.fields.get("wipeTopicCount").unwrap().parse().unwrap();
    assert!(count > 1);
    until_perm(&mut other, 4).await;
    fill(&mut tool, 1).await;
    tool.ask_well(named(RequestCode::ADD_WRITE_PERM_OF_BROKER, "broker-a"))
        .await;
    until_perm(&mut other, 6).await;
    let none = tool
        .ask_well(named(RequestCode::WIPE_WRITE_PERM_OF_BROKER, "nobody"))
        .await;
    assert_eq!(none.fields.get("wipeTopicCount"), Some("0"));

    let set =
        |text: &'static str| request(RequestCode::UPDATE_BROKER_CONFIG, |_| {}).with_body(text);
    tool.ask_well(set("brokerPermission=2\n")).await;
    until_perm(&mut other, 2).await;
    let refused = tool.ask(pull(GROUP, TOPIC, 0)).await;
    assert_eq!(refused.response_code(), ResponseCode::NO_PERMISSION);
    for wrong in [
        "storePathRootDir=/",
        "brokerPermission=9",
        "brokerPermission=6\nx=1",
    ] {
        let refused = tool.ask(set(wrong)).await;
        assert_ne!(refused.response_code(), ResponseCode::SUCCESS, "{wrong}");
    }
    assert_eq!(
        route_perm(&mut tool).await,
        2,
        "nothing of a wrong request is done"
    );
    tool.ask_well(set("brokerPermission=6")).await;
    tool.ask_well(pull(GROUP, TOPIC, 0)).await;

    let forbid = |readable| {
        let header = ForbiddenRequest {
            group: GROUP,
            topic: TOPIC,
            readable,
        };
        let code = RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN;
        request(code, |fields| header.write(fields))
    };
    tool.ask_well(forbid(Some(false))).await;
    let refused = tool.ask(pull(GROUP, TOPIC, 0)).await;
    assert_eq!(refused.response_code(), ResponseCode::NO_PERMISSION);
    tool.ask_well(pull("Other", TOPIC, 0)).await;
    let told = other.ask_well(forbid(None)).await;
    assert!(!GroupForbidden::decode(&told.body).unwrap().readable);
    tool.ask_well(forbid(Some(true))).await;
    tool.ask_well(pull(GROUP, TOPIC, 0)).await;

    let mut put = request(RequestCode::PUT_KV_CONFIG, |_| {});
    for (name, value) in [
        ("namespace", "gantry.permissions"),
        ("key", "x"),
        ("value", "y"),
    ] {
        put.fields.set(name, value);
    }
    let refused = tool.ask(put).await;
    assert_eq!(refused.response_code(), ResponseCode::NO_PERMISSION);
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_shown_and_what_has_no_meaning_says_so() {
    let cluster = Cluster::start_led_by_the_first().await;
    let mut leader = Member::connect(cluster.group_address(1), Language::Java, |_| None).await;
    let mut follower = Member::connect(cluster.group_address(2), Language::Java, |_| None).await;
    fill(&mut leader, 2).await;
    let asked = || request(RequestCode::GET_BROKER_HA_STATUS, |_| {});
    let mut status = HaStatus::default();
    for _ in 0..200 {
        status = HaStatus::decode(&leader.ask_well(asked()).await.body).unwrap();
        if status.in_sync_slave_nums == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(status.master);
    assert_eq!(
        (status.in_sync_slave_nums, status.ha_connection_info.len()),
        (2, 2)
    );
    assert_eq!(status.ha_connection_info[0].diff, 0);
    let seen = HaStatus::decode(&follower.ask_well(asked()).await.body).unwrap();
    assert!(!seen.master && seen.ha_client_runtime_info.activated);
    let leader_address = cluster.group_address(1).to_string();
    assert_eq!(seen.ha_client_runtime_info.master_addr, leader_address);

    let asked = request(RequestCode::GET_BROKER_EPOCH_CACHE, |_| {});
    let epochs = EpochCache::decode(&leader.ask_well(asked).await.body).unwrap();
    assert_eq!(epochs.broker_id, 0);
    let terms: Vec<i64> = epochs.epoch_list.iter().map(|epoch| epoch.epoch).collect();
    assert!(!terms.is_empty() && terms.is_sorted(), "{epochs:?}");
    let mut ends = epochs.epoch_list.iter().map(|epoch| epoch.end_offset);
    assert_eq!(ends.next_back(), Some(epochs.max_offset));

    let asked = request(RequestCode::GET_BROKER_MEMBER_GROUP, |_| {});
    let text = follower.ask_well(asked).await.body;
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains(&format!("0:\"{leader_address}\"")), "{text}");

    let code = ResponseCode::REQUEST_CODE_NOT_SUPPORTED;
    for (asked, advice) in [
        (1005, "gantry status"),
        (513, "ordinary topic"),
        (3001, "no ACL"),
        (3010, "addresses of the listeners"),
        (200_075, "ordinary topics"),
        (9999, "9999"),
    ] {
        let refused = follower.ask(request(RequestCode(asked), |_| {})).await;
        assert_eq!(refused.response_code(), code);
        let remark = refused.remark.unwrap();
        assert!(remark.contains(advice), "{remark}");
    }
    for done in [306, 316, 329] {
        follower.ask_well(request(RequestCode(done), |_| {})).await;
    }
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_takes_its_own_kind_of_messages_and_grows_in_place() {
    let cluster = Cluster::start_led_by_the_first().await;
    let mut tool = Member::connect(cluster.group_address(3), Language::Java, |_| None).await;
    tool.ask_well(create_topic(TOPIC, 1, "+message.type=NORMAL"))
        .await;
    fill(&mut tool, 3).await;
    let fifo = "__SHARDINGKEY\u{1}k\u{2}";
    let refused = tool
        .ask(send(RequestCode::SEND_MESSAGE_V2, TOPIC, "x", fifo))
        .await;
    assert_eq!(refused.response_code(), ResponseCode::MESSAGE_ILLEGAL);
    let remark = refused.remark.unwrap();
    assert!(
        remark.ends_with("the expected type is NORMAL, but actual type is FIFO"),
        "{remark}"
    );
    for wrong in ["+message.type=ODD", "+reserve.time=5", "odd"] {
        let refused = tool.ask(create_topic(TOPIC, 1, wrong)).await;
        assert_eq!(
            refused.response_code(),
            ResponseCode::SYSTEM_ERROR,
            "{wrong}"
        );
    }

    let bodies = |pulled: RemotingCommand| -> Vec<String> {
        let messages = Message::decode_all(pulled.body).unwrap();
        let text = |message: &Message| String::from_utf8(message.body.to_vec()).unwrap();
        messages.iter().map(text).collect()
    };
    let before = bodies(tool.ask_well(pull(GROUP, TOPIC, 0)).await);
    tool.ask_well(create_topic(TOPIC, 4, "-message.type")).await;
    let mut sent = send(RequestCode::SEND_MESSAGE_V2, TOPIC, "new", fifo);
    sent.fields.set("e", "3");
    tool.ask_well(sent).await;
    assert_eq!(bodies(tool.ask_well(pull(GROUP, TOPIC, 0)).await), before);
    let mut grown = pull(GROUP, TOPIC, 0);
    grown.fields.set("queueId", "3");
    assert_eq!(bodies(tool.ask_well(grown).await), ["new"]);
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_are_found_by_the_keys_that_they_are_stored_with() {
    let cluster = Cluster::start_led_by_the_first().await;
    let mut client = Member::connect(cluster.group_address(2), Language::Java, java).await;
    let mut tool = Member::connect(cluster.group_address(3), Language::Java, |_| None).await;
    let code = RequestCode::SEND_MESSAGE_V2;
    let keys = "KEYS\u{1}7F0000010001 order-5\u{2}";
    client
        .ask_well(send(code, "RMQ_SYS_TRACE_TOPIC", "Pub\u{1}...", keys))
        .await;
    for key in ["7F0000010001", "order-5"] {
        let header = QueryMessageRequest {
            topic: "RMQ_SYS_TRACE_TOPIC",
            key,
            max_num: 32,
            begin_timestamp: 0,
            end_timestamp: i64::MAX,
        };
        let code = RequestCode::QUERY_MESSAGE;
        let found = tool
            .ask_well(request(code, |fields| header.write(fields)))
            .await;
        let messages = Message::decode_all(found.body).unwrap();
        assert_eq!(messages[0].body, "Pub\u{1}...");
    }
    cluster.stop();
}
