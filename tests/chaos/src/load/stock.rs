//! The C++ client as one more sender: a program beside the stock-client tests sends and prints what it was
//! told, and its acks are judged with the others. That client does not tell the queue of an ack; it is
//! found in the dumps.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use gantry_checker::event::{Send, Sent};
use gantry_checker::{Answer, Event, Queue, Request, What};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::net::NODES;
use crate::node::namesrv_address;
use crate::shell::{Failure, Outcome, failure, while_doing};

/// Senders, and their pause after each send.
const TASKS: &str = "4";
const PAUSE_MS: &str = "5";
/// Ids of a round below this are the harness's own.
const FIRST_ID: u64 = 1 << 31;
/// The client may send a message again five times by itself.
const TRIES: u32 = 6;
/// It waits up to 3 s for each of its tries.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// The senders at work.
pub struct Stock {
    process: Child,
    reading: JoinHandle<Outcome<Vec<Line>>>,
    topic: String,
    first_id: u64,
}

/// A line of the program.
#[derive(Debug, Deserialize)]
struct Line {
    begin: Option<u64>,
    end: Option<u64>,
    by: String,
    id: u64,
    #[serde(default)]
    crc: u32,
    offset: Option<u64>,
}

/// Where the program is.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients")
}

/// Whether the client is installed.
pub fn probe() -> Result<(), String> {
    let python = directory().join(".venv/bin/python");
    if python.exists() {
        return Ok(());
    }
    Err(format!(
        "{} is missing; tests/clients/run.sh cpp installs it",
        python.display()
    ))
}

/// Whether an id is one of these senders'.
pub fn is_stock(id: u64) -> bool {
    id & FIRST_ID != 0
}

impl Stock {
    /// Starts the senders of a round.
    pub fn start(round: u64, topic: &str, log: &Path) -> Outcome<Self> {
        let namesrv: Vec<String> = (0..NODES).map(namesrv_address).collect();
        let first_id = round << 32 | FIRST_ID;
        let log = File::create(log).map_err(while_doing("creating a log"))?;
        let mut process = Command::new(directory().join(".venv/bin/python"))
            .arg("history.py")
            .args([
                &namesrv.join(";"),
                topic,
                TASKS,
                &first_id.to_string(),
                PAUSE_MS,
            ])
            .current_dir(directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(while_doing("starting the C++ client"))?;
        let output = process.stdout.take();
        let output = output.ok_or_else(|| Failure("the C++ client has no output".to_string()))?;
        let reading = tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            let mut read = Vec::new();
            while let Some(line) = lines
                .next_line()
                .await
                .map_err(while_doing("reading the C++ client"))?
            {
                read.push(serde_json::from_str(&line).map_err(while_doing(line.clone()))?);
            }
            Ok(read)
        });
        Ok(Self {
            process,
            reading,
            topic: topic.to_string(),
            first_id,
        })
    }

    /// Ends the senders and gives their events. `places` says where each of their messages is.
    pub async fn stop(mut self) -> Outcome<Told> {
        drop(self.process.stdin.take());
        let ended = tokio::time::timeout(STOP_PATIENCE, self.process.wait()).await;
        let ended = ended.map_err(|_| Failure("the C++ client does not end".to_string()))?;
        let status = ended.map_err(while_doing("ending the C++ client"))?;
        if !status.success() {
            return failure(format!("the C++ client ended with {status}; see stock.log"));
        }
        let lines = self
            .reading
            .await
            .map_err(while_doing("reading the C++ client"))??;
        Ok(Told {
            lines,
            topic: self.topic,
            first_id: self.first_id,
        })
    }
}

/// What the client was told.
pub struct Told {
    lines: Vec<Line>,
    topic: String,
    first_id: u64,
}

impl Told {
    /// Writes the events as a history file; gives the number of acks. `places` has the queue of each
    /// message that a dump has shown.
    pub fn write(&self, places: &HashMap<u64, Vec<(Queue, u64)>>, path: &Path) -> Outcome<u64> {
        let file = File::create(path).map_err(while_doing("creating a history"))?;
        let mut out = BufWriter::new(file);
        let mut acks = 0;
        for line in &self.lines {
            let call = line.id - self.first_id;
            let (at, what) = match (line.begin, line.end) {
                (Some(at), _) => (
                    at,
                    What::Invoke {
                        call,
                        request: Request::Send(self.send(line)),
                    },
                ),
                (_, Some(at)) => (at, self.ended(line, call, places)?),
                _ => {
                    return failure(format!(
                        "the C++ client printed a line without a time: {line:?}"
                    ));
                }
            };
            acks += u64::from(matches!(what, What::Ok { .. }));
            let event = Event {
                at,
                by: line.by.clone(),
                what,
            };
            serde_json::to_writer(&mut out, &event).map_err(while_doing("writing a history"))?;
            out.write_all(b"\n")
                .map_err(while_doing("writing a history"))?;
        }
        out.flush().map_err(while_doing("writing a history"))?;
        Ok(acks)
    }

    fn send(&self, line: &Line) -> Send {
        Send {
            topic: self.topic.clone(),
            id: line.id,
            crc: line.crc,
            tries: TRIES,
            half: false,
            delay_ms: None,
            once_ms: None,
        }
    }

    fn ended(
        &self,
        line: &Line,
        call: u64,
        places: &HashMap<u64, Vec<(Queue, u64)>>,
    ) -> Outcome<What> {
        let Some(offset) = line.offset else {
            return Ok(What::Info { call, code: None });
        };
        let seen = places.get(&line.id).map_or(&[][..], Vec::as_slice);
        let Some((queue, _)) = seen.iter().find(|(_, at)| *at == offset) else {
            return failure(format!(
                "LOST: message {:x} of the C++ client was acked at offset {offset} of {}, and is at {seen:?}",
                line.id, self.topic
            ));
        };
        Ok(What::Ok {
            call,
            answer: Answer::Sent(Sent {
                queue: queue.clone(),
                offset,
                physical: None,
                message_id: String::new(),
                node: None,
            }),
        })
    }
}
