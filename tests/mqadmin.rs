//! `gantry mqadmin` as scripts use it, against a cluster of three nodes: columns, texts and exit codes.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use gantry_protocol::bodies::{RequestModeName, RequestModeTable, SetRequestMode};
use gantry_protocol::{RemotingCommand, RequestCode};
use support::cluster::Cluster;

/// Runs a command; its exit code, standard output and standard error.
async fn run(words: Vec<String>) -> (i32, String, String) {
    let running = tokio::task::spawn_blocking(move || {
        let gantry = env!("CARGO_BIN_EXE_gantry");
        Command::new(gantry)
            .arg("mqadmin")
            .args(words)
            .output()
            .unwrap()
    });
    let output = running.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A cluster, and its name servers.
struct Tool {
    cluster: Cluster,
    servers: String,
}

impl Tool {
    async fn start() -> Tool {
        let cluster = Cluster::start_led_by_the_first().await;
        let servers = [3, 1].map(|node| cluster.name_server(node).to_string());
        let servers = servers.join(";");
        Tool { cluster, servers }
    }

    async fn run(&self, words: &str) -> (i32, String, String) {
        let words = words.split(' ').map(String::from);
        let servers = ["-n".to_string(), self.servers.clone()];
        run(words.chain(servers).collect()).await
    }

    /// A command that must succeed; what it prints.
    async fn ok(&self, words: &str) -> String {
        let (code, out, errors) = self.run(words).await;
        assert_eq!(code, 0, "{words}: {out}{errors}");
        out
    }

    /// How a group asks for the messages of a topic, as a broker tells.
    async fn mode_of(&self, topic: &str, group: &str) -> SetRequestMode {
        let request = RemotingCommand::request(RequestCode::GET_ALL_MESSAGE_REQUEST_MODE, 0);
        let answer = self.cluster.connect(2).await.ask(request).await;
        let table = RequestModeTable::decode(&answer.body).unwrap();
        table.message_request_mode_map[topic][group].clone()
    }

    /// The words of each line that it prints.
    async fn rows(&self, words: &str) -> Vec<Vec<String>> {
        let out = self.ok(words).await;
        let row = |line: &str| line.split_whitespace().map(String::from).collect();
        out.lines().map(row).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_messages_and_offsets() {
    let tool = Tool::start().await;
    let made = tool.ok("updateTopic -c gantry -t Orders -r 2 -w 2").await;
    assert!(made.starts_with("create topic to 127.0.0.1:"), "{made}");
    let settings = "TopicConfig [topicName=Orders, readQueueNums=2, writeQueueNums=2, perm=RW-";
    assert!(made.contains(settings), "{made}");
    // A route is current; the list is what the node knows.
    assert_eq!(tool.ok("topicClusterList -t Orders").await, "gantry\n");
    let topics = tool.ok("topicList").await;
    assert!(topics.lines().any(|line| line == "Orders"), "{topics}");
    let route = tool.rows("topicRoute -t Orders -l").await;
    assert_eq!(route[0][0], "#ClusterName");
    assert_eq!(route[1][..2], ["gantry", "broker-a"]);
    assert_eq!(route[1][route[1].len() - 3..], ["2", "2", "6"]);
    let json = tool.ok("topicRoute -t Orders").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["queueDatas"][0]["writeQueueNums"], 2);

    let mut ids = Vec::new();
    for nth in 0..3 {
        let sent = tool
            .rows(&format!(
                "sendMessage -t Orders -p m{nth} -k key{nth} -c A -b broker-a -i 1"
            ))
            .await;
        assert_eq!(sent[1][..3], ["broker-a", "1", "SEND_OK"]);
        ids.push(sent[1][3].clone());
    }
    let sent = tool.rows("sendMessage -t Orders -p chosen -k other").await;
    let status = tool.rows("topicStatus -t Orders").await;
    assert_eq!(status[0][..2], ["#Broker", "Name"]);
    assert_eq!(status[2][..3], ["broker-a", "1", "0"]);
    let held: i64 = [&status[1], &status[2]]
        .iter()
        .map(|row| row[3].parse::<i64>().unwrap())
        .sum();
    assert_eq!(held, 4);

    let shown = tool
        .ok(&format!("queryMsgById -i {} -t Orders", ids[1]))
        .await;
    assert!(shown.contains("Queue Offset:        1\n"), "{shown}");
    assert!(shown.contains("Message Body:        m1\n"), "{shown}");
    let unique = &sent[1][3];
    let shown = tool
        .ok(&format!("queryMsgByUniqueKey -t Orders -i {unique}"))
        .await;
    assert!(shown.contains("Keys:                [other]\n"), "{shown}");
    let found = tool.rows("queryMsgByKey -t Orders -k key2").await;
    assert_eq!(found[1][1..], ["1", "2"]);
    let shown = tool
        .ok("queryMsgByOffset -t Orders -b broker-a -i 1 -o 0")
        .await;
    assert!(shown.contains("Tags:                [A]\n"), "{shown}");
    let printed = tool.ok("printMsg -t Orders -s A").await;
    assert_eq!(printed.matches("MSGID: ").count(), 3, "{printed}");
    assert!(printed.contains("BODY: m2\n"));

    let group = tool.ok("updateSubGroup -c gantry -g Billing -r 3").await;
    assert!(group.contains("retryMaxTimes=3"), "{group}");
    let config = tool.ok("getConsumerConfig -g Billing").await;
    assert!(config.contains(":broker-a="), "{config}");
    tool.ok("resetOffsetByTime -g Billing -t Orders -s 1970-01-01#00:00:00:001")
        .await;
    let progress = tool.ok("consumerProgress -g Billing").await;
    assert!(progress.contains("Consume Diff Total: 4\n"), "{progress}");
    let mode = tool
        .ok("setConsumeMode -c gantry -t Orders -g Billing -m POP -q 1")
        .await;
    assert!(mode.starts_with("set consume mode to 127.0.0.1:"), "{mode}");
    let decided = "topic[Orders] group[Billing] consume mode[POP] popShareQueueNum[1]\n";
    assert!(mode.ends_with(decided), "{mode}");
    let decided = tool.mode_of("Orders", "Billing").await;
    assert_eq!(decided.mode, RequestModeName::Pop);
    assert_eq!(decided.pop_share_queue_num, 1);
    tool.ok("setConsumeMode -c gantry -t Orders -g Billing -m PULL")
        .await;
    let decided = tool.mode_of("Orders", "Billing").await;
    assert_eq!(decided.mode, RequestModeName::Pull);
    let refused = tool
        .run("setConsumeMode -c gantry -t %RETRY%Billing -g Billing -m POP")
        .await;
    assert!(
        refused.0 == 1 && refused.2.contains("always pulled"),
        "{refused:?}"
    );
    let moved = tool
        .rows("skipAccumulatedMessage -g Billing -t Orders")
        .await;
    assert_eq!(moved[0], ["#brokerName", "#queueId", "#offset"]);
    let one = tool
        .ok("resetOffsetByTime -g Billing -t Orders -s 0 -b broker-a -q 1 -o 1")
        .await;
    assert!(one.ends_with("reset consumer offset to 1\n"), "{one}");
    tool.ok("cloneGroupOffset -s Billing -d Audit -t Orders")
        .await;
    let progress = tool.rows("consumerProgress -g Audit").await;
    assert_eq!(progress[2][..3], ["Orders", "broker-a", "1"]);
    assert_eq!(progress[2][4], "1");
    let stats = tool.ok("statsAll -t Orders").await;
    assert!(stats.lines().any(|line| line.contains("Audit")), "{stats}");

    let changed = tool.ok("updateTopicPerm -c gantry -t Orders -p 4").await;
    assert!(
        changed.contains("update topic perm from 6 to 4 in"),
        "{changed}"
    );
    let (code, _, errors) = tool.run("sendMessage -t Orders -p x -b broker-a").await;
    assert_eq!(code, 1);
    assert!(errors.contains("may not be written"), "{errors}");
    tool.ok("deleteSubGroup -c gantry -g Billing -r true").await;
    tool.ok("deleteTopic -c gantry -t Orders").await;
    let (code, _, errors) = tool.run("topicStatus -t Orders").await;
    assert!(code == 1 && errors.contains("does not exist"), "{errors}");
    tool.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_and_name_servers() {
    let tool = Tool::start().await;
    let list = tool.rows("clusterList").await;
    assert_eq!(list[0][..4], ["#Cluster", "Name", "#Broker", "Name"]);
    assert_eq!(list.len(), 4, "a line for each node: {list:?}");
    assert_eq!(list[1][..3], ["gantry", "broker-a", "0"]);
    assert_eq!(list[1][4], "V5_3_3");
    assert_eq!(list[1].last().unwrap(), "true");
    assert_eq!(tool.rows("clusterList -m").await.len(), 4);
    let broker = tool.cluster.group_address(1);
    let status = tool.ok(&format!("brokerStatus -b {broker}")).await;
    assert!(
        status.lines().any(|line| line.starts_with("putTps")),
        "{status}"
    );
    let config = tool.ok(&format!("getBrokerConfig -b {broker}")).await;
    assert!(config.contains("brokerName"), "{config}");

    let wiped = tool.ok("wipeWritePerm -b broker-a").await;
    assert_eq!(wiped.lines().count(), 2, "a line for each name server");
    assert!(wiped.contains("OK, "), "{wiped}");
    tool.ok("addWritePerm -b broker-a").await;
    tool.ok("updateBrokerConfig -c gantry -k brokerPermission -v 6")
        .await;
    let (code, _, errors) = tool
        .run("updateBrokerConfig -c gantry -k storePathRootDir -v x")
        .await;
    assert!(
        code == 1 && errors.contains("configuration file"),
        "{errors}"
    );
    tool.ok("updateKvConfig -s N -k k -v v").await;
    tool.ok("deleteKvConfig -s N -k k").await;
    let (code, _, errors) = tool.run("consumerConnection -g Nobody").await;
    assert!(
        code == 1 && errors.contains("no consumer of group Nobody"),
        "{errors}"
    );
    tool.cluster.stop();
}

#[tokio::test]
async fn wrong_words_and_what_has_no_meaning() {
    let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<String>>();
    let (code, out, _) = run(Vec::new()).await;
    assert!(code == 0 && out.contains("   consumerProgress "), "{out}");
    let (code, out, _) = run(words("help topicStatus")).await;
    assert!(
        code == 0 && out.contains(" -t,--topic <arg>   required"),
        "{out}"
    );
    for (text, wanted, reason) in [
        ("topicStatus", 2, "-t (--topic) is required"),
        ("topicStatus -x", 2, "there is no option -x"),
        ("nothing", 2, "is no command of mqadmin"),
        ("updateTopicList", 2, "no such tool of its own"),
        ("electMaster", 1, "stop the leader"),
        (
            "createUser -u a -p b",
            1,
            "not in this version: no users and no ACL",
        ),
        ("listAcl", 1, "addresses of the listeners"),
        ("getLiteTopicInfo", 1, "use ordinary topics"),
        ("exportPopRecord", 1, "one store of its state"),
        ("setConsumeMode -t T -g G", 2, "-m (--mode) is required"),
        (
            "setConsumeMode -t T -g G -m PUSH",
            2,
            "PULL or POP is needed",
        ),
        ("updateTopic -t T", 2, "-b or -c is needed"),
        ("topicList -n 127.0.0.1:1", 1, "cannot be reached"),
    ] {
        let (code, out, errors) = run(words(text)).await;
        assert_eq!(code, wanted, "{text}: {errors}");
        assert!(
            errors.contains(reason) && out.is_empty(),
            "{text}: {errors}"
        );
    }
}
