//! The commands and their shared flags; runs the one that was asked for.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::failure::Failure;
use super::output::{Format, note};
use super::{
    bench, consume, dev, dlq, failover, group, mqadmin, send, server, status, topic, transfer, tx,
};
use crate::client::Client;
use crate::units;

/// A message broker for Apache RocketMQ clients whose CommitLog is a Raft log.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node of a cluster.
    Server(server::ServerArgs),
    /// Run a whole cluster on this machine, to develop against.
    Dev(dev::DevArgs),
    /// Show roles, terms, offsets and lag of every replica.
    Status(status::StatusArgs),
    /// Create, list, describe and delete topics.
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// List and describe consumer groups.
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Move leadership of a broker group to a node.
    Transfer(transfer::TransferArgs),
    /// Send messages: from a flag or one for each line of standard input.
    Send(send::SendArgs),
    /// Read messages from all queues of a topic.
    Consume(consume::ConsumeArgs),
    /// List, show and send back messages that consumers gave up.
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// List open transactions and end them by hand.
    #[command(subcommand)]
    Tx(tx::TxCommand),
    /// RocketMQ's own command names and flags.
    Mqadmin(mqadmin::MqadminArgs),
    /// See what the cluster does when something breaks.
    #[command(subcommand)]
    Demo(DemoCommand),
    /// Measure throughput, latency and failover of any RocketMQ.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

#[derive(Debug, Subcommand)]
enum DemoCommand {
    /// Kill the leader of a group under load; shows the gap and that nothing was lost.
    Failover(failover::FailoverArgs),
}

/// Where the cluster is, and how to print.
#[derive(Args, Clone, Debug)]
pub(super) struct ClusterArgs {
    /// Name servers, "host:port;host:port". Every Gantry node is one.
    #[arg(
        long,
        env = "NAMESRV_ADDR",
        default_value = "127.0.0.1:9876",
        value_name = "HOST:PORT;..."
    )]
    pub(super) namesrv: String,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

impl ClusterArgs {
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(&self.namesrv)?)
    }
}

/// A duration with a unit, or a number of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => units::parse_duration(text),
    }
}

/// Runs the program: reads the arguments, does what they say, reports the outcome as an exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        // The writers of the logs and the kernel's network and disk work want the other half. More
        // workers wake each other for nothing (docs/performance.md).
        .worker_threads((cores / 2).max(1))
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            note(&format!("gantry: cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(arguments.command));
    // What still runs in the background has nothing left to do for this command.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                note(&format!("gantry: {}", failure.message));
            }
            ExitCode::from(failure.code)
        }
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Server(args) => server::run(args).await,
        Command::Dev(args) => dev::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Topic(command) => topic::run(command).await,
        Command::Group(command) => group::run(command).await,
        Command::Transfer(args) => transfer::run(args).await,
        Command::Send(args) => send::run(args).await,
        Command::Consume(args) => consume::run(args).await,
        Command::Dlq(command) => dlq::run(command).await,
        Command::Tx(command) => tx::run(command).await,
        Command::Mqadmin(args) => mqadmin::run(args).await,
        Command::Demo(DemoCommand::Failover(args)) => failover::run(args).await,
        Command::Bench(command) => bench::run(command).await,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent_and_every_flag_is_documented() {
        Arguments::command().debug_assert();
        let mut unseen = vec![Arguments::command()];
        while let Some(command) = unseen.pop() {
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            unseen.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_in_seconds() {
        assert_eq!(duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert!(duration("soon").is_err());
    }
}
