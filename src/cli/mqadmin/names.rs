//! Every command of RocketMQ's mqadmin, and what becomes of it here; `docs/mqadmin.md` is made of this.

use std::fmt::Write;

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// RocketMQ's tool works against this broker.
    Works,
    /// Not in this version: what to do meanwhile.
    Missing(&'static str),
    /// It has no meaning under Raft: what to do instead.
    Instead(&'static str),
}

use State::{Instead, Missing, Works};

const NO_CONTROLLER: &str = "there is no controller, each group elects its leader by Raft; \
                             `gantry status` shows leader, voters and lag";
const FOLLOWERS: &str = "there is no controller; haStatus shows the followers, `gantry status` leader, \
                         voters and lag";
const NO_ROCKSDB: &str = "there is no RocksDB";
const NO_COLD_CONTROL: &str = "reads of cold data are bounded by the node itself";
const NO_STATIC_TOPICS: &str = "create an ordinary topic: its queues stay with their broker group, whose \
                                leader may move";
const ONE_POP_STORE: &str = "POP has one store of its state, the Raft log; there is nothing to export from \
                             another";
const NO_USERS: &str = "no users and no ACL; let only those in who may send, by the addresses of the \
                        listeners and by the network";
const NO_LITE: &str = "no lite topics; use ordinary topics";
const NO_CONTAINER: &str = "start a node of the configuration, or stop one";

/// Commands by RocketMQ's packages, in its order.
const NAMES: &[(&str, &[(&str, State)])] = &[
    (
        "topic",
        &[
            ("updateTopic", Works),
            ("updateTopicList", Works),
            ("deleteTopic", Works),
            ("updateTopicPerm", Works),
            ("topicRoute", Works),
            ("topicStatus", Works),
            ("topicClusterList", Works),
            ("topicList", Works),
            ("updateOrderConf", Works),
            ("allocateMQ", Works),
            ("updateStaticTopic", Instead(NO_STATIC_TOPICS)),
            ("remappingStaticTopic", Instead(NO_STATIC_TOPICS)),
        ],
    ),
    (
        "consumer",
        &[
            ("updateSubGroup", Works),
            ("updateSubGroupList", Works),
            ("setConsumeMode", Works),
            ("deleteSubGroup", Works),
            ("consumerProgress", Works),
            ("consumerStatus", Works),
            ("startMonitoring", Works),
            ("getConsumerConfig", Works),
        ],
    ),
    (
        "broker",
        &[
            ("updateBrokerConfig", Works),
            (
                "resetMasterFlushOffset",
                Instead(
                    "a replica's position is its log; remove the group's directory and the node joins anew",
                ),
            ),
            ("brokerStatus", Works),
            ("sendMsgStatus", Works),
            ("brokerConsumeStats", Works),
            ("cleanExpiredCQ", Works),
            ("deleteExpiredCommitLog", Works),
            ("cleanUnusedTopic", Works),
            ("getBrokerConfig", Works),
            ("getBrokerEpoch", Works),
            ("getColdDataFlowCtrInfo", Instead(NO_COLD_CONTROL)),
            ("updateColdDataFlowCtrGroupConfig", Instead(NO_COLD_CONTROL)),
            ("removeColdDataFlowCtrGroupConfig", Instead(NO_COLD_CONTROL)),
            (
                "setCommitLogReadAheadMode",
                Instead("the log is read ahead where it is read in order"),
            ),
        ],
    ),
    (
        "container",
        &[
            ("addBroker", Instead(NO_CONTAINER)),
            ("removeBroker", Instead(NO_CONTAINER)),
        ],
    ),
    (
        "message",
        &[
            ("queryMsgById", Works),
            ("queryMsgByKey", Works),
            ("queryMsgByUniqueKey", Works),
            ("queryMsgByOffset", Works),
            ("queryMsgTraceById", Works),
            ("printMsg", Works),
            ("printMsgByQueue", Works),
            ("checkMsgSendRT", Works),
            ("sendMessage", Works),
            ("consumeMessage", Works),
            (
                "dumpCompactionLog",
                Instead("there are no compaction topics"),
            ),
        ],
    ),
    (
        "connection",
        &[("producerConnection", Works), ("consumerConnection", Works)],
    ),
    (
        "offset",
        &[
            ("cloneGroupOffset", Works),
            ("resetOffsetByTime", Works),
            ("skipAccumulatedMessage", Works),
        ],
    ),
    ("producer", &[("producer", Works)]),
    ("cluster", &[("clusterList", Works), ("clusterRT", Works)]),
    (
        "namesrv",
        &[
            ("updateKvConfig", Works),
            ("deleteKvConfig", Works),
            ("wipeWritePerm", Works),
            ("addWritePerm", Works),
            ("getNamesrvConfig", Works),
            (
                "updateNamesrvConfig",
                Instead("the settings of a node are in its configuration file"),
            ),
        ],
    ),
    ("stats", &[("statsAll", Works)]),
    (
        "queue",
        &[
            ("queryCq", Works),
            ("checkRocksdbCqWriteProgress", Instead(NO_ROCKSDB)),
        ],
    ),
    (
        "export",
        &[
            ("exportMetadata", Works),
            ("exportConfigs", Works),
            ("exportMetrics", Works),
            ("exportMetadataInRocksDB", Instead(NO_ROCKSDB)),
            ("exportPopRecord", Instead(ONE_POP_STORE)),
        ],
    ),
    (
        "ha",
        &[("haStatus", Works), ("getSyncStateSet", Instead(FOLLOWERS))],
    ),
    (
        "controller",
        &[
            ("getControllerMetaData", Instead(NO_CONTROLLER)),
            ("getControllerConfig", Instead(NO_CONTROLLER)),
            ("updateControllerConfig", Instead(NO_CONTROLLER)),
            (
                "electMaster",
                Instead("stop the leader (SIGTERM): it hands leadership over first"),
            ),
            (
                "cleanBrokerMetadata",
                Instead("remove the lost node's directory, and it joins anew"),
            ),
        ],
    ),
    (
        "auth",
        &[
            ("createUser", Missing(NO_USERS)),
            ("updateUser", Missing(NO_USERS)),
            ("deleteUser", Missing(NO_USERS)),
            ("getUser", Missing(NO_USERS)),
            ("listUser", Missing(NO_USERS)),
            ("copyUser", Missing(NO_USERS)),
            ("createAcl", Missing(NO_USERS)),
            ("updateAcl", Missing(NO_USERS)),
            ("deleteAcl", Missing(NO_USERS)),
            ("getAcl", Missing(NO_USERS)),
            ("listAcl", Missing(NO_USERS)),
            ("copyAcl", Missing(NO_USERS)),
        ],
    ),
    ("metadata", &[("rocksDBConfigToJson", Instead(NO_ROCKSDB))]),
    (
        "5.4 and 5.5",
        &[
            ("switchTimerEngine", Instead("there is one timer engine")),
            ("getBrokerLiteInfo", Missing(NO_LITE)),
            ("getParentTopicInfo", Missing(NO_LITE)),
            ("getLiteTopicInfo", Missing(NO_LITE)),
            ("getLiteClientInfo", Missing(NO_LITE)),
            ("getLiteGroupInfo", Missing(NO_LITE)),
            ("triggerLiteDispatch", Missing(NO_LITE)),
        ],
    ),
];

/// What becomes of a command; none if RocketMQ has no such command.
pub(super) fn state_of(name: &str) -> Option<State> {
    let mut names = NAMES.iter().flat_map(|(_, names)| *names);
    names
        .find(|(known, _)| *known == name)
        .map(|(_, state)| *state)
}

/// The table as `docs/mqadmin.md` has it.
pub(super) fn document() -> String {
    let mut text = String::from(INTRODUCTION);
    let mut add = |line: String| {
        writeln!(text, "{line}").expect("writing to a string cannot fail");
    };
    for (package, names) in NAMES {
        add(format!("\n## {package}\n"));
        add("| Command | RocketMQ's `mqadmin` | `gantry mqadmin` |".to_string());
        add("|---|---|---|".to_string());
        for (name, state) in *names {
            let theirs = match state {
                Works => "works".to_string(),
                Missing(advice) => format!("not in this version: {advice}"),
                Instead(advice) => format!("not applicable under Raft: {advice}"),
            };
            let is_ours = super::TOOLS.iter().any(|tool| tool.name == *name);
            let ours = if is_ours { "yes" } else { "" };
            add(format!("| {name} | {theirs} | {ours} |"));
        }
    }
    text
}

const INTRODUCTION: &str = "\
# mqadmin

RocketMQ's own `mqadmin` (5.3) and its dashboard work against a Gantry cluster: give them any node as the
name server. Any node answers any request; what needs the leader is passed on. `gantry mqadmin NAME ...` has
the commands of every day without a JVM, with RocketMQ's names, flags and columns. Its times are UTC, its exit
code is 0, or 1 when the work could not be done, or 2 for wrong arguments.

\"Works\" means that the broker answers every request that the command makes; RocketMQ's tool itself is not
run in the tests. Requests without a meaning here, and those that this version does not know, are
answered with code 3 and what to do instead.
`updateBrokerConfig` may change one setting, `brokerPermission`, which is that of the whole broker group and
survives restarts.

This page is made of `src/cli/mqadmin/names.rs`; `gantry mqadmin document` prints it.
";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_command_stands_twice() {
        let names: Vec<&str> = NAMES
            .iter()
            .flat_map(|(_, names)| *names)
            .map(|(name, _)| *name)
            .collect();
        let once: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(once.len(), names.len());
        assert_eq!(names.len(), 96);
    }

    #[test]
    fn the_document_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/mqadmin.md");
        let written = std::fs::read_to_string(path).unwrap();
        assert!(
            written == document(),
            "run: gantry mqadmin document > docs/mqadmin.md"
        );
    }
}
