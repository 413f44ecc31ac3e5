//! `gantry status`: how every replica stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::failure::{Failure, Outcome};
use super::layout::NodePlace;
use super::output::{self, Format, note};
use crate::client::status::{self, NodeStatus, ReplicaStatus};
use crate::client::{Client, ClientError};

const DEFAULT_HTTP: &str = "127.0.0.1:5557";

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// HTTP addresses of the nodes. Default: those of `gantry dev` in --data, else 127.0.0.1:5557.
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        conflicts_with = "namesrv"
    )]
    http: Vec<String>,
    /// Ask name servers instead, "host:port;host:port": shows the leader of each group only.
    #[arg(long, value_name = "HOST:PORT;...")]
    namesrv: Option<String>,
    /// Directory of a `gantry dev` cluster on this machine.
    #[arg(long, default_value = "./data", value_name = "DIR")]
    data: PathBuf,
    /// Print nothing; exit with 0 if the nodes are ready, else with 1. For health checks.
    #[arg(long, conflicts_with = "namesrv")]
    ready: bool,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: StatusArgs) -> Outcome {
    if let Some(namesrv) = &args.namesrv {
        return by_name_server(&Client::new(namesrv)?, args.output).await;
    }
    let addresses = http_addresses(&args.http, &args.data)?;
    if args.ready {
        return are_ready(&addresses).await;
    }
    let mut answers = Vec::new();
    for address in &addresses {
        answers.push((address.clone(), status::get(address).await));
    }
    match args.output {
        Format::Json => output::json(&as_json(&answers))?,
        Format::Table => as_table(&answers)?,
    }
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        return Err(Failure::new(format!(
            "no node answers at {}. Name the HTTP address of a node with --http HOST:PORT (`http.bind` \
             in its configuration), or the directory of a `gantry dev` cluster with --data.",
            addresses.join(", ")
        )));
    }
    Ok(())
}

/// HTTP addresses of nodes: those given, those of a `gantry dev` cluster in `data`, or the default one.
pub(super) fn http_addresses(given: &[String], data: &Path) -> Result<Vec<String>, Failure> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let places = NodePlace::all_in(data)?;
    if places.is_empty() {
        return Ok(vec![DEFAULT_HTTP.to_string()]);
    }
    Ok(places.into_iter().map(|place| place.http).collect())
}

async fn are_ready(addresses: &[String]) -> Outcome {
    for address in addresses {
        match status::ready(address).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => {
                return Err(Failure::new(format!("{address} is not ready: {reason}")));
            }
            Err(error) => return Err(Failure::new(error.to_string())),
        }
    }
    Ok(())
}

type Answers = [(String, Result<NodeStatus, ClientError>)];

fn as_json(answers: &Answers) -> serde_json::Value {
    let nodes = answers.iter().map(|(http, answer)| match answer {
        Ok(status) => {
            let mut node = serde_json::to_value(status).expect("a status has only text keys");
            node["http"] = json!(http);
            node
        }
        Err(error) => json!({ "http": http, "error": error.to_string() }),
    });
    json!({ "nodes": nodes.collect::<Vec<_>>() })
}

fn as_table(answers: &Answers) -> Outcome {
    let replicas = || {
        answers
            .iter()
            .filter_map(|(_, answer)| answer.as_ref().ok())
    };
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for replica in replicas().flat_map(|status| &status.groups) {
        let committed = newest.entry(&replica.name).or_default();
        *committed = (*committed).max(replica.committed.unwrap_or(0));
    }
    let mut rows = Vec::new();
    for status in replicas() {
        for replica in &status.groups {
            let index =
                |index: Option<u64>| index.map_or("-".to_string(), |index| index.to_string());
            let lag = newest[replica.name.as_str()].saturating_sub(replica.applied.unwrap_or(0));
            rows.push(vec![
                status.node.to_string(),
                replica.name.clone(),
                replica.role.clone(),
                replica
                    .leader
                    .map_or("none".to_string(), |leader| leader.to_string()),
                replica.term.to_string(),
                index(replica.last),
                index(replica.committed),
                index(replica.applied),
                lag.to_string(),
                output::bytes(replica.disk_bytes),
                replica.damage.holes.len().to_string(),
                if status.ready { "yes" } else { "no" }.to_string(),
            ]);
        }
    }
    rows.sort_by(|a, b| (&a[1], &a[0]).cmp(&(&b[1], &b[0])));
    let headings = [
        "node",
        "group",
        "role",
        "leader",
        "term",
        "last",
        "committed",
        "applied",
        "lag",
        "disk",
        "holes",
        "ready",
    ];
    if !rows.is_empty() {
        output::table(&headings, &rows)?;
    }
    let replicas: Vec<&ReplicaStatus> = replicas().flat_map(|status| &status.groups).collect();
    waiting_as_tables(&replicas)?;
    for (_, answer) in answers {
        if let Err(error) = answer {
            note(&format!("no answer: {error}"));
        }
    }
    Ok(())
}

/// What waits in each group, and for whom, as the replica that has applied most knows it. Nothing is printed
/// where nothing waits.
fn waiting_as_tables(replicas: &[&ReplicaStatus]) -> Outcome {
    let mut newest: BTreeMap<&str, &ReplicaStatus> = BTreeMap::new();
    for replica in replicas {
        let known = newest.entry(&replica.name).or_insert(replica);
        if replica.applied > known.applied {
            *known = replica;
        }
    }
    let (mut groups, mut consumers) = (Vec::new(), Vec::new());
    for (name, replica) in newest {
        let waiting = &replica.waiting;
        let counts = [waiting.timers, waiting.half_messages, waiting.leases];
        if counts.iter().any(|count| *count > 0) {
            let counts = counts.iter().map(u64::to_string);
            groups.push(std::iter::once(name.to_string()).chain(counts).collect());
        }
        for held in &waiting.consumers {
            consumers.push(vec![
                held.group.clone(),
                name.to_string(),
                held.in_flight.to_string(),
                held.retries.to_string(),
                held.dead_letters.to_string(),
            ]);
        }
    }
    consumers.sort();
    if !groups.is_empty() {
        output::line("")?;
        output::table(&["group", "timers", "half messages", "popped"], &groups)?;
    }
    if !consumers.is_empty() {
        output::line("")?;
        let headings = [
            "consumer group",
            "group",
            "popped",
            "retries",
            "dead letters",
        ];
        output::table(&headings, &consumers)?;
    }
    Ok(())
}

/// What clients can see: which node takes the writes of each group, and which others read.
async fn by_name_server(client: &Client, format: Format) -> Outcome {
    let mut rows = Vec::new();
    let mut groups = Vec::new();
    for group in client.groups().await? {
        let mut brokers = Vec::new();
        for (id, address) in &group.addresses {
            let role = if *id == 0 { "leader" } else { "follower" };
            let info = client.runtime_info(address).await;
            let version = match &info {
                Ok(info) => info
                    .table
                    .get("brokerVersionDesc")
                    .cloned()
                    .unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            rows.push(vec![
                group.name.clone(),
                id.to_string(),
                role.to_string(),
                address.clone(),
                version,
            ]);
            let info = info
                .map(|info| info.table)
                .map_err(|error| error.to_string());
            brokers.push(
                json!({ "id": id, "role": role, "address": address, "answers": info.is_ok(),
                "info": info.ok() }),
            );
        }
        groups.push(json!({ "name": group.name, "brokers": brokers }));
    }
    match format {
        Format::Json => output::json(&json!({ "groups": groups }))?,
        Format::Table => output::table(&["group", "id", "role", "address", "version"], &rows)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_each_node_and_why_one_does_not_answer() {
        let up = NodeStatus {
            node: 1,
            ready: true,
            ..NodeStatus::default()
        };
        let down = ClientError::Closed {
            address: "b:1".to_string(),
        };
        let value = as_json(&[("a:1".to_string(), Ok(up)), ("b:1".to_string(), Err(down))]);
        assert_eq!(value["nodes"][0]["http"], "a:1");
        assert_eq!(value["nodes"][0]["ready"], true);
        assert!(
            value["nodes"][1]["error"]
                .as_str()
                .is_some_and(|error| error.contains("b:1"))
        );
    }
}
