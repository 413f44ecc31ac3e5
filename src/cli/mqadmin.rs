//! `gantry mqadmin`: RocketMQ's own command names, flags and columns, for scripts and for habits. Times are
//! shown in UTC. The exit code is 0, or 1 when the work could not be done, or 2 for wrong arguments.

mod brokers;
mod call;
mod consumers;
mod format;
mod messages;
mod names;
mod offsets;
mod topics;

use std::pin::Pin;

use clap::Args;

use super::failure::{Failure, Outcome};
use super::output;
use call::{Call, Flag, optional, required, switch};

#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(super) struct MqadminArgs {
    /// RocketMQ's name of the command, and its options; without any, the commands are listed.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND OPTIONS"
    )]
    words: Vec<String>,
}

type Run = fn(Call) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One command.
struct Tool {
    name: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    run: Run,
}

const TOPIC: Flag = required('t', "topic");
const CLUSTER: Flag = optional('c', "clusterName");
const BROKER: Flag = optional('b', "brokerAddr");

/// A line of the table below.
macro_rules! tool {
    ($name:literal, $about:literal, [$($flag:expr),*], $run:path) => {
        Tool {
            name: $name,
            about: $about,
            flags: &[$($flag),*],
            run: |call| Box::pin($run(call)),
        }
    };
}

const TOOLS: &[Tool] = &[
    tool!(
        "topicList",
        "List the topics.",
        [switch('c', "clusterModel")],
        topics::list
    ),
    tool!(
        "topicRoute",
        "Show where a topic is.",
        [TOPIC, switch('l', "list")],
        topics::route
    ),
    tool!(
        "topicStatus",
        "Show the offsets of a topic's queues.",
        [TOPIC, optional('c', "cluster")],
        topics::status
    ),
    tool!(
        "topicClusterList",
        "Show the clusters of a topic.",
        [TOPIC],
        topics::clusters
    ),
    tool!(
        "updateTopic",
        "Create or change a topic.",
        [
            TOPIC,
            BROKER,
            CLUSTER,
            optional('a', "attributes"),
            optional('r', "readQueueNums"),
            optional('w', "writeQueueNums"),
            optional('p', "perm"),
            optional('o', "order"),
            optional('u', "unit"),
            optional('s', "hasUnitSub")
        ],
        topics::update
    ),
    tool!(
        "updateTopicPerm",
        "Change the permissions of a topic.",
        [TOPIC, required('p', "perm"), BROKER, CLUSTER],
        topics::update_perm
    ),
    tool!(
        "deleteTopic",
        "Delete a topic and its messages.",
        [TOPIC, required('c', "clusterName")],
        topics::delete
    ),
    tool!(
        "updateSubGroup",
        "Create or change a consumer group.",
        [
            required('g', "groupName"),
            BROKER,
            CLUSTER,
            optional('s', "consumeEnable"),
            optional('m', "consumeFromMinEnable"),
            optional('d', "consumeBroadcastEnable"),
            optional('o', "consumeMessageOrderly"),
            optional('q', "retryQueueNums"),
            optional('r', "retryMaxTimes"),
            optional('i', "brokerId"),
            optional('w', "whichBrokerWhenConsumeSlowly"),
            optional('a', "notifyConsumerIdsChanged")
        ],
        consumers::update_group
    ),
    tool!(
        "deleteSubGroup",
        "Delete a consumer group, its retry topic and its dead letters.",
        [
            required('g', "groupName"),
            BROKER,
            CLUSTER,
            optional('r', "removeOffset")
        ],
        consumers::delete_group
    ),
    tool!(
        "setConsumeMode",
        "Decide whether a consumer group pulls or pops a topic.",
        [
            TOPIC,
            required('g', "groupName"),
            required('m', "mode"),
            BROKER,
            CLUSTER,
            optional('q', "popShareQueueNum")
        ],
        consumers::set_mode
    ),
    tool!(
        "getConsumerConfig",
        "Show the settings of a consumer group.",
        [required('g', "groupName")],
        consumers::config
    ),
    tool!(
        "consumerProgress",
        "Show how far consumer groups are.",
        [
            optional('g', "groupName"),
            optional('t', "topicName"),
            optional('s', "showClientIP"),
            optional('c', "cluster")
        ],
        consumers::progress
    ),
    tool!(
        "consumerConnection",
        "Show the members of a consumer group.",
        [required('g', "consumerGroup"), BROKER],
        consumers::connection
    ),
    tool!(
        "producerConnection",
        "Show the members of a producer group.",
        [required('g', "producerGroup"), TOPIC],
        consumers::producers
    ),
    tool!(
        "consumerStatus",
        "Show what members of a consumer group are doing.",
        [
            required('g', "consumerGroup"),
            optional('i', "clientId"),
            BROKER,
            switch('s', "jstack")
        ],
        consumers::status
    ),
    tool!(
        "clusterList",
        "List the brokers.",
        [switch('m', "moreStats"), optional('i', "interval"), CLUSTER],
        brokers::list
    ),
    tool!(
        "brokerStatus",
        "Show what a broker says about itself.",
        [BROKER, CLUSTER],
        brokers::status
    ),
    tool!(
        "getBrokerConfig",
        "Show the settings of a broker.",
        [BROKER, CLUSTER],
        brokers::config
    ),
    tool!(
        "updateBrokerConfig",
        "Change a setting of a broker that may be changed.",
        [
            BROKER,
            CLUSTER,
            required('k', "key"),
            required('v', "value")
        ],
        brokers::update_config
    ),
    tool!(
        "statsAll",
        "Show what goes in and out of every topic.",
        [switch('a', "activeTopic"), optional('t', "topic")],
        brokers::stats_all
    ),
    tool!(
        "wipeWritePerm",
        "Take the permission to write out of a broker's routes.",
        [required('b', "brokerName")],
        brokers::wipe_write
    ),
    tool!(
        "addWritePerm",
        "Give it back.",
        [required('b', "brokerName")],
        brokers::add_write
    ),
    tool!(
        "updateKvConfig",
        "Store a value at the name servers.",
        [
            required('s', "namespace"),
            required('k', "key"),
            required('v', "value")
        ],
        brokers::put_value
    ),
    tool!(
        "deleteKvConfig",
        "Delete a value at the name servers.",
        [required('s', "namespace"), required('k', "key")],
        brokers::delete_value
    ),
    tool!(
        "resetOffsetByTime",
        "Move a consumer group to a time or an offset.",
        [
            required('g', "group"),
            TOPIC,
            required('s', "timestamp"),
            optional('f', "force"),
            switch('c', "cplus"),
            optional('b', "broker"),
            optional('q', "queue"),
            optional('o', "offset")
        ],
        offsets::reset
    ),
    tool!(
        "skipAccumulatedMessage",
        "Move a consumer group to the end of a topic.",
        [
            required('g', "group"),
            TOPIC,
            optional('f', "force"),
            optional('c', "cluster")
        ],
        offsets::skip
    ),
    tool!(
        "cloneGroupOffset",
        "Move a consumer group to where another one is.",
        [
            required('s', "srcGroup"),
            required('d', "destGroup"),
            TOPIC,
            optional('o', "offline")
        ],
        offsets::copy
    ),
    tool!(
        "queryMsgById",
        "Show the message at a place of the log.",
        [
            required('i', "msgId"),
            optional('t', "topic"),
            optional('f', "bodyFormat"),
            optional('c', "cluster")
        ],
        messages::by_id
    ),
    tool!(
        "queryMsgByKey",
        "Show the messages with a key.",
        [
            TOPIC,
            required('k', "msgKey"),
            optional('b', "beginTimestamp"),
            optional('e', "endTimestamp"),
            optional('m', "maxNum"),
            optional('c', "cluster")
        ],
        messages::by_key
    ),
    tool!(
        "queryMsgByUniqueKey",
        "Show the message that its producer gave this id.",
        [
            TOPIC,
            required('i', "msgId"),
            switch('a', "showAll"),
            optional('c', "cluster")
        ],
        messages::by_unique_key
    ),
    tool!(
        "queryMsgByOffset",
        "Show the message at an offset of a queue.",
        [
            TOPIC,
            required('b', "brokerName"),
            required('i', "queueId"),
            required('o', "offset"),
            optional('f', "bodyFormat")
        ],
        messages::by_offset
    ),
    tool!(
        "printMsg",
        "Print the messages of a topic.",
        [
            TOPIC,
            optional('c', "charsetName"),
            optional('s', "subExpression"),
            optional('b', "beginTimestamp"),
            optional('e', "endTimestamp"),
            optional('d', "printBody")
        ],
        messages::print
    ),
    tool!(
        "sendMessage",
        "Send a message.",
        [
            TOPIC,
            required('p', "body"),
            optional('k', "key"),
            optional('c', "tags"),
            optional('b', "broker"),
            optional('i', "qid"),
            optional('m', "msgTraceEnable")
        ],
        messages::send
    ),
];

/// Does what the words say.
pub(super) async fn run(args: MqadminArgs) -> Outcome {
    let mut words = args.words.into_iter();
    let name = words.next();
    let rest: Vec<String> = words.collect();
    let name = match name.as_deref() {
        None | Some("-h" | "--help") => return list(),
        Some("document") => return Ok(output::line(names::document().trim_end())?),
        Some("help") => match rest.first() {
            None => return list(),
            Some(name) => return help(find(name)?),
        },
        Some(name) => name.to_string(),
    };
    let tool = find(&name)?;
    if rest.iter().any(|word| word == "-h" || word == "--help") {
        return help(tool);
    }
    let call = Call::parse(tool.flags, rest)
        .map_err(|reason| Failure::usage(format!("{name}: {reason}")))?;
    (tool.run)(call).await
}

fn find(name: &str) -> Result<&'static Tool, Failure> {
    if let Some(tool) = TOOLS.iter().find(|tool| tool.name == name) {
        return Ok(tool);
    }
    Err(match names::state_of(name) {
        Some(names::State::Instead(advice)) => {
            Failure::new(format!("{name} is not applicable under Raft: {advice}"))
        }
        Some(names::State::Missing(advice)) => {
            Failure::new(format!("{name} is not in this version: {advice}"))
        }
        Some(names::State::Works) => Failure::usage(format!(
            "{name}: gantry has no such tool of its own; RocketMQ's mqadmin works against this cluster"
        )),
        None => Failure::usage(format!(
            "{name} is no command of mqadmin; gantry mqadmin lists them"
        )),
    })
}

fn list() -> Outcome {
    output::line("The commands are:")?;
    for tool in TOOLS {
        output::line(&format!("   {:<24} {}", tool.name, tool.about))?;
    }
    Ok(output::line(
        "See 'gantry mqadmin help <command>' for the options of a command.",
    )?)
}

fn help(tool: &Tool) -> Outcome {
    output::line(&format!("usage: gantry mqadmin {} [options]", tool.name))?;
    output::line(tool.about)?;
    for flag in tool.flags.iter().chain(&call::EVERYWHERE) {
        output::line(&flag.help())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_command_has_a_flag_twice() {
        let names: BTreeSet<&str> = TOOLS.iter().map(|tool| tool.name).collect();
        assert_eq!(names.len(), TOOLS.len());
        for tool in TOOLS {
            let flags = tool.flags.iter().chain(&call::EVERYWHERE);
            let letters: BTreeSet<char> = flags.clone().map(|flag| flag.short).collect();
            assert_eq!(letters.len(), flags.count(), "{}", tool.name);
        }
    }

    #[test]
    fn every_command_of_ours_is_one_of_rocketmq() {
        for tool in TOOLS {
            let state = names::state_of(tool.name);
            assert!(matches!(state, Some(names::State::Works)), "{}", tool.name);
        }
    }
}
