//! A leader whose own disk is slow counts as one that has not written: it commits with the others, or not at
//! all. (openraft #2118: a new leader counted its log as flushed before it was.)

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use gantry_storage::fs::{File, FileSystem, RealFs, Space};
use tokio::time::timeout;

use crate::rig::{Cluster, LIMIT, PATIENT, Setup, eventually};

/// How long a wrong commit is waited for. A right one takes a few milliseconds here.
const WRONG: Duration = Duration::from_millis(500);

/// Keeps syncs of segments waiting while it is shut.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    opened: Condvar,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    shuts_after_vote: bool,
    /// From now on nothing passes any more.
    broken: bool,
    waiting: usize,
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut GateState)) {
        change(&mut self.state.lock().unwrap());
        self.opened.notify_all();
    }

    fn is_waited_at(&self) -> bool {
        self.state.lock().unwrap().waiting > 0
    }

    fn pass(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        let mut state = self.opened.wait_while(state, |state| state.shut).unwrap();
        state.waiting -= 1;
        if state.broken {
            return Err(io::Error::other("the disk is broken"));
        }
        Ok(())
    }

    fn vote_is_saved(&self) {
        self.change(|state| state.shut |= state.shuts_after_vote);
    }
}

/// A real disk behind a gate.
#[derive(Clone, Default)]
struct SlowFs(Arc<Gate>);

struct SlowFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
    is_segment: bool,
    is_vote: bool,
}

impl SlowFs {
    fn wrap(&self, path: &Path, file: io::Result<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        let name = path.file_name().unwrap().to_string_lossy();
        Ok(Arc::new(SlowFile {
            file: file?,
            gate: self.0.clone(),
            // A segment may be created under another name and renamed.
            is_segment: !["vote", "mark", "identity.new"].contains(&&*name),
            is_vote: name == "vote",
        }))
    }
}

impl FileSystem for SlowFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.wrap(path, RealFs.open(path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.wrap(path, RealFs.create(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFs.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFs.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealFs.create_dir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        RealFs.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFs.sync_dir(dir)
    }

    fn sync_volume(&self, dir: &Path) -> io::Result<()> {
        RealFs.sync_volume(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        RealFs.space(dir)
    }
}

impl File for SlowFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_segment {
            self.gate.pass()?;
        }
        let synced = self.file.sync_data();
        if self.is_vote {
            self.gate.vote_is_saved();
        }
        synced
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

/// Node 1 leads; node `slow` has the slow disk; the `deaf` are not told when node 1 is gone.
async fn cluster_with_slow(slow: u16, deaf: &[u16]) -> (Cluster, Arc<Gate>) {
    let disk = SlowFs::default();
    let gate = disk.0.clone();
    let mut setup = Setup::new(PATIENT);
    setup.disks.insert(slow, Arc::new(disk));
    setup.deaf.extend(deaf);
    let cluster = Cluster::form(setup).await;
    cluster.send(3, 100).await;
    cluster.converge().await;
    assert_eq!(cluster.leader().await, 1);
    (cluster, gate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_has_not_flushed_commits_only_with_both_others() {
    let (mut cluster, gate) = cluster_with_slow(1, &[]).await;
    gate.change(|state| state.shut = true);
    cluster.send(1, 100).await;
    let last = cluster.nodes[&1].log.bounds();
    assert!(
        last.flushed < last.last.map(|(index, _)| index),
        "two followers were enough"
    );

    cluster.kill(3).await;
    let proposal = cluster.seal(cluster.message(0, "waits"));
    let mut outcome = cluster.nodes[&1].propose(proposal).await;
    let last = cluster.nodes[&1].log.bounds().last.map(|(index, _)| index);
    eventually("the follower has it on disk", || {
        cluster.nodes[&2].log.bounds().flushed >= last
    })
    .await;
    let early = timeout(WRONG, &mut outcome).await;
    assert!(early.is_err(), "one disk of three has it: {early:?}");
    gate.change(|state| state.shut = false);
    let reply = timeout(LIMIT, outcome).await.unwrap().unwrap().unwrap();
    cluster.note_acked(0, &reply, "waits".to_string());
    cluster.converge().await;
    cluster.assert_acked_are_there();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_does_not_count_its_own_log_before_it_is_flushed() {
    let (mut cluster, gate) = cluster_with_slow(2, &[3]).await;
    let before = cluster.nodes[&3].log.bounds().flushed;
    gate.change(|state| state.shuts_after_vote = true);
    cluster.kill(1).await;
    let mut leadership = cluster.nodes[&2].replica.leadership();
    let leads = timeout(LIMIT, leadership.wait_for(|now| now.leader == Some(2))).await;
    drop(leads.expect("node 2 is elected"));
    eventually("the other has the first entry of the term on disk", || {
        cluster.nodes[&3].log.bounds().flushed > before && gate.is_waited_at()
    })
    .await;
    let early = timeout(WRONG, leadership.wait_for(|now| now.ready)).await;
    assert!(early.is_err(), "one disk of three has the entry");
    gate.change(|state| {
        state.shuts_after_vote = false;
        state.shut = false;
    });
    assert_eq!(cluster.leader_among(&[2]).await, 2);
    cluster.send(3, 100).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_fails_stops_for_good_and_what_it_acknowledged_stays() {
    let (mut cluster, gate) = cluster_with_slow(1, &[]).await;
    gate.change(|state| state.broken = true);
    let node = cluster.nodes.remove(&1).unwrap();
    let proposal = cluster.seal(cluster.message(0, "unknown"));
    let outcome = node.propose(proposal).await;
    let mut stopped = node.replica.stopped();
    let reason = timeout(LIMIT, stopped.wait_for(Option::is_some))
        .await
        .unwrap();
    let reason = reason.unwrap().clone().unwrap();
    assert!(reason.contains("the disk is broken"), "{reason}");
    // The other two may have made a majority before the leader stopped, or not.
    if let Ok(Ok(reply)) = timeout(LIMIT, outcome).await.unwrap() {
        cluster.note_acked(0, &reply, "unknown".to_string());
    }
    cluster.network.kill(1);
    node.stop().await;
    // Whichever of them has the proposal, if only one has.
    cluster.leader_among(&[2, 3]).await;
    cluster.send(3, 100).await;
    cluster.converge().await;
    cluster.assert_acked_are_there();
}
