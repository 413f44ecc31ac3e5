//! Opening a group's files, and what is done first when they are damaged (ADR 10, ADR 11).
//!
//! Raft does not run before the log is whole: until then the replica neither votes nor acknowledges. What
//! cannot be repaired in place costs the replica its name: the directory is set aside, and the node joins
//! anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use gantry_storage::commitlog::{CommitLog, Recovered, Writer};
use gantry_storage::error::{OpenError, ReadError};
use gantry_storage::fs::FileSystem;
use gantry_storage::{LogConfig, Store, StoreError};
use tokio::time::Instant;

use crate::aside::aside;
use crate::error::StartError;
use crate::identity::{Seat, ask_state, claim_seat};
use crate::mend::{self, Mender, REPORT_INTERVAL, RETRY_INTERVAL, Words};
use crate::network::{Endpoint, PeerServer, Peers};
use crate::types::GroupId;

/// All nodes must say for this long that they cannot help before a start is given up.
const HOPELESS_AFTER: Duration = Duration::from_secs(5);

/// Opens the store over an open log.
pub type OpenStore = Arc<dyn Fn(CommitLog) -> Result<Store, StoreError> + Send + Sync>;

/// Has a log's writer run, under a name, until the log is shut down; gives the thread, if it is one.
pub type RunWriter = Arc<dyn Fn(Writer, &str) -> io::Result<Option<JoinHandle<()>>> + Send + Sync>;

/// A group's files.
#[derive(Clone)]
pub struct GroupFiles {
    /// The file system that they are on.
    pub fs: Arc<dyn FileSystem>,
    /// Their directory.
    pub directory: PathBuf,
    /// Settings of the log.
    pub log: LogConfig,
    /// Runs the writer of the log.
    pub run_writer: RunWriter,
    /// Opens the store.
    pub open_store: OpenStore,
}

/// An open group.
pub struct OpenGroup {
    /// Which replica this is.
    pub seat: Seat,
    /// Its log.
    pub log: CommitLog,
    /// The thread that writes the log, if it is one; ends after [`CommitLog::shutdown`].
    pub writer: Option<JoinHandle<()>>,
    /// Its state.
    pub store: Arc<Store>,
}

/// Why files were not opened.
enum Obstacle {
    /// The replica has forgotten what it promised, or what it holds was never agreed on.
    Lost(String),
    /// The start fails.
    Fatal(StartError),
}

impl From<StartError> for Obstacle {
    fn from(error: StartError) -> Self {
        Obstacle::Fatal(error)
    }
}

/// Finds out which replica lives in the directory, and opens its log and its store, mending what is damaged
/// with the help of the other nodes. Waits for them as long as it takes.
///
/// # Errors
/// The directory is another one's, the disk refuses, or damage cannot be mended by anybody.
pub async fn open_group(
    files: GroupFiles,
    (peers, server): (&Arc<Peers>, &PeerServer),
    group: GroupId,
    wanted: Seat,
) -> Result<OpenGroup, StartError> {
    loop {
        let place = (&files.fs, files.directory.as_path());
        let claimed = claim_seat(place.0, place.1, (peers, server), group, wanted.clone()).await;
        let lost = match claimed {
            Ok(seat) => match open_as(&files, (peers, server), group, seat).await {
                Ok(open) => return Ok(open),
                Err(Obstacle::Lost(reason)) => reason,
                Err(Obstacle::Fatal(error)) => return Err(error),
            },
            Err(StartError::IdentityLost(reason)) => reason,
            Err(error) => return Err(error),
        };
        set_aside(&files, peers, (group, wanted.incarnation), lost).await?;
    }
}

async fn open_as(
    files: &GroupFiles,
    (peers, server): (&Arc<Peers>, &PeerServer),
    group: GroupId,
    seat: Seat,
) -> Result<OpenGroup, Obstacle> {
    let name = seat.group.clone();
    let (log, writer, recovered) = loop {
        let (fs, directory, config) =
            (files.fs.clone(), files.directory.clone(), files.log.clone());
        let opening = blocking(move || CommitLog::open(fs, &directory, config)).await;
        let damage = match opening {
            Ok(open) => break open,
            Err(OpenError::Damaged(damage)) if peers.others().next().is_some() => damage,
            Err(OpenError::Lost { path, reason }) => {
                return Err(Obstacle::Lost(format!("{}: {reason}", path.display())));
            }
            Err(error) => return Err(StartError::Log(error).into()),
        };
        tracing::warn!(group = name, %damage, "mending before the replica starts");
        mend_first(&damage.log, false, (peers, server), (group, &name)).await?;
    };
    tell_of(&files.directory, &recovered);
    let writer = (files.run_writer)(writer, &name).map_err(|source| StartError::Io {
        what: "starting the log's writer".to_string(),
        source,
    })?;
    loop {
        let (open_store, of) = (files.open_store.clone(), log.clone());
        let obstacle = match blocking(move || open_store(of)).await {
            Ok(store) => {
                let store = Arc::new(store);
                return Ok(OpenGroup {
                    seat,
                    log,
                    writer,
                    store,
                });
            }
            Err(StoreError::Log(ReadError::Corrupt { .. })) if peers.others().next().is_some() => {
                match mend_first(&log, true, (peers, server), (group, &name)).await {
                    Ok(()) => continue,
                    Err(obstacle) => obstacle,
                }
            }
            Err(error @ StoreError::StartMissing { .. }) => Obstacle::Lost(error.to_string()),
            Err(error) => StartError::Store(error).into(),
        };
        log.shutdown();
        if let Some(writer) = writer
            && blocking(move || writer.join()).await.is_err()
        {
            tracing::error!(group = name, "the log's writer has panicked");
        }
        return Err(obstacle);
    }
}

fn tell_of(directory: &Path, recovered: &Recovered) {
    tracing::info!(directory = %directory.display(), ?recovered, "log is open");
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    aside(work).await.expect("opening files does not panic")
}

/// Fills all holes of a log before Raft runs. Meanwhile what is intact is given to others.
async fn mend_first(
    log: &CommitLog,
    open: bool,
    (peers, server): (&Arc<Peers>, &PeerServer),
    (group, name): (GroupId, &str),
) -> Result<(), Obstacle> {
    let endpoint = Endpoint {
        raft: None,
        log: Some(log.clone()),
        questions: Arc::new(|_, _, _| Box::pin(async { Err("the log is being mended".into()) })),
    };
    server.register(group, endpoint);
    let mender = Mender {
        log,
        open,
        peers,
        group,
    };
    let (mut reported, mut hopeless_since) = (None, None);
    let mut words = Words::new();
    while !log.holes().is_empty() {
        let round = mender.round().await;
        let mut round = round.map_err(|error| StartError::Mend(error.to_string()))?;
        round.remember(&mut words);
        if round.stuck.is_empty() {
            continue;
        }
        if let Some(hole) = round.refuted() {
            return Err(Obstacle::Lost(format!(
                "records {} to {} are damaged, and were never agreed on",
                hole.first(),
                hole.last.0
            )));
        }
        if let Some(hole) = round.retired() {
            return Err(Obstacle::Lost(format!(
                "records {} to {} are damaged, and the others have retired them",
                hole.first(),
                hole.last.0
            )));
        }
        if reported.is_none_or(|at: Instant| at.elapsed() >= REPORT_INTERVAL) {
            mend::report(name, &round);
            reported = Some(Instant::now());
        }
        match round.hopeless() {
            None => hopeless_since = None,
            Some(hole) => {
                let since = *hopeless_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= HOPELESS_AFTER {
                    return Err(StartError::Mend(hopeless(name, hole)).into());
                }
            }
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    tracing::info!(group = name, "the log is whole again");
    Ok(())
}

fn hopeless(group: &str, hole: &gantry_storage::commitlog::Hole) -> String {
    format!(
        "group {group}: records {} to {} (bytes {} to {} of the log) are damaged on every node. Restore the \
         segment file that has them from a copy, on any one node; the others follow. To give them up, see \
         docs/operations.md",
        hole.first(),
        hole.last.0,
        hole.from,
        hole.to
    )
}

/// Gives a directory up: it is renamed, so that the node joins the group as a new replica. Only once the
/// others have a leader, which needs a majority without this replica: what was agreed is safe with them.
async fn set_aside(
    files: &GroupFiles,
    peers: &Arc<Peers>,
    (group, now_ms): (GroupId, u64),
    reason: String,
) -> Result<(), StartError> {
    if peers.others().next().is_none() {
        return Err(StartError::Identity(format!(
            "{reason}. There is no other node to have the data from: restore the directory from a copy"
        )));
    }
    tracing::error!(reason, "the replica is lost; waiting to join as a new one");
    let mut reported = Instant::now();
    while !others_have_a_leader(peers, group).await {
        if reported.elapsed() >= REPORT_INTERVAL {
            tracing::warn!(
                reason,
                "the other nodes have no leader that could admit a new replica"
            );
            reported = Instant::now();
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    let mut kept = files.directory.as_os_str().to_owned();
    kept.push(format!(".damaged-{now_ms}"));
    let kept = PathBuf::from(kept);
    let failed = |source| StartError::Io {
        what: format!("renaming {}", files.directory.display()),
        source,
    };
    files.fs.rename(&files.directory, &kept).map_err(failed)?;
    if let Some(above) = files.directory.parent() {
        files.fs.sync_dir(above).map_err(failed)?;
    }
    let kept = kept.display();
    tracing::warn!(%kept, "the damaged directory was set aside; remove it when the new replica votes");
    Ok(())
}

/// Whether another node leads the group, by its own word.
async fn others_have_a_leader(peers: &Peers, group: GroupId) -> bool {
    for node in peers.others() {
        let state = ask_state(peers, node, group).await;
        if state.is_some_and(|state| state.formed && state.leader == Some(node)) {
            return true;
        }
    }
    false
}
