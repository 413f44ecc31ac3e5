//! Which replica a data directory is, and how an empty one finds out.
//!
//! A voter that lost its disk has forgotten what it voted for and what it acknowledged. It must
//! never act under its old name, so the name holds the directory's incarnation: when a directory is
//! empty and the group already exists, the replica takes a new one and asks to be admitted in place
//! of the old.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_storage::fs::FileSystem;
use gantry_storage::planted::{Bug, planted};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::StartError;
use crate::network::{BoxFuture, Endpoint, Method, PeerServer, Peers};
use crate::types::{GroupId, NodeNumber, ReplicaId, incarnation_of, replica_id};

const FILE: &str = "identity";

/// Version of the files below a group's directory.
const FORMAT: u32 = 1;

const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const ASK_INTERVAL: Duration = Duration::from_millis(100);
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// What a directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the group.
    pub group: String,
    /// The node.
    pub node: NodeNumber,
    /// Incarnation of the directory: 0 for one that was there when the group was formed.
    pub incarnation: u64,
    /// Size of the group's segments in bytes: it decides where records stand, so it never changes.
    pub segment_bytes: u64,
}

impl Seat {
    /// The replica that lives in the directory.
    pub fn replica(&self) -> ReplicaId {
        replica_id(self.node, self.incarnation)
    }
}

/// What a node answers when it is asked about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupState {
    /// Whether the group has members, as far as the node knows.
    pub formed: bool,
    /// The replica on that node, once its directory has a name and it runs.
    pub replica: Option<ReplicaId>,
    /// Who leads.
    pub leader: Option<NodeNumber>,
    /// The latest member on the asking node, as far as the node knows.
    pub asker: Option<ReplicaId>,
}

impl GroupState {
    pub(crate) fn encode(self) -> Vec<Bytes> {
        vec![
            bincode::serialize(&self)
                .expect("plain fields always encode")
                .into(),
        ]
    }
}

/// Finds out which replica lives in `directory`, and writes it down if that is new.
///
/// `wanted.incarnation` is the time now, in milliseconds since 1970: what a new incarnation is called.
/// When this returns, the identity file and its directory entry are on disk. Waits for the other nodes
/// when the directory is empty, because only they know whether it has ever held anything.
pub async fn claim_seat(
    fs: &Arc<dyn FileSystem>,
    directory: &Path,
    (peers, server): (&Peers, &PeerServer),
    group: GroupId,
    wanted: Seat,
) -> Result<Seat, StartError> {
    if let Some(seat) = read(fs, directory)? {
        check(&seat, &wanted, directory)?;
        return Ok(seat);
    }
    server.register(
        group,
        Endpoint {
            raft: None,
            log: None,
            questions: Arc::new(answer_as_newcomer),
        },
    );
    let incarnation = match known_members(peers, group, &wanted).await {
        None => 0,
        Some(_) if planted(Bug::IdReused) => 0,
        Some(former) => next_incarnation(former, wanted.incarnation),
    };
    let seat = Seat {
        incarnation,
        ..wanted
    };
    if incarnation > 0 {
        tracing::warn!(
            group = seat.group,
            replica = seat.replica(),
            "the directory is empty and the group exists: joining as a new replica"
        );
    }
    write(fs, directory, &seat)?;
    Ok(seat)
}

/// Asks the others whether they know the group, and which replica of this node is its member. Returns only
/// when one knows the group or none of all does.
async fn known_members(peers: &Peers, group: GroupId, wanted: &Seat) -> Option<Option<ReplicaId>> {
    let mut reported = None;
    loop {
        let mut silent = Vec::new();
        for node in peers.others() {
            match ask_state(peers, node, group).await {
                Some(state) if state.formed => return Some(state.asker),
                Some(_) => {}
                None => silent.push(node),
            }
        }
        if silent.is_empty() {
            return None;
        }
        if reported.is_none_or(|at: Instant| at.elapsed() >= REPORT_INTERVAL) {
            let group = &wanted.group;
            tracing::info!(group, nodes = ?silent, "waiting for these nodes to form the group");
            reported = Some(Instant::now());
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

/// This node's answers while its directory is empty: it knows nothing of the group.
fn answer_as_newcomer(
    _from: NodeNumber,
    method: u8,
    _body: Bytes,
) -> BoxFuture<'static, Result<Vec<Bytes>, String>> {
    Box::pin(async move {
        match method {
            Method::GROUP_STATE => Ok(GroupState {
                formed: false,
                replica: None,
                leader: None,
                asker: None,
            }
            .encode()),
            _ => Err("this node is not a member of the group".to_string()),
        }
    })
}

/// What `node` knows of a group, or `None` when it does not answer.
pub(crate) async fn ask_state(
    peers: &Peers,
    node: NodeNumber,
    group: GroupId,
) -> Option<GroupState> {
    let deadline = Instant::now() + ASK_TIMEOUT;
    let asked = peers
        .ask(node, (group, Method::GROUP_STATE), Vec::new(), deadline)
        .await;
    bincode::deserialize(&asked.ok()?).ok()
}

/// Milliseconds since 1970, or more where the clock has gone back: never one that was used before, and
/// never that of the founders.
fn next_incarnation(former: Option<ReplicaId>, now_ms: u64) -> u64 {
    let after = former.map_or(1, |id| incarnation_of(id) + 1);
    now_ms.max(after)
}

fn check(seat: &Seat, wanted: &Seat, directory: &Path) -> Result<(), StartError> {
    let differs = |what: &str, there: &dyn std::fmt::Debug, here: &dyn std::fmt::Debug| {
        Err(StartError::Identity(format!(
            "{}: the directory belongs to {what} {there:?}, the configuration says {here:?}. \
             Point `data` at this node's own directory",
            directory.display()
        )))
    };
    if seat.cluster != wanted.cluster {
        return differs("cluster", &seat.cluster, &wanted.cluster);
    }
    if seat.group != wanted.group {
        return differs("group", &seat.group, &wanted.group);
    }
    if seat.node != wanted.node {
        return differs("node", &seat.node, &wanted.node);
    }
    if seat.segment_bytes != wanted.segment_bytes {
        return Err(StartError::Identity(format!(
            "{}: the group was formed with segments of {} bytes, the configuration says {}: \
             the size of segments cannot be changed, set it back",
            directory.display(),
            seat.segment_bytes,
            wanted.segment_bytes
        )));
    }
    Ok(())
}

fn read(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<Option<Seat>, StartError> {
    let path = directory.join(FILE);
    let failed = |source| StartError::Io {
        what: format!("reading {}", path.display()),
        source,
    };
    fs.create_dir(directory).map_err(failed)?;
    let names = fs.list(directory).map_err(failed)?;
    if !names.iter().any(|name| name == FILE) {
        return match names.iter().find(|name| name.ends_with(".log")) {
            Some(log) => Err(StartError::IdentityLost(format!(
                "{} holds {log} but no file `{FILE}`",
                directory.display()
            ))),
            None => Ok(None),
        };
    }
    let bytes = read_whole(&**fs, &path).map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes);
    let path = path.display();
    let Some(lines) = intact_lines(&text) else {
        return Err(StartError::IdentityLost(format!("{path} is damaged")));
    };
    parse(lines).map(Some).ok_or_else(|| {
        StartError::Identity(format!(
            "{path} is of another version than {FORMAT}: use the program that wrote it, or a later one"
        ))
    })
}

fn write(fs: &Arc<dyn FileSystem>, directory: &Path, seat: &Seat) -> Result<(), StartError> {
    let path = directory.join(FILE);
    write_whole(&**fs, directory, &path, print(seat).as_bytes()).map_err(|source| StartError::Io {
        what: format!("writing {}", path.display()),
        source,
    })
}

fn read_whole(fs: &dyn FileSystem, path: &Path) -> io::Result<Vec<u8>> {
    let file = fs.open(path)?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Beside it first, then renamed: a crash leaves the whole file or none.
fn write_whole(fs: &dyn FileSystem, directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let file = fs.create(&beside)?;
    file.set_len(0)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    fs.rename(&beside, path)?;
    fs.sync_dir(directory)
}

/// The file is text, for the person who looks into the directory; its last line is the CRC-32 of
/// the lines before.
fn print(seat: &Seat) -> String {
    let lines = format!(
        "format {FORMAT}\ncluster {}\ngroup {}\nnode {}\nincarnation {}\nsegment_bytes {}\n",
        seat.cluster, seat.group, seat.node, seat.incarnation, seat.segment_bytes
    );
    let crc = crc32fast::hash(lines.as_bytes());
    format!("{lines}crc {crc:08x}\n")
}

/// The lines that the CRC vouches for.
fn intact_lines(text: &str) -> Option<&str> {
    let (lines, crc) = text.trim_end().rsplit_once('\n')?;
    let crc = u32::from_str_radix(crc.strip_prefix("crc ")?, 16).ok()?;
    (crc32fast::hash(format!("{lines}\n").as_bytes()) == crc).then_some(lines)
}

fn parse(lines: &str) -> Option<Seat> {
    let mut lines = lines.lines();
    let mut next = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    if next("format")?.parse::<u32>().ok()? != FORMAT {
        return None;
    }
    Some(Seat {
        cluster: next("cluster")?.to_string(),
        group: next("group")?.to_string(),
        node: next("node")?.parse().ok()?,
        incarnation: next("incarnation")?.parse().ok()?,
        segment_bytes: next("segment_bytes")?.parse().ok()?,
    })
}

/// For `testing`.
pub(crate) fn again(text: &str) -> Option<Vec<u8>> {
    let seat = parse(text)?;
    // Whoever reads the file asks for this next.
    seat.replica();
    Some(print(&seat).into_bytes())
}

/// For `testing`.
pub(crate) fn group_state_again(bytes: &[u8]) -> Option<Vec<u8>> {
    let state: GroupState = bincode::deserialize(bytes).ok()?;
    Some(state.encode().concat())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seat() -> Seat {
        Seat {
            cluster: "c".into(),
            group: "broker-a".into(),
            node: 2,
            incarnation: 7,
            segment_bytes: 1 << 30,
        }
    }

    #[test]
    fn the_file_survives_and_damage_is_noticed() {
        let text = print(&seat());
        let lines = intact_lines(&text).unwrap();
        assert_eq!(parse(lines), Some(seat()));
        assert_eq!(intact_lines(&text.replace("node 2", "node 3")), None);
        for cut in 0..text.len() - 1 {
            assert_eq!(intact_lines(&text[..cut]), None, "{cut} bytes");
        }
        assert_eq!(parse(&lines.replace("format 1", "format 2")), None);
    }

    #[test]
    fn an_incarnation_is_never_used_twice() {
        assert_eq!(next_incarnation(None, 70), 70);
        assert_eq!(next_incarnation(None, 0), 1);
        assert_eq!(next_incarnation(Some(replica_id(2, 0)), 70), 70);
        assert_eq!(next_incarnation(Some(replica_id(2, 70)), 70), 71);
        assert_eq!(next_incarnation(Some(replica_id(2, 99)), 70), 100);
    }

    #[test]
    fn a_foreign_directory_is_refused_by_name() {
        let other = Seat { node: 3, ..seat() };
        let error = check(&seat(), &other, Path::new("d"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("belongs to node 2"), "{error}");
    }
}
