//! `gantry dev`: a whole cluster on this machine, each node a process of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use clap::builder::PossibleValuesParser;
use gantry_protocol::headers::CreateTopicRequest;
use gantry_protocol::topic::DEFAULT_TOPIC;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::{Failure, Outcome};
use super::layout::Layout;
use super::nodes::Nodes;
use super::output::{self, Progress, note};
use crate::client::{Acked, Client, Outgoing, Producer, QueueAt};

const HELLO_TOPIC: &str = "hello";
const HELLO_BODY: &str = "Hello from Gantry";
/// Group of tools; every broker has it.
const TOOLS_GROUP: &str = "TOOLS_CONSUMER";

#[derive(Args, Debug)]
pub(super) struct DevArgs {
    /// Number of nodes; each group has a replica on each of them.
    #[arg(long, default_value = "3", value_parser = PossibleValuesParser::new(["1", "3", "5"]))]
    nodes: String,
    /// Number of broker groups, led by the nodes in turn.
    #[arg(long, default_value_t = 3, value_name = "N")]
    groups: u16,
    /// Directory of configuration, logs and messages; used again when it is there.
    #[arg(long, default_value = "./data", value_name = "DIR")]
    data: PathBuf,
    /// First port; node n has the hundred from BASE + 100 (n - 1), its name server first.
    #[arg(long, default_value_t = 9876, value_name = "BASE")]
    base_port: u16,
    /// Print one line of JSON when all is ready, and nothing else, on standard output.
    #[arg(long)]
    json: bool,
    /// Do not send a first message to the topic "hello".
    #[arg(long)]
    no_hello: bool,
}

/// What ends the command.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupts {
    pub(super) fn listen() -> Result<Interrupts, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(format!("cannot receive signals: {error}")))
        };
        Ok(Interrupts {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next SIGINT, SIGTERM or SIGHUP.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

pub(super) async fn run(args: DevArgs) -> Outcome {
    let nodes = args.nodes.parse().expect("clap lets only numbers through");
    let layout = Layout {
        nodes,
        groups: args.groups,
        base_port: args.base_port,
        data: args.data.clone(),
    };
    let mut interrupts = Interrupts::listen()?;
    let mut progress = Progress::new();
    layout.check_ports_free()?;
    let mut nodes = Nodes::start(layout.write()?)?;
    let ended = tokio::select! {
        ended = serve(&args, &mut nodes, &mut progress) => ended,
        () = interrupts.next() => Ok(()),
    };
    let stopped = nodes.stop(interrupts.next(), &mut progress).await;
    if ended.is_ok() && stopped.is_ok() {
        progress.finish("stopped; the data stays");
    }
    ended.and(stopped)
}

/// Never ends well by itself: the caller stops waiting for it.
async fn serve(args: &DevArgs, nodes: &mut Nodes, progress: &mut Progress) -> Outcome {
    let started = Instant::now();
    nodes.await_ready(&nodes.ids(), progress).await?;
    nodes.await_spread(progress).await;
    let first = match args.no_hello {
        true => None,
        false => Some(hello(&nodes.namesrv()).await?),
    };
    progress.finish(&format!(
        "all nodes are ready after {} ms",
        started.elapsed().as_millis()
    ));
    if args.json {
        output::json(&describe(nodes))?;
    } else {
        welcome(nodes, first.as_ref()).await?;
    }
    loop {
        let exit = nodes.next_exit().await;
        let config = nodes.places().iter().find(|place| place.id == exit.node);
        let config = config
            .map(|place| place.config.display().to_string())
            .unwrap_or_default();
        note(&format!(
            "node {} ended: {}. The others go on. To start it again:\n  {} server --config {config}",
            exit.node,
            exit.status,
            program()
        ));
    }
}

/// What `--json` prints; tests and tools rely on its form.
fn describe(nodes: &Nodes) -> serde_json::Value {
    let described = nodes.places().iter().map(|place| {
        serde_json::json!({
            "id": place.id,
            "pid": nodes.pid(place.id),
            "namesrv": place.namesrv,
            "grpc": null,
            "http": place.http,
            "groups": place.groups,
        })
    });
    serde_json::json!({ "nodes": described.collect::<Vec<_>>() })
}

async fn welcome(nodes: &Nodes, first: Option<&(Acked, Duration)>) -> Outcome {
    let mut rows = Vec::new();
    for place in nodes.places() {
        let mut leads = Vec::new();
        for group in place.groups.keys() {
            if nodes.leader(group).await == Some(place.id) {
                leads.push(group.as_str());
            }
        }
        let pid = nodes
            .pid(place.id)
            .map(|pid| pid.to_string())
            .unwrap_or_default();
        rows.push(vec![
            place.id.to_string(),
            pid,
            place.namesrv.clone(),
            place.http.clone(),
            leads.join(" "),
        ]);
    }
    output::table(&["node", "pid", "name server", "http", "leads"], &rows)?;
    if let Some((acked, took)) = first {
        output::line(&format!(
            "\nFirst message: on disk on a majority of {} after {} ms (queue {}, offset {}), and read back.",
            acked.broker,
            took.as_millis(),
            acked.queue,
            acked.offset
        ))?;
    }
    let (program, namesrv) = (program(), nodes.namesrv());
    let data = nodes.places()[0].config.parent().unwrap_or(Path::new("."));
    output::line(&format!(
        "
Clients connect to the name servers  {namesrv}

Try, in another terminal:
  export NAMESRV_ADDR=\"{namesrv}\"
  {program} send --topic hello --body hi --count 10
  {program} consume --topic hello --group readers
  {program} status --data {}
  {program} demo failover --data {}     kills the leader of a group under load

Ctrl-C stops all nodes; the data stays.",
        data.display(),
        data.display()
    ))?;
    Ok(())
}

/// Sends a message and reads it at the place that the acknowledgement names.
async fn hello(namesrv: &str) -> Result<(Acked, Duration), Failure> {
    let client = Arc::new(Client::new(namesrv)?);
    create_topic(&client, HELLO_TOPIC, 4).await?;
    let started = Instant::now();
    let message = Outgoing {
        body: Bytes::from_static(HELLO_BODY.as_bytes()),
        ..Outgoing::default()
    };
    let acked = Producer::new(Arc::clone(&client), HELLO_TOPIC)
        .send(&message)
        .await?;
    let took = started.elapsed();
    let groups = client.groups().await?;
    let group = groups.into_iter().find(|group| group.name == acked.broker);
    let group =
        group.ok_or_else(|| Failure::new(format!("{} is not in the cluster", acked.broker)))?;
    let at = QueueAt {
        group,
        topic: HELLO_TOPIC.to_string(),
        queue: acked.queue,
        consumer: TOOLS_GROUP.to_string(),
        sql: None,
    };
    let pulled = client
        .pull(&at, acked.offset, Duration::from_secs(3))
        .await?;
    match pulled.messages.first() {
        Some(message) if message.body == HELLO_BODY.as_bytes() => Ok((acked, took)),
        _ => Err(Failure::new(
            "the first message was acknowledged and cannot be read: please report this",
        )),
    }
}

/// Creates a topic in every group, or leaves it as it is.
pub(super) async fn create_topic(client: &Client, topic: &str, queues: i32) -> Outcome {
    let header = CreateTopicRequest {
        topic,
        default_topic: DEFAULT_TOPIC,
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm: 6,
        topic_filter_type: "SINGLE_TAG",
        topic_sys_flag: Some(0),
        order: Some(false),
        ..CreateTopicRequest::default()
    };
    for group in client.groups().await? {
        client.create_topic(&group, &header).await?;
    }
    Ok(())
}

/// This program as the user would type it.
pub(super) fn program() -> String {
    let Ok(path) = std::env::current_exe() else {
        return "gantry".to_string();
    };
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here)
        .unwrap_or(&path)
        .display()
        .to_string()
}
