//! `gantry server`: one node, until a signal asks it to stop.

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use super::failure::{Failure, Outcome};
use crate::config::ConfigFile;
use crate::node;

#[derive(Args, Debug)]
pub(super) struct ServerArgs {
    /// The node's configuration, TOML. GANTRY_NODE, GANTRY_DATA, GANTRY_CLUSTER, GANTRY_PEER_SECRET and
    /// GANTRY_INSECURE replace its keys of those names.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value_t)]
    log: LogForm,
    /// What is logged: error, warn, info, or parts as in "info,openraft=info". Without parts openraft only
    /// warns.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Stop when standard input ends: the process that started this node is gone.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogForm {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

pub(super) async fn run(args: ServerArgs) -> Outcome {
    start_logging(args.log, &args.log_level)?;
    raise_open_files();
    let config = ConfigFile::load(&args.config, std::env::vars())
        .and_then(ConfigFile::resolve)
        .map_err(|error| Failure::usage(format!("{error}")))?;
    let (stop, stopped) = oneshot::channel();
    watch_signals(stop, args.stop_with_stdin)?;
    let shutdown = async {
        // An error means that nobody can ask any more; that is a reason to stop as well.
        let _ = stopped.await;
    };
    node::run(config, shutdown)
        .await
        .map_err(|error| Failure::new(error.to_string()))
}

/// Raises the soft limit of open files, often 1024, to the hard one: every client is a descriptor.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(files = ?limit.maximum, "limit of open files"),
        Err(error) => {
            tracing::warn!(%error, files = ?limit.current, "the limit of open files stays what it is");
        }
    }
}

fn start_logging(form: LogForm, level: &str) -> Outcome {
    // openraft tells every step of every election as information, and warns at every try to reach a node
    // that is down.
    const QUIET: &str = "openraft=warn,openraft::replication=error,\
        openraft::engine::handler::replication_handler=error,openraft::core::heartbeat=error";
    let directives = match level {
        "info" | "debug" | "trace" => format!("{level},{QUIET}"),
        _ => level.to_string(),
    };
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| Failure::usage(format!("--log-level {level:?}: {error}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match form {
        LogForm::Text => builder.try_init(),
        LogForm::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::new(format!("cannot start logging: {error}")))
}

/// The first SIGTERM or SIGINT asks the node to drain, a second one ends the process at once: the log is
/// made for that.
fn watch_signals(stop: oneshot::Sender<()>, with_stdin: bool) -> Outcome {
    let cannot = |error| Failure::new(format!("cannot receive signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let (orphan, orphaned) = oneshot::channel();
    let waiting = with_stdin.then(|| std::thread::spawn(move || await_end_of_stdin(orphan)));
    tokio::spawn(async move {
        let parent_gone = async {
            if waiting.is_none() || orphaned.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let cause = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = parent_gone => "the end of the process that started it",
        };
        tracing::info!(cause, "stopping; a second signal ends the process at once");
        // The node may have ended by itself, and then waits for nobody.
        let _ = stop.send(());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("second signal: ending without draining");
        std::process::exit(1);
    });
    Ok(())
}

/// A thread of its own, because reading standard input blocks and cannot be given up.
fn await_end_of_stdin(orphan: oneshot::Sender<()>) {
    let mut buffer = [0; 64];
    while matches!(std::io::stdin().read(&mut buffer), Ok(count) if count > 0) {}
    // The receiver is gone when the node stops for another reason.
    let _ = orphan.send(());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_readme_are_configurations() {
        for readme in [
            include_str!("../../README.md"),
            include_str!("../../README.zh-CN.md"),
        ] {
            let (_, rest) = readme.split_once("```toml\n").unwrap();
            let (example, _) = rest.split_once("```").unwrap();
            let config = ConfigFile::parse(example)
                .and_then(ConfigFile::resolve)
                .unwrap();
            assert_eq!((config.peers.len(), config.groups.len()), (3, 3));
        }
    }
}
