//! Node processes on this machine: start, await, kill, stop.
//!
//! Each runs in a process group of its own, so that Ctrl-C reaches only us, and holds the reading end of a
//! pipe from us, so that it stops even if we are killed.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

use super::failure::{Failure, Outcome};
use super::layout::NodePlace;
use super::output::Progress;
use crate::client::{http, status};

const READY_DEADLINE: Duration = Duration::from_secs(120);
/// Leadership moves once the preferred node has caught up; nothing depends on it.
const SPREAD_DEADLINE: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Nodes drain for up to 40 s after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const LOG_TAIL_LINES: usize = 12;

/// The nodes of a cluster on this machine.
pub(super) struct Nodes {
    places: Vec<NodePlace>,
    /// Those that we have started and not seen end.
    running: BTreeMap<u16, Running>,
    exit_seen: mpsc::UnboundedSender<Exit>,
    exits: mpsc::UnboundedReceiver<Exit>,
    /// Whether nodes end with us.
    are_ours: bool,
}

struct Running {
    pid: u32,
    /// Closing it tells the node to stop; `None` for one that outlives us.
    _lifeline: Option<ChildStdin>,
}

/// A process that ended.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) node: u16,
    pid: u32,
    /// `exit status: 1`, `signal: 9 (SIGKILL)`.
    pub(super) status: String,
}

impl Nodes {
    /// Starts every node.
    pub(super) fn start(places: Vec<NodePlace>) -> Result<Nodes, Failure> {
        let mut nodes = Nodes::of(places, true);
        for id in nodes.ids() {
            nodes.start_one(id)?;
        }
        Ok(nodes)
    }

    /// Nodes that something else has started; those that we start outlive us as they do.
    pub(super) fn attach(places: Vec<NodePlace>) -> Nodes {
        Nodes::of(places, false)
    }

    fn of(places: Vec<NodePlace>, are_ours: bool) -> Nodes {
        let (exit_seen, exits) = mpsc::unbounded_channel();
        Nodes {
            places,
            running: BTreeMap::new(),
            exit_seen,
            exits,
            are_ours,
        }
    }

    pub(super) fn places(&self) -> &[NodePlace] {
        &self.places
    }

    pub(super) fn ids(&self) -> Vec<u16> {
        self.places.iter().map(|place| place.id).collect()
    }

    /// All name servers, as clients take them.
    pub(super) fn namesrv(&self) -> String {
        let servers: Vec<&str> = self
            .places
            .iter()
            .map(|place| place.namesrv.as_str())
            .collect();
        servers.join(";")
    }

    /// The process of a node, if it runs.
    pub(super) fn pid(&self, id: u16) -> Option<u32> {
        match self.running.get(&id) {
            Some(running) => Some(running.pid),
            None => find_process(&self.place(id).config),
        }
    }

    fn place(&self, id: u16) -> &NodePlace {
        let place = self.places.iter().find(|place| place.id == id);
        place.expect("ids come from the list of places")
    }

    /// Starts one node; what it prints is appended to its log file.
    pub(super) fn start_one(&mut self, id: u16) -> Outcome {
        let place = self.place(id);
        let cannot = |what: String, error: std::io::Error| {
            Failure::new(format!("cannot start node {id}: {what}: {error}"))
        };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&place.log);
        let log = log.map_err(|error| cannot(place.log.display().to_string(), error))?;
        let log_too = log
            .try_clone()
            .map_err(|error| cannot("its log".to_string(), error))?;
        let program =
            std::env::current_exe().map_err(|error| cannot("this program".to_string(), error))?;
        let mut command = Command::new(&program);
        command.arg("server").arg("--config").arg(&place.config);
        command.stdin(if self.are_ours {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        if self.are_ours {
            command.arg("--stop-with-stdin");
        }
        let spawned = command.stdout(log).stderr(log_too).process_group(0).spawn();
        let mut child = spawned.map_err(|error| cannot(program.display().to_string(), error))?;
        let pid = child
            .id()
            .expect("a child that was not waited for has an id");
        self.running.insert(
            id,
            Running {
                pid,
                _lifeline: child.stdin.take(),
            },
        );
        let exit_seen = self.exit_seen.clone();
        tokio::spawn(async move {
            let status = match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => format!("unknown end: {error}"),
            };
            // Nobody listens when the command itself has ended.
            let _ = exit_seen.send(Exit {
                node: id,
                pid,
                status,
            });
        });
        Ok(())
    }

    /// The next of our processes that ends.
    pub(super) async fn next_exit(&mut self) -> Exit {
        let exit = self.exits.recv().await.expect("we hold a sender ourselves");
        self.forget(&exit);
        exit
    }

    fn forget(&mut self, exit: &Exit) {
        if self
            .running
            .get(&exit.node)
            .is_some_and(|running| running.pid == exit.pid)
        {
            self.running.remove(&exit.node);
        }
    }

    /// Waits until these nodes are ready; fails when one of ours ends or time is up.
    pub(super) async fn await_ready(&mut self, ids: &[u16], progress: &mut Progress) -> Outcome {
        let started = Instant::now();
        let mut missing = ids.to_vec();
        let mut reason = String::new();
        while !missing.is_empty() {
            if let Ok(exit) = self.exits.try_recv() {
                self.forget(&exit);
                return Err(self.ended_early(&exit));
            }
            let mut still_missing = Vec::new();
            for id in missing {
                match status::ready(&self.place(id).http).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(text)) => reason = format!("node {id}: {text}"),
                    Err(error) => reason = format!("node {id}: {error}"),
                }
                still_missing.push(id);
            }
            missing = still_missing;
            if started.elapsed() > READY_DEADLINE {
                let log = self.place(missing[0]).log.display().to_string();
                let seconds = READY_DEADLINE.as_secs();
                return Err(Failure::new(format!(
                    "not ready after {seconds} s: {reason}\nIts log: {log}"
                )));
            }
            let ready = ids.len() - missing.len();
            let seconds = started.elapsed().as_secs();
            progress.show(&format!(
                "{ready} of {} nodes ready ({seconds} s)",
                ids.len()
            ));
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    fn ended_early(&self, exit: &Exit) -> Failure {
        let log = &self.place(exit.node).log;
        let text = fs::read_to_string(log).unwrap_or_else(|error| format!("(unreadable: {error})"));
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        Failure::new(format!(
            "node {} ended ({}) before it was ready. The end of {}:\n{}",
            exit.node,
            exit.status,
            log.display(),
            tail.join("\n")
        ))
    }

    /// Waits, within reason, until every group is led by the node that prefers it. A group that has just
    /// been formed or has lost its leader moves there by itself; clients that ask for a route before that
    /// would all go to one node for their first 30 s.
    pub(super) async fn await_spread(&self, progress: &mut Progress) {
        let started = Instant::now();
        for place in &self.places {
            for group in &place.preferred {
                while self.leader(group).await != Some(place.id) {
                    if started.elapsed() > SPREAD_DEADLINE {
                        return;
                    }
                    progress.show(&format!("waiting for node {} to lead {group}", place.id));
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            }
        }
    }

    /// The node that leads a group, by what the nodes say: the newest term counts.
    pub(super) async fn leader(&self, group: &str) -> Option<u16> {
        let mut newest = None;
        for place in &self.places {
            let Ok(status) = status::get(&place.http).await else {
                continue;
            };
            let replica = status
                .groups
                .into_iter()
                .find(|replica| replica.name == group);
            if let Some(replica) = replica.filter(|replica| replica.role == "leader") {
                newest = newest.max(Some((replica.term, place.id)));
            }
        }
        newest.map(|(_, node)| node)
    }

    /// kill -9. Returns when the process is gone; the instant is the one right before the signal.
    pub(super) async fn kill(&mut self, id: u16) -> Result<Instant, Failure> {
        let Some(pid) = self.pid(id) else {
            return Err(Failure::new(format!(
                "node {id} does not run on this machine"
            )));
        };
        let at = Instant::now();
        send_signal(pid, Signal::KILL)?;
        if self.running.contains_key(&id) {
            while self.next_exit().await.pid != pid {}
        } else {
            while find_process(&self.place(id).config) == Some(pid) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(at)
    }

    /// SIGTERM to all of ours, and SIGKILL to those that are still there when `hurry` resolves or after
    /// 60 s.
    pub(super) async fn stop(
        &mut self,
        hurry: impl Future<Output = ()>,
        progress: &mut Progress,
    ) -> Outcome {
        for running in self.running.values() {
            send_signal(running.pid, Signal::TERM)?;
        }
        let limit = tokio::time::sleep(STOP_DEADLINE);
        tokio::pin!(hurry, limit);
        while !self.running.is_empty() {
            let left: Vec<String> = self.running.keys().map(u16::to_string).collect();
            progress.show(&format!(
                "waiting for node {} to drain; Ctrl-C kills",
                left.join(", ")
            ));
            tokio::select! {
                _ = self.next_exit() => {}
                () = &mut hurry => return self.kill_all().await,
                () = &mut limit => return self.kill_all().await,
            }
        }
        for place in &self.places {
            if let Some(pid) = find_process(&place.config) {
                let id = place.id;
                progress.finish(&format!(
                    "node {id} was started by something else: kill {pid} stops it"
                ));
            }
        }
        Ok(())
    }

    /// SIGKILL to all of ours.
    pub(super) async fn kill_all(&mut self) -> Outcome {
        for running in self.running.values() {
            send_signal(running.pid, Signal::KILL)?;
        }
        while !self.running.is_empty() {
            self.next_exit().await;
        }
        Ok(())
    }
}

/// A process that has ended meanwhile is no error: it was to end.
fn send_signal(pid: u32, signal: Signal) -> Outcome {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let target = target.ok_or_else(|| Failure::new(format!("{pid} is not a process id")))?;
    match kill_process(target, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Failure::new(format!(
            "cannot signal process {pid}: {error}"
        ))),
    }
}

/// The process that runs `server` with this configuration, whoever has started it.
fn find_process(config: &Path) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.into_iter()
        .find(|pid| runs_with(*pid, config) == Some(true))
}

/// `None` if the process cannot be looked at: it has ended, or is somebody else's.
fn runs_with(pid: u32, config: &Path) -> Option<bool> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let line = fs::read(directory.join("cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    if words.nth(1)? != "server" {
        return Some(false);
    }
    let working = fs::read_link(directory.join("cwd")).ok()?;
    let named = words.any(|word| {
        let path = word.strip_prefix("--config=").unwrap_or(&word);
        path.ends_with(".toml")
            && working
                .join(path)
                .canonicalize()
                .is_ok_and(|path| path == config)
    });
    Some(named)
}

/// Whether something answers HTTP there already.
pub(super) async fn is_up(place: &NodePlace) -> bool {
    http::get(&place.http, "/healthz").await.is_ok()
}
