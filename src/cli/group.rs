//! `gantry group`: consumer groups, their members and how far they are.

use clap::{Args, Subcommand};
use gantry_protocol::bodies::ConsumerConnection;
use gantry_protocol::topic::{self, SYSTEM_GROUPS};
use serde_json::json;

use super::arguments::ClusterArgs;
use super::failure::{Failure, Outcome};
use super::output::{self, Format};
use crate::client::GroupProgress;

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// List the consumer groups.
    List(ListArgs),
    /// Show a group's members and its lag, queue by queue.
    Describe(DescribeArgs),
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Also the groups of tools that every broker has.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Args, Debug)]
pub(super) struct DescribeArgs {
    /// Name of the consumer group.
    group: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) async fn run(command: GroupCommand) -> Outcome {
    match command {
        GroupCommand::List(args) => list(args).await,
        GroupCommand::Describe(args) => describe(args).await,
    }
}

async fn list(args: ListArgs) -> Outcome {
    let mut groups = args.cluster.client()?.consumer_groups().await?;
    if !args.all {
        groups.retain(|name| !SYSTEM_GROUPS.contains(&name.as_str()));
    }
    let groups: Vec<String> = groups.into_iter().collect();
    match args.cluster.output {
        Format::Json => output::json(&json!({ "groups": groups }))?,
        Format::Table if groups.is_empty() => {
            output::note("no consumer groups yet; one appears with its first consumer");
        }
        Format::Table => output::line(&groups.join("\n"))?,
    }
    Ok(())
}

async fn describe(args: DescribeArgs) -> Outcome {
    topic::check_group(&args.group).map_err(|error| Failure::usage(error.to_string()))?;
    let client = args.cluster.client()?;
    if !client.consumer_groups().await?.contains(&args.group) {
        return Err(Failure::new(format!(
            "consumer group {:?} does not exist; `gantry group list` shows those that do",
            args.group
        )));
    }
    let progress = client.group_progress(&args.group).await?;
    match args.cluster.output {
        Format::Json => Ok(output::json(&as_json(&args.group, &progress))?),
        Format::Table => as_tables(&args.group, &progress),
    }
}

fn as_json(group: &str, progress: &GroupProgress) -> serde_json::Value {
    let members = progress
        .members
        .iter()
        .flat_map(|members| &members.connection_set);
    let members = members.map(|member| {
        json!({ "client_id": member.client_id, "address": member.client_addr,
            "language": member.language, "version": member.version })
    });
    let queues = progress.queues.iter().map(|(queue, at)| {
        json!({ "topic": queue.topic, "broker": queue.broker_name, "queue": queue.queue_id,
            "max": at.broker_offset, "committed": at.consumer_offset,
            "lag": at.broker_offset - at.consumer_offset, "last_consumed_ms": at.last_timestamp })
    });
    json!({
        "group": group,
        "online": progress.members.is_some(),
        "model": progress.members.as_ref().map(|members| members.message_model),
        "members": members.collect::<Vec<_>>(),
        "queues": queues.collect::<Vec<_>>(),
    })
}

fn as_tables(group: &str, progress: &GroupProgress) -> Outcome {
    match &progress.members {
        Some(members) => print_members(group, members)?,
        None => output::line(&format!("group {group} has no members online"))?,
    }
    if progress.queues.is_empty() {
        return Ok(output::line("it has committed no offsets yet")?);
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (queue, at) in &progress.queues {
        rows.push(vec![
            queue.topic.clone(),
            queue.broker_name.clone(),
            queue.queue_id.to_string(),
            at.broker_offset.to_string(),
            at.consumer_offset.to_string(),
            (at.broker_offset - at.consumer_offset).to_string(),
        ]);
    }
    rows.sort_by(|a, b| a[..3].cmp(&b[..3]));
    output::line("")?;
    Ok(output::table(
        &["topic", "broker", "queue", "max", "committed", "lag"],
        &rows,
    )?)
}

fn print_members(group: &str, members: &ConsumerConnection) -> Outcome {
    let count = members.connection_set.len();
    output::line(&format!(
        "group {group} has {count} members ({:?})",
        members.message_model
    ))?;
    let rows: Vec<Vec<String>> = members
        .connection_set
        .iter()
        .map(|member| {
            vec![
                member.client_id.clone(),
                member.client_addr.clone(),
                member.language.clone(),
            ]
        })
        .collect();
    Ok(output::table(&["client", "address", "language"], &rows)?)
}
