//! The flags of each case.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::frames::{HeaderKind, Selection};
use super::kinds::MessageKind;
use super::popper::AckKind;
use super::stamp::STAMP_BYTES;
use crate::cli::arguments::duration;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::Format;
use crate::units;

/// What every RocketMQ takes as one message or one batch.
const BODY_BYTES_MAX: usize = 4 << 20;
/// What brokers give to one pop at most.
const POP_BATCH_MAX: u32 = 32;
/// Connections of a driver that was not told.
const CONNECTIONS: usize = 4;

/// The cases.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Acknowledged sends as fast as they go, with a fixed number of requests under way.
    Produce(ProduceArgs),
    /// Reads queues as fast as they go, one pull under way for each queue.
    Consume(ConsumeArgs),
    /// Latency of sends at a given rate. Counts from the time that a send was scheduled for, so that a stall
    /// shows in every message it held up.
    Latency(LatencyArgs),
    /// Latency from the scheduled send to the consumer, through pulls that wait for messages.
    EndToEnd(EndToEndArgs),
    /// How late messages come that are due at a time: parks some, each with a time of its own, and reads
    /// them. Latency counts from when each was due.
    Timers(TimersArgs),
    /// The longest time in which a group acknowledges nothing, while its leader is killed.
    Failover(FailoverArgs),
}

/// What is driven.
#[derive(Args, Clone, Debug)]
pub(super) struct GroundArgs {
    /// Name servers, "host:port;host:port". Every port of a Gantry node is one.
    #[arg(
        long,
        visible_alias = "namesrv",
        env = "NAMESRV_ADDR",
        default_value = "127.0.0.1:9876",
        value_name = "HOST:PORT;..."
    )]
    pub(super) address: String,
    /// Topic; created if it is missing.
    #[arg(long, default_value = "bench")]
    pub(super) topic: String,
    /// Number of topics; above 1 they are called TOPIC-0, TOPIC-1 and so on.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = up_to(100_000))]
    pub(super) topics: u32,
    /// Queues of each topic in each group. Default: 4, or those that the topic has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=65_535))]
    pub(super) queues: Option<i32>,
    /// Broker groups (brokerName) to drive, separated by commas. Default: all that the topic is in.
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub(super) group: Vec<String>,
    /// How headers are encoded.
    #[arg(long, value_enum, default_value_t)]
    pub(super) header: HeaderKind,
}

/// How long is measured.
#[derive(Args, Clone, Debug)]
pub(super) struct TimeArgs {
    /// How long is measured.
    #[arg(long, default_value = "10s", value_parser = positive_duration, value_name = "TIME")]
    pub(super) duration: Duration,
    /// How long the load runs before.
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub(super) warm_up: Duration,
}

/// How often is measured, and what is told.
#[derive(Args, Clone, Debug)]
pub(super) struct MeasureArgs {
    /// How often everything is measured.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = up_to(1_000_000))]
    pub(super) repeat: u32,
    /// Process ids of the servers, separated by commas, to account CPU and memory.
    #[arg(long, value_delimiter = ',', value_name = "PID,...")]
    pub(super) pid: Vec<u32>,
    /// Label of what is measured, copied to the output.
    #[arg(long, value_name = "NAME")]
    pub(super) system: Option<String>,
    /// How to print the result: JSON is one line for each measurement.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
    /// Show a line each second on standard error even if that is no terminal.
    #[arg(long)]
    pub(super) progress: bool,
}

/// Who sends what.
#[derive(Args, Clone, Debug)]
pub(super) struct SendArgs {
    /// Bytes of a body, also with a unit as in 1KiB, or several sizes separated by commas, each measured.
    #[arg(long, value_delimiter = ',', default_value = "1024", value_parser = size, value_name = "BYTES")]
    pub(super) size: Vec<usize>,
    /// TCP connections, in turn to each group; rounded up so that each group has as many. Default: 4, fewer
    /// if fewer requests are under way.
    #[arg(long, value_name = "N", value_parser = up_to(100_000))]
    pub(super) connections: Option<u32>,
    /// Producers with a producer group and client id of their own, and at least one connection each.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = up_to(100_000))]
    pub(super) producers: u32,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    pub(super) ground: GroundArgs,
    #[command(flatten)]
    pub(super) send: SendArgs,
    /// Requests under way over all connections, or several numbers separated by commas, each measured.
    #[arg(long, value_delimiter = ',', default_value = "256", value_parser = count, value_name = "N,...")]
    pub(super) outstanding: Vec<usize>,
    /// Messages of one request; 1 sends them one by one.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        value_parser = up_to(10_000),
        conflicts_with = "KindArgs"
    )]
    pub(super) batch: u32,
    #[command(flatten)]
    pub(super) kind: KindArgs,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    #[command(flatten)]
    pub(super) measure: MeasureArgs,
}

/// What is special about messages.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
pub(super) struct KindArgs {
    /// Messages come so long after they were sent (property TIMER_DELAY_MS). Sending for longer than that
    /// measures what their coming costs too.
    #[arg(long, value_parser = positive_duration, value_name = "TIME")]
    delay: Option<Duration>,
    /// Transactions: each message is sent as a half message and then committed, and counts when its commit is
    /// acknowledged.
    #[arg(long)]
    transactional: bool,
    /// Each message has a unique key, as those of stock clients have. Topics that keep one copy of a
    /// message need it (gantry topic create --idempotent).
    #[arg(long)]
    unique_keys: bool,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum From {
    /// At the first message, or the first of those that --fill sent; ends after the last one.
    #[default]
    Start,
    /// After the last message: what others send meanwhile.
    Tail,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ConsumeArgs {
    #[command(flatten)]
    pub(super) ground: GroundArgs,
    /// Messages that are sent first, and then read. They have the tags t0 to t9 and the property "a" from 0
    /// to 9, in turn.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) fill: u64,
    /// Bytes of a body that --fill sends, or several sizes separated by commas, each measured.
    #[arg(long, value_delimiter = ',', default_value = "1024", value_parser = size, value_name = "BYTES")]
    pub(super) size: Vec<usize>,
    /// Where reading begins.
    #[arg(long, value_enum, default_value_t)]
    pub(super) from: From,
    #[command(flatten)]
    pub(super) how: HowArgs,
    #[command(flatten)]
    pub(super) pull: PullArgs,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    #[command(flatten)]
    pub(super) measure: MeasureArgs,
}

/// How messages are selected or taken.
#[derive(Args, Clone, Debug)]
pub(super) struct HowArgs {
    /// Only messages with one of these tags, as in "t1 || t2".
    #[arg(long, value_name = "TAGS", conflicts_with_all = ["filter", "pop"])]
    tag: Option<String>,
    /// Only messages whose properties match this expression of SQL92, as in "a > 5".
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "pop")]
    filter: Option<String>,
    /// Take messages by POP and acknowledge them, as the consumer group gantry-bench. A message counts when
    /// its acknowledgement is answered; its latency counts from the pop.
    #[arg(long)]
    pub(super) pop: bool,
    /// Messages of one acknowledgement.
    #[arg(long, value_enum, default_value_t, requires = "pop")]
    pub(super) acks: AckKind,
}

/// Who reads.
#[derive(Args, Clone, Debug)]
pub(super) struct PullArgs {
    /// Consumers that share the queues, one connection each; rounded up so that each group has as many.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = up_to(100_000))]
    pub(super) consumers: u32,
    /// Most messages of one pull or pop; brokers may give fewer.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = up_to(10_000))]
    pub(super) pull_batch: u32,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    pub(super) ground: GroundArgs,
    #[command(flatten)]
    pub(super) send: SendArgs,
    #[command(flatten)]
    pub(super) open: OpenArgs,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    #[command(flatten)]
    pub(super) measure: MeasureArgs,
}

/// A load by the clock.
#[derive(Args, Clone, Debug)]
pub(super) struct OpenArgs {
    /// Messages that are sent each second, however long they take.
    #[arg(long, default_value = "1000", value_parser = rate, value_name = "N")]
    pub(super) rate: f64,
    /// Most requests under way; those that must wait keep their scheduled time.
    #[arg(long, default_value = "10000", value_parser = count, value_name = "N")]
    pub(super) outstanding: usize,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct EndToEndArgs {
    #[command(flatten)]
    pub(super) ground: GroundArgs,
    #[command(flatten)]
    pub(super) send: SendArgs,
    #[command(flatten)]
    pub(super) open: OpenArgs,
    #[command(flatten)]
    pub(super) pull: PullArgs,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    #[command(flatten)]
    pub(super) measure: MeasureArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct TimersArgs {
    #[command(flatten)]
    pub(super) ground: GroundArgs,
    #[command(flatten)]
    pub(super) send: SendArgs,
    /// Number of timers.
    #[arg(
        long,
        default_value_t = 100_000,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000)
    )]
    pub(super) count: u64,
    /// When the first one is due, counted from the start. All should be parked by then; "pending" says how
    /// many were.
    #[arg(long, default_value = "20s", value_parser = duration, value_name = "TIME")]
    pub(super) after: Duration,
    /// The time over which they are due, evenly.
    #[arg(long, default_value = "30s", value_parser = positive_duration, value_name = "TIME")]
    pub(super) within: Duration,
    /// Requests under way over all connections.
    #[arg(long, default_value = "256", value_parser = count, value_name = "N")]
    pub(super) outstanding: usize,
    #[command(flatten)]
    pub(super) pull: PullArgs,
    #[command(flatten)]
    pub(super) measure: MeasureArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct FailoverArgs {
    #[command(flatten)]
    pub(super) ground: GroundArgs,
    #[command(flatten)]
    pub(super) send: SendArgs,
    /// Requests under way over all connections; by default and at least one for each connection.
    #[arg(long, value_parser = count, value_name = "N")]
    pub(super) outstanding: Option<usize>,
    /// Process that is killed with SIGKILL. Default: kill one yourself while this runs.
    #[arg(long, value_name = "PID")]
    pub(super) kill_pid: Option<u32>,
    /// When it is killed, counted from the end of the warm-up.
    #[arg(long, default_value = "3s", value_parser = duration, requires = "kill_pid", value_name = "TIME")]
    pub(super) kill_after: Duration,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    #[command(flatten)]
    pub(super) measure: MeasureArgs,
}

impl GroundArgs {
    /// Names of the topics.
    pub(super) fn topic_names(&self) -> Vec<String> {
        if self.topics == 1 {
            return vec![self.topic.clone()];
        }
        let numbered = |number| format!("{}-{number}", self.topic);
        (0..self.topics).map(numbered).collect()
    }
}

impl SendArgs {
    /// Number of connections for so many requests under way.
    pub(super) fn connections(&self, outstanding: usize, groups: usize) -> usize {
        let asked = match self.connections {
            Some(connections) => connections as usize,
            None => CONNECTIONS.min(outstanding),
        };
        asked.max(self.producers as usize).next_multiple_of(groups)
    }

    /// Refuses sizes that no broker takes in batches of so many.
    pub(super) fn check(&self, batch: u32) -> Outcome {
        let most = self.size.iter().copied().max().unwrap_or(0);
        let bytes = most.saturating_mul(batch as usize);
        if bytes > BODY_BYTES_MAX {
            return Err(Failure::usage(format!(
                "{batch} x {most} bytes in one request: brokers take {BODY_BYTES_MAX} at most; choose a \
                 smaller --batch or --size"
            )));
        }
        Ok(())
    }

    /// Refuses also bodies that have no room for what tells a message from others.
    pub(super) fn check_stamped(&self) -> Outcome {
        self.check(1)?;
        match self.size.iter().find(|size| **size < STAMP_BYTES) {
            Some(size) => Err(Failure::usage(format!(
                "--size {size}: a message carries its time or number, which needs {STAMP_BYTES} bytes"
            ))),
            None => Ok(()),
        }
    }
}

impl KindArgs {
    /// What is sent, and what it is called; in requests of so many messages.
    pub(super) fn kind(&self, batch: u32) -> (MessageKind, Option<&'static str>) {
        match self {
            _ if batch > 1 => (MessageKind::Batch, None),
            KindArgs {
                delay: Some(delay), ..
            } => (MessageKind::Delayed(*delay), Some("delayed")),
            _ if self.transactional => (MessageKind::Transactional, Some("transactional")),
            _ if self.unique_keys => (MessageKind::Keyed, Some("unique keys")),
            _ => (MessageKind::Plain, None),
        }
    }
}

impl HowArgs {
    /// Which messages are pulled.
    pub(super) fn selection(&self) -> Selection {
        match (&self.tag, &self.filter) {
            (Some(tags), _) => Selection::Tags(tags.clone()),
            (None, Some(sql)) => Selection::Sql(sql.clone()),
            (None, None) => Selection::All,
        }
    }

    /// What this way of reading is called, if it is not the plain one.
    pub(super) fn name(&self) -> Option<&'static str> {
        match (self.pop, self.acks, self.selection()) {
            (true, AckKind::One, _) => Some("pop"),
            (true, AckKind::Batch, _) => Some("pop, acks in batches"),
            (false, _, Selection::Tags(_)) => Some("tags"),
            (false, _, Selection::Sql(_)) => Some("filter"),
            (false, _, Selection::All) => None,
        }
    }
}

impl ConsumeArgs {
    /// Refuses what contradicts itself.
    pub(super) fn check(&self) -> Outcome {
        if self.fill == 0 && self.size.len() > 1 {
            return Err(Failure::usage(
                "several --size are for --fill, which sends the messages",
            ));
        }
        if self.how.pop && self.pull.pull_batch > POP_BATCH_MAX {
            return Err(Failure::usage(format!(
                "--pull-batch {}: a pop takes {POP_BATCH_MAX} messages at most",
                self.pull.pull_batch
            )));
        }
        if self.fill > 0 && self.from == From::Tail {
            return Err(Failure::usage(
                "--from tail reads what is sent later and not what --fill sends; leave one out",
            ));
        }
        Ok(())
    }
}

fn up_to(most: i64) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=most)
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = units::parse_bytes(text)?;
    match usize::try_from(bytes) {
        Ok(bytes @ 1..=BODY_BYTES_MAX) => Ok(bytes),
        _ => Err(format!("a body has 1 to {BODY_BYTES_MAX} bytes")),
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => Err("write a number from 1 to 1000000".to_string()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("write a number from 0.001 to 10000000".to_string()),
    }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("measuring takes time".to_string()),
        time => Ok(time),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: BenchCommand,
    }

    fn parse(words: &str) -> Result<BenchCommand, String> {
        let words = std::iter::once("bench").chain(words.split_whitespace());
        match Line::try_parse_from(words) {
            Ok(line) => Ok(line.command),
            Err(error) => Err(error.to_string()),
        }
    }

    fn produce(words: &str) -> ProduceArgs {
        match parse(&format!("produce {words}")).unwrap() {
            BenchCommand::Produce(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lists_are_separated_by_commas_and_sizes_have_units() {
        let args = produce("--size 128,1KiB,16384 --outstanding 1,64 --pid 7,8 --group a,b");
        assert_eq!(args.send.size, [128, 1024, 16384]);
        assert_eq!(args.outstanding, [1, 64]);
        assert_eq!(args.measure.pid, [7, 8]);
        assert_eq!(args.ground.group, ["a", "b"]);
        let args = produce("");
        assert_eq!((args.send.size, args.outstanding), (vec![1024], vec![256]));
    }

    #[test]
    fn wrong_flags_are_named() {
        for (words, named) in [
            ("produce --size 1024,", "--size"),
            ("produce --size 5MiB", "4194304"),
            ("produce --size 0", "--size"),
            ("produce --outstanding 1,none", "none"),
            ("produce --rate 5", "--rate"),
            ("produce --duration 0", "takes time"),
            ("latency --rate 0", "--rate"),
            ("consume --from middle", "middle"),
            ("failover --kill-after 1s", "--kill-pid"),
            ("produce --delay soon", "--delay"),
            ("produce --delay 0", "takes time"),
            ("produce --delay 1s --transactional", "--transactional"),
            ("produce --transactional --unique-keys", "--unique-keys"),
            ("produce --batch 2 --delay 1s", "--batch"),
            ("consume --filter a>5 --tag t1", "--tag"),
            ("consume --filter a>5 --pop", "--pop"),
            ("consume --acks batch", "--pop"),
            ("consume --pop --acks some", "some"),
            ("timers --count 0", "--count"),
            ("timers --duration 5s", "--duration"),
            ("latency --delay 1s", "--delay"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(named), "{words}: {error}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let args = produce("--size 1024,64KiB --batch 100");
        assert!(args.send.check(args.batch).is_err());
        assert!(args.send.check(64).is_ok());
        for words in [
            "consume --fill 5 --from tail",
            "consume --size 1,2",
            "consume --pop --pull-batch 33",
        ] {
            let BenchCommand::Consume(args) = parse(words).unwrap() else {
                panic!("{words}");
            };
            assert!(args.check().is_err(), "{words}");
        }
        let BenchCommand::EndToEnd(args) = parse("end-to-end --size 15").unwrap() else {
            panic!();
        };
        assert!(args.send.check_stamped().is_err());
    }

    #[test]
    fn what_is_special_has_a_name() {
        let kind = |words: &str| {
            let args = produce(words);
            args.kind.kind(args.batch)
        };
        let delayed = MessageKind::Delayed(Duration::from_secs(30));
        assert_eq!(kind(""), (MessageKind::Plain, None));
        assert_eq!(kind("--batch 2"), (MessageKind::Batch, None));
        assert_eq!(kind("--delay 30s"), (delayed, Some("delayed")));
        assert_eq!(kind("--transactional").0, MessageKind::Transactional);
        assert_eq!(kind("--unique-keys").0, MessageKind::Keyed);
        let how = |words: &str| match parse(&format!("consume {words}")).unwrap() {
            BenchCommand::Consume(args) => (args.how.selection(), args.how.name()),
            other => panic!("{other:?}"),
        };
        let sql = Selection::Sql("a>5".to_string());
        assert_eq!(how(""), (Selection::All, None));
        assert_eq!(how("--filter a>5"), (sql, Some("filter")));
        let tags = Selection::Tags("t1||t2".to_string());
        assert_eq!(how("--tag t1||t2"), (tags, Some("tags")));
        assert_eq!(how("--pop"), (Selection::All, Some("pop")));
        let batches = how("--pop --acks batch").1;
        assert_eq!(batches, Some("pop, acks in batches"));
    }

    #[test]
    fn each_group_has_as_many_connections() {
        let args = produce("");
        assert_eq!(args.send.connections(1, 3), 3);
        assert_eq!(args.send.connections(256, 3), 6);
        assert_eq!(args.send.connections(256, 1), 4);
        let args = produce("--producers 1000 --connections 8");
        assert_eq!(args.send.connections(256, 3), 1002);
        assert_eq!(produce("--connections 8").send.connections(1, 2), 8);
    }

    #[test]
    fn one_topic_has_the_name_and_several_are_numbered() {
        assert_eq!(produce("--topic t").ground.topic_names(), ["t"]);
        assert_eq!(
            produce("--topic t --topics 2").ground.topic_names(),
            ["t-0", "t-1"]
        );
    }
}
