//! `gantry dlq`: messages that consumers gave up, and the way back for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use gantry_protocol::message::{Message, sys_flags};
use gantry_protocol::properties::{Builder, names};
use gantry_protocol::topic;
use serde_json::json;

use super::arguments::ClusterArgs;
use super::failure::{Failure, Outcome};
use super::output::{self, Format, note};
use crate::client::{BrokerGroup, Client, Outgoing, Producer, QueueAt};

/// Reads dead letters when nothing is remembered; every broker has it.
const TOOLS_GROUP: &str = "TOOLS_CONSUMER";

/// What a dead letter leaves behind when it goes back: its attempts are counted from the beginning.
const DROPPED: [&str; 14] = [
    names::DLQ_ORIGIN_TOPIC,
    names::DLQ_ORIGIN_MESSAGE_ID,
    names::RETRY_TOPIC,
    names::ORIGIN_MESSAGE_ID,
    names::RECONSUME_TIME,
    names::MAX_RECONSUME_TIMES,
    names::DELAY_LEVEL,
    names::REAL_TOPIC,
    names::REAL_QUEUE_ID,
    names::MIN_OFFSET,
    names::MAX_OFFSET,
    names::TRANSACTION_PREPARED,
    names::UNIQ_KEY,
    names::WAIT_STORE,
];

/// What a body's compression needs of the sys flag.
const KEPT_FLAGS: i32 = sys_flags::COMPRESSED | sys_flags::COMPRESSION_MASK;

#[derive(Debug, Subcommand)]
pub(super) enum DlqCommand {
    /// List the consumer groups that have dead letters, with how many.
    List(ListArgs),
    /// Show the dead letters of a consumer group.
    Show(ShowArgs),
    /// Send dead letters back to the topics they came from.
    ///
    /// The broker remembers how far this came, so that a second run goes on behind the first. A message is
    /// noted as sent after it was acknowledged: if the command dies in between, that one is sent twice.
    Redrive(RedriveArgs),
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Consumer group that gave the messages up.
    group: String,
    /// Most messages to show, the oldest first.
    #[arg(short, long, default_value_t = 20, value_name = "N")]
    count: usize,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Args, Debug)]
pub(super) struct RedriveArgs {
    /// Consumer group that gave the messages up.
    group: String,
    /// Send them to this topic instead.
    #[arg(long)]
    to: Option<String>,
    /// Most messages to send. Default: all that are there now.
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Also those that were sent back before.
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) async fn run(command: DlqCommand) -> Outcome {
    match command {
        DlqCommand::List(args) => list(args).await,
        DlqCommand::Show(args) => show(args).await,
        DlqCommand::Redrive(args) => redrive(args).await,
    }
}

async fn list(args: ListArgs) -> Outcome {
    let client = args.cluster.client()?;
    let mut rows = Vec::new();
    for name in client.topics().await? {
        let Some(group) = topic::group_of_dead_letter_topic(&name) else {
            continue;
        };
        let Some(groups) = client.groups_of(&name).await? else {
            continue;
        };
        let bounds = client.topic_bounds(&name, &groups).await?;
        let held = bounds
            .values()
            .map(|queue| queue.max_offset - queue.min_offset);
        rows.push((group.to_string(), held.sum::<i64>()));
    }
    match args.cluster.output {
        Format::Json => {
            let rows = rows.iter();
            let rows = rows.map(|(group, count)| json!({ "group": group, "messages": count }));
            output::json(&rows.collect::<Vec<_>>())?;
        }
        Format::Table if rows.is_empty() => note("no consumer group has dead letters"),
        Format::Table => {
            let cells = rows.iter();
            let cells = cells.map(|(group, count)| vec![group.clone(), count.to_string()]);
            output::table(&["group", "messages"], &cells.collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// The dead-letter queues of a consumer group, read in the name of `consumer`.
async fn queues(client: &Client, group: &str, consumer: &str) -> Result<Vec<QueueAt>, Failure> {
    topic::check_group(group).map_err(|error| Failure::usage(error.to_string()))?;
    let name = topic::dead_letter_topic(group);
    let Some(groups) = client.groups_of(&name).await? else {
        return Err(Failure::new(format!(
            "consumer group {group:?} has no dead letters; `gantry dlq list` shows those that do"
        )));
    };
    let queue = |group: BrokerGroup| QueueAt {
        group,
        topic: name.clone(),
        queue: 0,
        consumer: consumer.to_string(),
        sql: None,
    };
    Ok(groups.into_iter().map(queue).collect())
}

async fn show(args: ShowArgs) -> Outcome {
    let client = args.cluster.client()?;
    let mut shown = Vec::new();
    for at in queues(&client, &args.group, TOOLS_GROUP).await? {
        let mut offset = client.min_offset(&at).await?;
        while shown.len() < args.count {
            let pulled = client.pull(&at, offset, Duration::ZERO).await?;
            if pulled.messages.is_empty() && pulled.next == offset {
                break;
            }
            offset = pulled.next;
            let messages = pulled.messages.into_iter();
            shown.extend(messages.map(|message| (at.group.name.clone(), message)));
        }
    }
    shown.truncate(args.count);
    for (broker, message) in &shown {
        match args.cluster.output {
            Format::Json => output::json(&as_json(broker, message))?,
            Format::Table => output::line(&format!(
                "{broker} {}  from {}, {} attempts, {} bytes: {}",
                message.queue_offset,
                origin(message).unwrap_or("an unknown topic"),
                message.reconsume_times,
                message.body.len(),
                String::from_utf8_lossy(&message.body)
                    .chars()
                    .take(80)
                    .collect::<String>()
                    .escape_debug(),
            ))?,
        }
    }
    Ok(())
}

fn as_json(broker: &str, message: &Message) -> serde_json::Value {
    let property = |name| message.property(name);
    json!({
        "broker": broker,
        "offset": message.queue_offset,
        "topic": origin(message),
        "id": property(names::DLQ_ORIGIN_MESSAGE_ID).or(property(names::ORIGIN_MESSAGE_ID)),
        "attempts": message.reconsume_times,
        "storedMs": message.store_timestamp,
        "keys": property(names::KEYS),
        "tag": property(names::TAGS),
        "body": String::from_utf8_lossy(&message.body),
    })
}

/// The topic that a dead letter came from.
fn origin(message: &Message) -> Option<&str> {
    message
        .property(names::RETRY_TOPIC)
        .or(message.property(names::DLQ_ORIGIN_TOPIC))
}

async fn redrive(args: RedriveArgs) -> Outcome {
    let client = Arc::new(args.cluster.client()?);
    // Its offsets in the dead letters say what was sent back.
    let remembers = format!("{}_REDRIVE", args.group);
    let queues = queues(&client, &args.group, &remembers).await?;
    let groups: Vec<BrokerGroup> = queues.iter().map(|at| at.group.clone()).collect();
    client.ensure_consumer_group(&remembers, &groups).await?;
    let mut redrive = Redrive {
        args: &args,
        client: Arc::clone(&client),
        producers: BTreeMap::new(),
        sent: BTreeMap::new(),
    };
    let mut outcome = Ok(());
    for at in &queues {
        outcome = redrive.queue(at).await;
        if outcome.is_err() {
            break;
        }
    }
    redrive.report()?;
    outcome
}

struct Redrive<'a> {
    args: &'a RedriveArgs,
    client: Arc<Client>,
    producers: BTreeMap<String, Producer>,
    /// Messages by topic.
    sent: BTreeMap<String, u64>,
}

impl Redrive<'_> {
    /// Sends back what a queue holds now.
    async fn queue(&mut self, at: &QueueAt) -> Outcome {
        let first = self.client.min_offset(at).await?;
        let end = self.client.max_offset(at).await?;
        let known = match self.args.again {
            true => None,
            false => self.client.committed_offset(at).await?,
        };
        let mut offset = known.unwrap_or(first).max(first);
        while offset < end && self.wants_more() {
            let pulled = self.client.pull(at, offset, Duration::ZERO).await?;
            if pulled.messages.is_empty() && pulled.next <= offset {
                break;
            }
            let sent = self.messages(pulled.messages, end).await;
            // What went is noted, whatever happened to the one behind it.
            let (next, outcome) = match sent {
                Ok(Some(next)) => (next, Ok(())),
                Ok(None) => (pulled.next, Ok(())),
                Err((next, failure)) => (next.unwrap_or(offset), Err(failure)),
            };
            self.client.commit_offset(at, next).await?;
            outcome?;
            offset = next;
        }
        Ok(())
    }

    fn wants_more(&self) -> bool {
        let sent = self.sent.values().sum::<u64>();
        self.args.count.is_none_or(|count| sent < count)
    }

    /// Sends messages below `end`; the offset behind the last one that went.
    async fn messages(
        &mut self,
        messages: Vec<Message>,
        end: i64,
    ) -> Result<Option<i64>, (Option<i64>, Failure)> {
        let mut next = None;
        for message in messages {
            if message.queue_offset >= end || !self.wants_more() {
                break;
            }
            let offset = message.queue_offset;
            self.send(message).await.map_err(|error| (next, error))?;
            next = Some(offset + 1);
        }
        Ok(next)
    }

    async fn send(&mut self, message: Message) -> Outcome {
        let to = self.args.to.as_deref().or(origin(&message));
        let Some(to) = to.map(str::to_string) else {
            return Err(Failure::new(format!(
                "the dead letter at offset {} does not say where it came from; name a topic with --to",
                message.queue_offset
            )));
        };
        let client = Arc::clone(&self.client);
        let producer = self
            .producers
            .entry(to.clone())
            .or_insert_with(|| Producer::new(client, &to));
        let properties = Builder::from_text_without(&message.properties, &DROPPED);
        let outgoing = Outgoing {
            body: message.body,
            properties: properties.finish(),
            sys_flag: message.sys_flag & KEPT_FLAGS,
            ..Outgoing::default()
        };
        producer.send(&outgoing).await?;
        *self.sent.entry(to).or_default() += 1;
        Ok(())
    }

    fn report(&self) -> std::io::Result<()> {
        match self.args.cluster.output {
            Format::Json => output::json(&json!({ "sent": self.sent })),
            Format::Table if self.sent.is_empty() => output::line("nothing to send back"),
            Format::Table => {
                let rows = self.sent.iter();
                let rows = rows.map(|(topic, count)| vec![topic.clone(), count.to_string()]);
                output::table(&["topic", "sent back"], &rows.collect::<Vec<_>>())
            }
        }
    }
}
