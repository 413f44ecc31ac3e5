//! `gantry tx`: open transactions, and ending them by hand.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use gantry_protocol::headers::{EndTransactionRequest, set_broker_name};
use gantry_protocol::message::sys_flags;
use gantry_protocol::{RemotingCommand, RequestCode};
use serde_json::json;

use super::arguments::ClusterArgs;
use super::failure::{Failure, Outcome};
use super::output::{self, Format, note};
use super::status::http_addresses;
use crate::client::status::{OpenTransaction, open_transactions};

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(super) enum TxCommand {
    /// List the transactions that are open, the oldest first; 1000 of each group at most.
    List(ListArgs),
    /// Commit a transaction: its message becomes visible.
    Commit(EndArgs),
    /// Roll a transaction back: its message is never seen.
    Rollback(EndArgs),
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Args, Debug)]
pub(super) struct EndArgs {
    /// The transaction, as `gantry tx list` names it.
    id: String,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Args, Debug)]
pub(super) struct NodeArgs {
    /// HTTP addresses of all nodes. Default: those of `gantry dev` in --data, else 127.0.0.1:5557.
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    http: Vec<String>,
    /// Directory of a `gantry dev` cluster on this machine.
    #[arg(long, default_value = "./data", value_name = "DIR")]
    data: PathBuf,
}

impl NodeArgs {
    /// What the leaders say is open. A node that does not answer may be a leader: that is told.
    async fn open(&self) -> Result<Vec<OpenTransaction>, Failure> {
        let mut open = Vec::new();
        let mut answered = false;
        for address in http_addresses(&self.http, &self.data)? {
            match open_transactions(&address).await {
                Ok(found) => {
                    answered = true;
                    open.extend(found);
                }
                Err(error) => note(&format!("{address}: {error}")),
            }
        }
        if !answered {
            return Err(Failure::new(
                "no node answers; name the HTTP addresses of the nodes with --http",
            ));
        }
        open.sort_by_key(|transaction| transaction.born_ms);
        Ok(open)
    }
}

pub(super) async fn run(command: TxCommand) -> Outcome {
    match command {
        TxCommand::List(args) => list(args).await,
        TxCommand::Commit(args) => end(args, sys_flags::TRANSACTION_COMMIT).await,
        TxCommand::Rollback(args) => end(args, sys_flags::TRANSACTION_ROLLBACK).await,
    }
}

async fn list(args: ListArgs) -> Outcome {
    let open = args.nodes.open().await?;
    match args.cluster.output {
        Format::Json => output::json(&json!({ "transactions": open }))?,
        Format::Table if open.is_empty() => note("no transaction is open"),
        Format::Table => {
            let row = |open: &OpenTransaction| {
                vec![
                    id_of(open),
                    open.topic.clone(),
                    open.producer.clone(),
                    open.key.clone(),
                    open.checks.to_string(),
                    if open.given_up { "given up" } else { "open" }.to_string(),
                ]
            };
            let rows: Vec<_> = open.iter().map(row).collect();
            output::table(&["id", "topic", "producer", "key", "asked", "state"], &rows)?;
        }
    }
    Ok(())
}

/// What a transaction is called here: its broker group, and where its half message is.
fn id_of(open: &OpenTransaction) -> String {
    format!("{}/{}", open.group, open.place)
}

async fn end(args: EndArgs, how: i32) -> Outcome {
    let open = args.nodes.open().await?;
    let Some(open) = open.into_iter().find(|open| id_of(open) == args.id) else {
        return Err(Failure::new(format!(
            "no open transaction is called {:?}; `gantry tx list` shows those there are",
            args.id
        )));
    };
    let client = args.cluster.client()?;
    let groups = client.groups().await?;
    let Some(group) = groups.into_iter().find(|group| group.name == open.group) else {
        return Err(Failure::new(format!(
            "the name servers do not know broker group {}",
            open.group
        )));
    };
    let header = EndTransactionRequest {
        topic: Some(&open.topic),
        producer_group: &open.producer,
        tran_state_table_offset: open.offset,
        commit_log_offset: open.place,
        commit_or_rollback: how,
        // The time that a producer gave itself does not bind whoever sits here.
        from_transaction_check: Some(true),
        msg_id: &open.key,
        transaction_id: Some(&open.key),
    };
    let mut request = RemotingCommand::request(RequestCode::END_TRANSACTION, 0);
    header.write(&mut request.fields);
    set_broker_name(&mut request.fields, &group.name);
    client.ask_group(&group, request, TIMEOUT).await?;
    match args.cluster.output {
        Format::Json => output::json(&json!({ "ended": id_of(&open) }))?,
        Format::Table => output::line(&format!("{} has ended", id_of(&open)))?,
    }
    Ok(())
}
