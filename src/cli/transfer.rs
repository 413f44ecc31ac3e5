//! `gantry transfer`: moves leadership of a broker group to a node.

use std::path::PathBuf;

use clap::Args;

use super::failure::{Failure, Outcome};
use super::{output, status};
use crate::client::transfer::transfer;

#[derive(Args, Debug)]
pub(super) struct TransferArgs {
    /// Name of the broker group.
    group: String,
    /// Number of the node that is to lead it from now on, until the nodes' processes end.
    #[arg(long, value_name = "NODE")]
    to: u16,
    /// HTTP address of any node. Default: those of `gantry dev` in --data, else 127.0.0.1:5557.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Directory of a `gantry dev` cluster on this machine.
    #[arg(long, default_value = "./data", value_name = "DIR")]
    data: PathBuf,
}

pub(super) async fn run(args: TransferArgs) -> Outcome {
    let addresses = match args.http {
        Some(address) => vec![address],
        None => status::http_addresses(&[], &args.data)?,
    };
    let mut last = None;
    // Any node will do; one that does not answer is not asked for long.
    for address in &addresses {
        match transfer(address, &args.group, args.to).await {
            Ok(Ok(())) => {
                let (group, node) = (&args.group, args.to);
                return Ok(output::line(&format!("node {node} leads {group}"))?);
            }
            Ok(Err(reason)) => return Err(Failure::new(reason)),
            Err(error) => last = Some(error),
        }
    }
    let reason = last.map_or("no node is known".to_string(), |error| error.to_string());
    Err(Failure::new(format!(
        "{reason}. Name the HTTP address of a node with --http HOST:PORT (`http.bind` in its configuration)."
    )))
}
