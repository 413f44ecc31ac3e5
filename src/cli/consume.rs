//! `gantry consume`: reads every queue of a topic, without becoming a member of a group.
//!
//! With a group it begins where that group is and commits what it has printed; without one it leaves no
//! trace. It takes no part in the group's sharing of queues: real members would get these messages too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use gantry_protocol::message::{Message, sys_flags};
use gantry_protocol::properties::names;
use gantry_protocol::sql::Selector;
use gantry_protocol::topic;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::arguments::{ClusterArgs, duration};
use super::dev::Interrupts;
use super::failure::{Failure, Outcome};
use super::output::{self, Format, note};
use super::topic::unknown;
use crate::client::{Client, QueueAt};

/// Group of tools; every broker has it.
const TOOLS_GROUP: &str = "TOOLS_CONSUMER";
const LONG_POLL: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(250);
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
const BATCHES_AHEAD_MAX: usize = 8;

#[derive(Args, Debug)]
pub(super) struct ConsumeArgs {
    /// Topic to read.
    #[arg(short, long)]
    topic: String,
    /// Consumer group: begin at its offsets and commit them.
    #[arg(short, long)]
    group: Option<String>,
    /// Only messages whose properties match, for instance "price > 10 AND color IN ('red', 'blue')".
    #[arg(long, value_name = "EXPRESSION")]
    sql: Option<String>,
    /// Where to begin in queues for which the group has no offset.
    #[arg(long, value_enum, default_value_t)]
    from: From,
    /// Stop after so many messages; fewer are a failure. Default: no limit.
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Stop after this long without a message, for instance 10s; 0 waits for ever.
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME", alias = "timeout-s")]
    timeout: Duration,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum From {
    /// The oldest message.
    #[default]
    First,
    /// Only messages that come from now on.
    Last,
}

/// Messages of one queue, in order.
struct Batch {
    /// Position in the list of queues.
    queue: usize,
    messages: Vec<Message>,
}

pub(super) async fn run(args: ConsumeArgs) -> Outcome {
    if let Some(group) = &args.group {
        topic::check_group(group).map_err(|error| Failure::usage(error.to_string()))?;
    }
    if let Some(expression) = &args.sql {
        let parsed = Selector::parse(expression);
        parsed.map_err(|error| Failure::usage(format!("--sql: {error}")))?;
    }
    let client = Arc::new(args.cluster.client()?);
    let queues = queues(&client, &args).await?;
    let (batches, mut arrived) = mpsc::channel(BATCHES_AHEAD_MAX);
    let mut readers = JoinSet::new();
    for (position, at) in queues.iter().enumerate() {
        let start = start(&client, at, &args).await?;
        readers.spawn(read(
            Arc::clone(&client),
            at.clone(),
            (position, start),
            batches.clone(),
        ));
    }
    drop(batches);
    let mut reader = Reader {
        args: &args,
        queues,
        printed: 0,
        uncommitted: BTreeMap::new(),
    };
    let outcome = reader.print_all(&client, &mut arrived).await;
    readers.abort_all();
    let committed = reader.commit(&client).await;
    outcome.and(committed)
}

async fn queues(client: &Client, args: &ConsumeArgs) -> Result<Vec<QueueAt>, Failure> {
    let Some(route) = client.route(&args.topic).await? else {
        return Err(unknown(&args.topic));
    };
    let Some(groups) = client.groups_of(&args.topic).await? else {
        return Err(unknown(&args.topic));
    };
    if let Some(group) = &args.group {
        client.ensure_consumer_group(group, &groups).await?;
    }
    let consumer = args
        .group
        .clone()
        .unwrap_or_else(|| TOOLS_GROUP.to_string());
    let mut queues = Vec::new();
    for group in groups {
        let data = route
            .queue_datas
            .iter()
            .find(|data| data.broker_name == group.name);
        for queue in 0..data.map_or(0, |data| data.read_queue_nums) {
            let (topic, consumer) = (args.topic.clone(), consumer.clone());
            queues.push(QueueAt {
                group: group.clone(),
                topic,
                queue,
                consumer,
                sql: args.sql.clone(),
            });
        }
    }
    Ok(queues)
}

async fn start(client: &Client, at: &QueueAt, args: &ConsumeArgs) -> Result<i64, Failure> {
    if args.group.is_some()
        && let Some(offset) = client.committed_offset(at).await?
    {
        return Ok(offset);
    }
    Ok(match args.from {
        From::First => client.min_offset(at).await?,
        From::Last => client.max_offset(at).await?,
    })
}

/// Reads one queue until nobody takes its messages any more. Failures are reported and tried again: a
/// group may be between two leaders.
async fn read(
    client: Arc<Client>,
    at: QueueAt,
    (queue, mut offset): (usize, i64),
    batches: mpsc::Sender<Batch>,
) {
    let mut is_failing = false;
    loop {
        let pulled = match client.pull(&at, offset, LONG_POLL).await {
            Ok(pulled) => pulled,
            Err(error) => {
                if !is_failing {
                    note(&format!(
                        "{} queue {}: {error}; trying again",
                        at.group.name, at.queue
                    ));
                }
                is_failing = true;
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
        };
        is_failing = false;
        if pulled.moved {
            note(&format!(
                "{} queue {}: offset {offset} is not there (it holds {} to {}); going on at {}",
                at.group.name, at.queue, pulled.min, pulled.max, pulled.next
            ));
        }
        offset = pulled.next;
        let batch = Batch {
            queue,
            messages: pulled.messages,
        };
        if !batch.messages.is_empty() && batches.send(batch).await.is_err() {
            return;
        }
    }
}

struct Reader<'a> {
    args: &'a ConsumeArgs,
    queues: Vec<QueueAt>,
    printed: u64,
    /// Next offset by position in `queues`, of those that have moved since the last commit.
    uncommitted: BTreeMap<usize, i64>,
}

impl Reader<'_> {
    /// Prints what arrives until there is enough of it or nothing comes any more.
    async fn print_all(&mut self, client: &Client, arrived: &mut mpsc::Receiver<Batch>) -> Outcome {
        let mut interrupts = Interrupts::listen()?;
        let mut commits = tokio::time::interval(COMMIT_INTERVAL);
        let patience = tokio::time::sleep(self.args.timeout);
        tokio::pin!(patience);
        while self.wants_more() {
            tokio::select! {
                biased;
                batch = arrived.recv() => {
                    let Some(batch) = batch else { break };
                    self.print(batch)?;
                    patience.as_mut().reset(tokio::time::Instant::now() + self.args.timeout);
                }
                _ = commits.tick() => self.commit(client).await?,
                () = &mut patience, if !self.args.timeout.is_zero() => return self.timed_out(),
                () = interrupts.next() => break,
            }
        }
        Ok(())
    }

    fn wants_more(&self) -> bool {
        self.args.count.is_none_or(|count| self.printed < count)
    }

    fn timed_out(&self) -> Outcome {
        let Some(count) = self.args.count else {
            return Ok(());
        };
        Err(Failure::new(format!(
            "only {} of {count} messages: no further one within {:?}; --timeout waits longer",
            self.printed, self.args.timeout
        )))
    }

    fn print(&mut self, batch: Batch) -> Outcome {
        for message in batch.messages {
            if !self.wants_more() {
                break;
            }
            let broker = &self.queues[batch.queue].group.name;
            match self.args.cluster.output {
                Format::Json => output::json(&as_json(broker, &message))?,
                Format::Table => self.print_row(broker, &message)?,
            }
            self.printed += 1;
            self.uncommitted
                .insert(batch.queue, message.queue_offset + 1);
        }
        Ok(())
    }

    fn print_row(&self, broker: &str, message: &Message) -> Outcome {
        if self.printed == 0 {
            output::line(&format!(
                "{:<32}  {:<10}  queue  offset    body",
                "msgId", "broker"
            ))?;
        }
        Ok(output::line(&format!(
            "{:<32}  {broker:<10}  {:<5}  {:<8}  {}",
            message.offset_message_id().to_string(),
            message.queue_id,
            message.queue_offset,
            body_text(message)
        ))?)
    }

    async fn commit(&mut self, client: &Client) -> Outcome {
        if self.args.group.is_none() {
            return Ok(());
        }
        while let Some((queue, offset)) = self.uncommitted.first_key_value() {
            client.commit_offset(&self.queues[*queue], *offset).await?;
            self.uncommitted.pop_first();
        }
        Ok(())
    }
}

fn body_text(message: &Message) -> String {
    if message.sys_flag & sys_flags::COMPRESSED != 0 {
        return format!("({} bytes, compressed by the producer)", message.body.len());
    }
    String::from_utf8_lossy(&message.body).into_owned()
}

fn as_json(broker: &str, message: &Message) -> serde_json::Value {
    json!({
        "msg_id": message.offset_message_id().to_string(),
        "unique_key": message.property(names::UNIQ_KEY),
        "topic": message.topic,
        "broker": broker,
        "queue": message.queue_id,
        "offset": message.queue_offset,
        "tag": message.property(names::TAGS),
        "keys": message.property(names::KEYS),
        "stored_ms": message.store_timestamp,
        "body": body_text(message),
    })
}
