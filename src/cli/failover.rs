//! `gantry demo failover`: kills the leader of a group under load and shows what producers notice.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::arguments::duration;
use super::dev::{Interrupts, create_topic};
use super::failure::{Failure, Outcome};
use super::layout::{Layout, NodePlace};
use super::load::{Load, Report, count_lost};
use super::nodes::{Nodes, is_up};
use super::output::{self, Format, Progress};
use crate::client::Client;

const TOPIC: &str = "failover-demo";
const QUEUES: i32 = 4;
const FIRST_BASE_PORT: u16 = 20_000;
const BASE_PORTS: u32 = 90;
const SHOWN_EVERY: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
pub(super) struct FailoverArgs {
    /// Directory of a running `gantry dev` cluster. Default: a cluster of its own, thrown away afterwards.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Broker group whose leader is killed. Default: the first.
    #[arg(long)]
    group: Option<String>,
    /// Producers that send at the same time, each waiting for its acknowledgement before the next message.
    #[arg(long, default_value_t = 4, value_name = "N")]
    producers: usize,
    /// How long to send before the kill, and again before the node is started again.
    #[arg(long, default_value = "3s", value_parser = duration, value_name = "TIME")]
    each: Duration,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct Figures {
    acked: u64,
    failed: u64,
    lost: u64,
    longest_gap_ms: f64,
    group_gap_ms: f64,
    killed_node: u16,
    group: String,
}

pub(super) async fn run(args: FailoverArgs) -> Outcome {
    let mut progress = Progress::new();
    match &args.data {
        Some(data) => {
            let data = data.canonicalize().map_err(|error| {
                Failure::usage(format!(
                    "{}: {error}; start `gantry dev` first",
                    data.display()
                ))
            })?;
            let mut nodes = attach(NodePlace::all_in(&data)?).await?;
            let figures = measure(&args, &mut nodes, &mut progress).await?;
            conclude(&args, &figures)
        }
        None => with_own_cluster(&args, &mut progress).await,
    }
}

async fn attach(places: Vec<NodePlace>) -> Result<Nodes, Failure> {
    if places.is_empty() {
        return Err(Failure::usage(
            "--data has no node-1.toml: is it the directory of `gantry dev`?",
        ));
    }
    for place in &places {
        if !is_up(place).await {
            return Err(Failure::new(format!(
                "node {} does not answer at {}. Start it: gantry server --config {}",
                place.id,
                place.http,
                place.config.display()
            )));
        }
    }
    Ok(Nodes::attach(places))
}

async fn with_own_cluster(args: &FailoverArgs, progress: &mut Progress) -> Outcome {
    let data = std::env::temp_dir().join(format!("gantry-demo-{}", std::process::id()));
    // Two of these at the same time begin their search for free ports at different places.
    let base_port = FIRST_BASE_PORT + (std::process::id() % BASE_PORTS) as u16 * 100;
    let layout = Layout {
        nodes: 3,
        groups: 3,
        base_port,
        data: data.clone(),
    };
    let mut interrupts = Interrupts::listen()?;
    let (layout, _claim) = layout.on_free_ports()?;
    let mut nodes = Nodes::start(layout.write()?)?;
    let outcome = tokio::select! {
        outcome = measure(args, &mut nodes, progress) => outcome,
        () = interrupts.next() => Err(Failure::new("interrupted")),
    };
    nodes.kill_all().await?;
    let concluded = outcome.and_then(|figures| conclude(args, &figures));
    if concluded.is_err() {
        output::note(&format!(
            "The cluster's logs and data are in {}",
            data.display()
        ));
        return concluded;
    }
    std::fs::remove_dir_all(&data)
        .map_err(|error| Failure::new(format!("cannot remove {}: {error}", data.display())))
}

async fn measure(
    args: &FailoverArgs,
    nodes: &mut Nodes,
    progress: &mut Progress,
) -> Result<Figures, Failure> {
    nodes.await_ready(&nodes.ids(), progress).await?;
    nodes.await_spread(progress).await;
    let group = choose_group(args, nodes)?;
    let client = Arc::new(Client::new(&nodes.namesrv())?);
    create_topic(&client, TOPIC, QUEUES).await?;
    let mut load = Load::start(Arc::clone(&client), TOPIC, args.producers.max(1));
    send_for(args.each, &load, "sending", progress).await;

    let leader = nodes.leader(&group).await;
    let leader = leader
        .ok_or_else(|| Failure::new(format!("{group} has no leader; see `gantry status`")))?;
    let killed_at = nodes.kill(leader).await?;
    let group_gap = load.probe(&group, killed_at).await?;
    progress.finish(&format!(
        "kill -9 of node {leader}, which led {group}: acknowledged again after {} ms",
        milliseconds(group_gap)
    ));
    send_for(
        args.each,
        &load,
        &format!("sending without node {leader}"),
        progress,
    )
    .await;

    let started = Instant::now();
    nodes.start_one(leader)?;
    nodes.await_ready(&[leader], progress).await?;
    progress.finish(&format!(
        "node {leader} is back after {} ms",
        started.elapsed().as_millis()
    ));
    send_for(args.each / 3, &load, "sending", progress).await;

    let report = load.finish().await;
    progress.show(&format!("reading {} messages back", report.acked.len()));
    let lost = count_lost(&client, TOPIC, &report.acked).await?;
    progress.finish(&format!(
        "read back: {lost} of {} acknowledged messages are missing",
        report.acked.len()
    ));
    if let Some(reason) = &report.first_failure {
        output::note(&format!("the first send that failed: {reason}"));
    }
    Ok(figures(report, lost, group_gap, (leader, group)))
}

fn choose_group(args: &FailoverArgs, nodes: &Nodes) -> Result<String, Failure> {
    let known: Vec<&String> = nodes.places()[0].groups.keys().collect();
    match &args.group {
        None => Ok(known[0].clone()),
        Some(group) if known.contains(&group) => Ok(group.clone()),
        Some(group) => {
            let known: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
            Err(Failure::usage(format!(
                "there is no group {group:?}; there are {}",
                known.join(", ")
            )))
        }
    }
}

async fn send_for(time: Duration, load: &Load, what: &str, progress: &mut Progress) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let (acked, failed) = load.counts();
        progress.show(&format!("{what}: {acked} acknowledged, {failed} failed"));
        tokio::time::sleep(SHOWN_EVERY.min(end.saturating_duration_since(Instant::now()))).await;
    }
}

fn figures(
    report: Report,
    lost: u64,
    group_gap: Duration,
    (node, group): (u16, String),
) -> Figures {
    Figures {
        acked: report.acked.len() as u64,
        failed: report.failed,
        lost,
        longest_gap_ms: milliseconds(report.longest_gap),
        group_gap_ms: milliseconds(group_gap),
        killed_node: node,
        group,
    }
}

/// With one decimal.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

fn conclude(args: &FailoverArgs, figures: &Figures) -> Outcome {
    match args.output {
        Format::Json => output::json(figures)?,
        Format::Table => output::table(
            &["what", "figure"],
            &[
                vec![
                    "acknowledged messages".to_string(),
                    figures.acked.to_string(),
                ],
                vec!["of these lost".to_string(), figures.lost.to_string()],
                vec!["failed sends".to_string(), figures.failed.to_string()],
                vec![
                    "longest wait of a producer".to_string(),
                    format!("{} ms", figures.longest_gap_ms),
                ],
                vec![
                    format!(
                        "kill -9 of node {} to the next write in {}",
                        figures.killed_node, figures.group
                    ),
                    format!("{} ms", figures.group_gap_ms),
                ],
            ],
        )?,
    }
    if figures.lost > 0 || figures.failed > 0 {
        return Err(Failure::new(
            "messages were lost or sends failed: this must not happen, please report it",
        ));
    }
    Ok(())
}
