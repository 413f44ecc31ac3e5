//! `gantry topic`: create, list, describe, delete.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand, ValueEnum};
use gantry_protocol::bodies::perm;
use gantry_protocol::headers::CreateTopicRequest;
use gantry_protocol::topic::{self, DEFAULT_TOPIC};
use serde_json::json;

use super::arguments::ClusterArgs;
use super::failure::{Failure, Outcome};
use super::output::{self, Format};
use crate::client::{BrokerGroup, Client};
use crate::idempotent;

#[derive(Debug, Subcommand)]
pub(super) enum TopicCommand {
    /// Create a topic in every broker group, or change it.
    Create(CreateArgs),
    /// List the topics.
    List(ListArgs),
    /// Show a topic's queues and what they hold.
    Describe(TopicArgs),
    /// Delete a topic and its messages.
    Delete(TopicArgs),
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// Name of the topic: letters, digits and %|_-, at most 127.
    topic: String,
    /// Queues in each broker group.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=1024))]
    queues: i32,
    /// What clients may do: read and write, only read, only write.
    #[arg(long, value_enum, default_value_t)]
    perm: Perm,
    /// The order of messages in a queue matters to producers.
    #[arg(long)]
    order: bool,
    /// Keep one copy of a message that is sent again with the same unique key within this time, such as 10m.
    #[arg(long, value_name = "WINDOW", value_parser = window)]
    idempotent: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Also those of the broker itself, and retry and dead-letter topics.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Args, Debug)]
pub(super) struct TopicArgs {
    /// Name of the topic.
    topic: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Perm {
    /// Read and write.
    #[default]
    Rw,
    /// Only read.
    R,
    /// Only write.
    W,
}

impl Perm {
    fn bits(self) -> i32 {
        match self {
            Perm::Rw => perm::READ | perm::WRITE,
            Perm::R => perm::READ,
            Perm::W => perm::WRITE,
        }
    }

    fn text(bits: i32) -> String {
        let bit = |bit: i32, text: &'static str| if bits & bit != 0 { text } else { "" };
        format!("{}{}", bit(perm::READ, "r"), bit(perm::WRITE, "w"))
    }
}

/// The text that makes a topic idempotent.
fn window(text: &str) -> Result<String, String> {
    idempotent::parse_window(text)?;
    Ok(format!("+{}={text}", idempotent::ATTRIBUTE))
}

pub(super) async fn run(command: TopicCommand) -> Outcome {
    match command {
        TopicCommand::Create(args) => create(args).await,
        TopicCommand::List(args) => list(args).await,
        TopicCommand::Describe(args) => describe(args).await,
        TopicCommand::Delete(args) => delete(args).await,
    }
}

async fn create(args: CreateArgs) -> Outcome {
    topic::check_topic(&args.topic).map_err(|error| Failure::usage(error.to_string()))?;
    let client = args.cluster.client()?;
    let header = CreateTopicRequest {
        attributes: args.idempotent.as_deref(),
        topic: &args.topic,
        default_topic: DEFAULT_TOPIC,
        read_queue_nums: args.queues,
        write_queue_nums: args.queues,
        perm: args.perm.bits(),
        topic_filter_type: "SINGLE_TAG",
        topic_sys_flag: Some(0),
        order: Some(args.order),
        ..CreateTopicRequest::default()
    };
    let mut names = Vec::new();
    for group in client.groups().await? {
        client.create_topic(&group, &header).await?;
        names.push(group.name);
    }
    match args.cluster.output {
        Format::Json => output::json(&json!({
            "topic": args.topic, "queues": args.queues, "perm": Perm::text(args.perm.bits()), "groups": names,
        }))?,
        Format::Table => output::line(&format!(
            "topic {} has {} queues in each of {}",
            args.topic,
            args.queues,
            names.join(", ")
        ))?,
    }
    Ok(())
}

async fn list(args: ListArgs) -> Outcome {
    let client = args.cluster.client()?;
    let mut topics = client.topics().await?;
    if !args.all {
        let groups = client.groups().await?;
        // Every broker has topics of its own, of its cluster, and for replies.
        let names_of = |group: &BrokerGroup| {
            [
                group.name.clone(),
                group.cluster.clone(),
                topic::reply_topic(&group.cluster),
            ]
        };
        let derived: BTreeSet<String> = groups.iter().flat_map(names_of).collect();
        topics.retain(|name| is_of_users(name) && !derived.contains(name));
    }
    match args.cluster.output {
        Format::Json => output::json(&json!({ "topics": topics }))?,
        Format::Table if topics.is_empty() => {
            output::note("no topics yet; create one with `gantry topic create NAME`");
        }
        Format::Table => output::line(&topics.join("\n"))?,
    }
    Ok(())
}

fn is_of_users(name: &str) -> bool {
    let is_derived =
        name.starts_with(topic::RETRY_PREFIX) || name.starts_with(topic::DEAD_LETTER_PREFIX);
    !is_derived && !topic::is_system(name)
}

async fn describe(args: TopicArgs) -> Outcome {
    let client = args.cluster.client()?;
    let Some(route) = client.route(&args.topic).await? else {
        return Err(unknown(&args.topic));
    };
    let Some(groups) = client.groups_of(&args.topic).await? else {
        return Err(unknown(&args.topic));
    };
    let bounds = client.topic_bounds(&args.topic, &groups).await?;
    if args.cluster.output == Format::Json {
        let queues = bounds.iter().map(|(queue, bounds)| {
            json!({ "broker": queue.broker_name, "queue": queue.queue_id, "min": bounds.min_offset,
                "max": bounds.max_offset, "last_update_ms": bounds.last_update_timestamp })
        });
        let addresses: BTreeMap<_, _> = groups
            .iter()
            .map(|group| (&group.name, &group.addresses))
            .collect();
        let brokers = route.queue_datas.iter().map(|data| {
            json!({ "broker": data.broker_name, "perm": Perm::text(data.perm),
                "read_queues": data.read_queue_nums, "write_queues": data.write_queue_nums,
                "addresses": addresses.get(&data.broker_name) })
        });
        let brokers: Vec<_> = brokers.collect();
        return Ok(output::json(&json!({
            "topic": args.topic, "brokers": brokers, "queues": queues.collect::<Vec<_>>(),
        }))?);
    }
    let mut rows = Vec::new();
    for (queue, bounds) in &bounds {
        let data = route
            .queue_datas
            .iter()
            .find(|data| data.broker_name == queue.broker_name);
        rows.push(vec![
            queue.broker_name.clone(),
            queue.queue_id.to_string(),
            data.map(|data| Perm::text(data.perm)).unwrap_or_default(),
            bounds.min_offset.to_string(),
            bounds.max_offset.to_string(),
            (bounds.max_offset - bounds.min_offset).to_string(),
        ]);
    }
    Ok(output::table(
        &["broker", "queue", "perm", "min", "max", "messages"],
        &rows,
    )?)
}

async fn delete(args: TopicArgs) -> Outcome {
    if !is_deletable(&args.topic) {
        return Err(Failure::usage(format!(
            "{} belongs to the broker and cannot be deleted",
            args.topic
        )));
    }
    let client: Client = args.cluster.client()?;
    if client.route(&args.topic).await?.is_none() {
        return Err(unknown(&args.topic));
    }
    client.delete_topic(&args.topic).await?;
    match args.cluster.output {
        Format::Json => output::json(&json!({ "deleted": args.topic }))?,
        Format::Table => output::line(&format!("topic {} is deleted", args.topic))?,
    }
    Ok(())
}

fn is_deletable(name: &str) -> bool {
    !topic::is_system(name)
}

/// The topic is not there.
pub(super) fn unknown(topic: &str) -> Failure {
    Failure::new(format!(
        "topic {topic:?} does not exist; `gantry topic list` shows those that do, \
         `gantry topic create {topic}` creates it"
    ))
}
