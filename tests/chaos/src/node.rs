//! One node: its configuration, its process, and what it says about itself.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use gantry::client::status::{self, NodeStatus};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::disk::Disk;
use crate::net::{self, NODES, address_of, name_of};
use crate::shell::{Failure, Outcome, failure, while_doing};

/// Names of the broker groups; group n is led by node n when it can be.
pub const GROUPS: [&str; 3] = ["broker-a", "broker-b", "broker-c"];

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Address of a group on a node.
pub fn broker_address(node: usize, group: usize) -> String {
    format!("{}:{}", address_of(node), 10_911 + 10 * group)
}

/// Address of the name server on a node.
pub fn namesrv_address(node: usize) -> String {
    format!("{}:9876", address_of(node))
}

/// Where a node's status is asked for.
pub fn http_address(node: usize) -> String {
    format!("{}:5557", address_of(node))
}

/// A node.
pub struct Node {
    /// 0, 1 or 2.
    pub number: usize,
    /// Its disk.
    pub disk: Disk,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// Tells libfaketime how far the clock is off.
    clock: PathBuf,
    child: Option<Child>,
}

/// Settings that are the same for all nodes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker under test.
    pub program: PathBuf,
    /// Directory of the run.
    pub directory: PathBuf,
}

impl Node {
    /// A node that has not been started.
    pub async fn create(settings: &Settings, number: usize) -> Outcome<Self> {
        let name = name_of(number);
        let directory = &settings.directory;
        let mount = directory.join(&name);
        let disk = Disk::create(&directory.join("disks"), mount, &name).await?;
        let config = directory.join(format!("{name}.toml"));
        let text = configuration(number, &disk.mount);
        std::fs::write(&config, text).map_err(while_doing("writing a configuration"))?;
        Ok(Self {
            number,
            disk,
            program: settings.program.clone(),
            config,
            log: directory.join(format!("{name}.log")),
            clock: directory.join(format!("{name}.clock")),
            child: None,
        })
    }

    /// Where its data are.
    pub fn data(&self) -> PathBuf {
        self.disk.mount.join("data")
    }

    /// Starts its process.
    pub fn start(&mut self) -> Outcome {
        self.spawn(false)
    }

    /// Starts its process with a clock that [`Node::set_clock`] moves.
    pub fn start_with_own_clock(&mut self) -> Outcome {
        self.set_clock(0)?;
        self.spawn(true)
    }

    /// Sets how many seconds its clock is off.
    pub fn set_clock(&self, seconds: i64) -> Outcome {
        let fresh = self.clock.with_extension("fresh");
        std::fs::write(&fresh, format!("{seconds:+}\n")).map_err(while_doing("writing a clock"))?;
        std::fs::rename(&fresh, &self.clock).map_err(while_doing("setting a clock"))
    }

    /// Whether there is a way to move clocks.
    pub fn probe_clock() -> Result<(), String> {
        if Path::new(FAKETIME).exists() {
            return Ok(());
        }
        Err(format!("{FAKETIME} is missing (Debian package faketime)"))
    }

    fn spawn(&mut self, with_own_clock: bool) -> Outcome {
        assert!(self.child.is_none(), "node {} runs already", self.number);
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(while_doing("opening a log"))?;
        let [program, namespace] = net::on(self.number);
        let mut command = Command::new(program);
        command
            .arg(namespace)
            .arg(&self.program)
            .arg("server")
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(while_doing("opening a log"))?)
            .stderr(log)
            .kill_on_drop(true);
        if with_own_clock {
            command
                .env("LD_PRELOAD", FAKETIME)
                .env("FAKETIME_TIMESTAMP_FILE", &self.clock)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let child = command.spawn().map_err(while_doing("starting a node"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Its process, if it runs as far as is known.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Whether its process has been started and has not been seen to end.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Says so if its process has ended by itself.
    pub fn ended(&mut self) -> Outcome<Option<String>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child
            .try_wait()
            .map_err(while_doing("looking after a node"))?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status.map(|status| status.to_string()))
    }

    /// Sends a signal; false if there is no process.
    pub fn signal(&self, signal: Signal) -> Outcome<bool> {
        let pid = self
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        let Some(pid) = pid else {
            return Ok(false);
        };
        kill_process(pid, signal).map_err(while_doing("sending a signal"))?;
        Ok(true)
    }

    /// `kill -9`, and waits until the process is gone; false if there is none.
    pub async fn kill(&mut self) -> Outcome<bool> {
        let Some(mut child) = self.child.take() else {
            return Ok(false);
        };
        child.kill().await.map_err(while_doing("killing a node"))?;
        Ok(true)
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self, patience: Duration) -> Outcome<bool> {
        if !self.signal(Signal::TERM)? {
            return Ok(false);
        }
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(status) = self.ended()? {
                if status != "exit status: 0" {
                    return failure(format!("{} stopped with {status}", name_of(self.number)));
                }
                return Ok(true);
            }
            sleep(Duration::from_millis(20)).await;
        }
        let seconds = patience.as_secs();
        failure(format!(
            "{} has not stopped {seconds} s after SIGTERM",
            name_of(self.number)
        ))
    }

    /// Waits until the process ends by itself.
    pub async fn await_end(&mut self, patience: Duration) -> Outcome<Option<String>> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(None)
    }

    /// What it says about itself.
    pub async fn status(number: usize) -> Result<NodeStatus, String> {
        let address = http_address(number);
        let asked = tokio::time::timeout(Duration::from_millis(800), status::get(&address)).await;
        match asked {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("no answer".to_string()),
        }
    }

    /// The end of its log.
    pub fn log_end(&self) -> String {
        const BYTES: u64 = 3000;
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("its log cannot be read: {error}"))
    }

    /// Waits until it answers at all.
    pub async fn await_answer(&mut self, patience: Duration) -> Outcome {
        let until = Instant::now() + patience;
        let mut last = String::new();
        while Instant::now() < until {
            if let Some(status) = self.ended()? {
                let (name, end) = (name_of(self.number), self.log_end());
                return failure(format!("{name} ended with {status}:\n{end}"));
            }
            match Self::status(self.number).await {
                Ok(_) => return Ok(()),
                Err(reason) => last = reason,
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(Failure(format!(
            "{} does not answer: {last}",
            name_of(self.number)
        )))
    }
}

fn configuration(number: usize, mount: &Path) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut line = |part: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{part}");
    };
    line(format_args!("cluster = \"chaos\"\nnode = {}", number + 1));
    line(format_args!("data = \"{}\"", mount.join("data").display()));
    line(format_args!(
        "insecure = true\npeer_secret = \"chaos-chaos-chaos\""
    ));
    line(format_args!("peers = ["));
    for node in 0..NODES {
        let address = address_of(node);
        line(format_args!(
            "  {{ node = {}, address = \"{address}:10912\" }},",
            node + 1
        ));
    }
    line(format_args!("]\ngroups = ["));
    for (position, group) in GROUPS.iter().enumerate() {
        line(format_args!(
            "  {{ name = \"{group}\", preferred = {} }},",
            position + 1
        ));
    }
    line(format_args!(
        "]\npeer = {{ bind = \"{}:10912\" }}",
        address_of(number)
    ));
    line(format_args!(
        "http = {{ bind = \"{}\" }}",
        http_address(number)
    ));
    line(format_args!(
        "[[listener]]\nname = \"chaos\"\nbind = \"{}\"\nnodes = [",
        address_of(number)
    ));
    for node in 0..NODES {
        let (id, host) = (node + 1, address_of(node));
        let ports = "[10911, 10921, 10931]";
        line(format_args!(
            "  {{ node = {id}, host = \"{host}\", namesrv = 9876, groups = {ports} }},"
        ));
    }
    line(format_args!(
        "]\n[storage]\nsegment_bytes = \"16MiB\"\nretention_bytes = \"320MiB\""
    ));
    // Rot that nobody reads is met within a round.
    line(format_args!("scrub_interval = \"20s\""));
    line(format_args!("[broker]\ndrain = \"2s\""));
    // Producers are asked about open transactions several times within a round, however long a fault lasts.
    line(format_args!("transaction_timeout = \"2s\""));
    line(format_args!("transaction_check_interval = \"3s\""));
    line(format_args!("transaction_check_max = 100"));
    text
}
