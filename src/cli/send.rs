//! `gantry send`: synchronous sends, tried again on another broker as stock producers do.

use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use gantry_protocol::topic;
use serde_json::json;

use super::arguments::ClusterArgs;
use super::failure::{Failure, Outcome};
use super::output::{self, Format, note};
use crate::client::{Acked, Outgoing, Producer};

/// So many failures one after the other, and the rest is not tried.
const FAILURES_IN_A_ROW_MAX: u64 = 3;

#[derive(Args, Debug)]
pub(super) struct SendArgs {
    /// Topic to send to; created by the broker if that is switched on.
    #[arg(short, long)]
    topic: String,
    /// Body of the message; the letter n in braces becomes its number, from 1. Default: each line of
    /// standard input is one message.
    #[arg(short, long, value_name = "TEXT")]
    body: Option<String>,
    /// Tag that consumers may select by.
    #[arg(long)]
    tag: Option<String>,
    /// Keys to find the message by, separated by blanks.
    #[arg(long, value_name = "KEYS")]
    key: Option<String>,
    /// How often the body is sent.
    #[arg(short, long, default_value_t = 1, requires = "body", value_name = "N")]
    count: u64,
    /// Pause between two messages, in milliseconds.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    interval_ms: u64,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) async fn run(args: SendArgs) -> Outcome {
    topic::check_topic(&args.topic).map_err(|error| Failure::usage(error.to_string()))?;
    let client = Arc::new(args.cluster.client()?);
    let mut sender = Sender {
        producer: Producer::new(client, &args.topic),
        format: args.cluster.output,
        sent: Vec::new(),
        failed: 0,
        failed_in_a_row: 0,
        last_failure: None,
    };
    match &args.body {
        Some(body) => {
            for number in 1..=args.count {
                sender
                    .send(&args, body.replace("{n}", &number.to_string()))
                    .await?;
                if sender.gives_up() {
                    break;
                }
            }
        }
        None => {
            for line in std::io::stdin().lock().lines() {
                let line =
                    line.map_err(|e| Failure::new(format!("cannot read standard input: {e}")))?;
                sender.send(&args, line).await?;
                if sender.gives_up() {
                    break;
                }
            }
        }
    }
    sender.finish()
}

struct Sender {
    producer: Producer,
    format: Format,
    sent: Vec<Acked>,
    failed: u64,
    failed_in_a_row: u64,
    last_failure: Option<Failure>,
}

impl Sender {
    async fn send(&mut self, args: &SendArgs, body: String) -> Outcome {
        if args.interval_ms > 0 && !self.sent.is_empty() {
            tokio::time::sleep(Duration::from_millis(args.interval_ms)).await;
        }
        let message = Outgoing {
            body: Bytes::from(body),
            tag: args.tag.clone(),
            keys: args.key.clone(),
            ..Outgoing::default()
        };
        match self.producer.send(&message).await {
            Ok(acked) => {
                self.failed_in_a_row = 0;
                if self.format == Format::Table {
                    self.print(&acked)?;
                }
                self.sent.push(acked);
            }
            Err(failure) => {
                self.failed += 1;
                self.failed_in_a_row += 1;
                // The last one is what the command ends with.
                if let Some(earlier) = self.last_failure.replace(failure.into()) {
                    note(&earlier.message);
                }
            }
        }
        Ok(())
    }

    /// Rows come as messages are acknowledged, so the columns are as wide as ids and names usually are.
    fn print(&self, acked: &Acked) -> Outcome {
        if self.sent.is_empty() {
            output::line(&format!("{:<32}  {:<10}  queue  offset", "msgId", "broker"))?;
        }
        let Acked {
            message_id,
            broker,
            queue,
            offset,
            ..
        } = acked;
        Ok(output::line(&format!(
            "{message_id:<32}  {broker:<10}  {queue:<5}  {offset}"
        ))?)
    }

    fn gives_up(&self) -> bool {
        self.failed_in_a_row >= FAILURES_IN_A_ROW_MAX
    }

    fn finish(self) -> Outcome {
        if self.format == Format::Json {
            let messages = self.sent.iter().map(|acked| {
                json!({ "msg_id": acked.message_id, "unique_key": acked.unique_key, "broker": acked.broker,
                    "queue": acked.queue, "offset": acked.offset, "attempts": acked.attempts })
            });
            output::json(&json!({
                "sent": self.sent.len(), "failed": self.failed, "messages": messages.collect::<Vec<_>>(),
            }))?;
        }
        match self.last_failure {
            None => Ok(()),
            Some(failure) => {
                let counts = format!("{} sent, {} failed", self.sent.len(), self.failed);
                Err(Failure {
                    message: format!("{counts}. {}", failure.message),
                    ..failure
                })
            }
        }
    }
}
