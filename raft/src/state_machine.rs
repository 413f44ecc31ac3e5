//! openraft's state machine over the group's [`Store`]: committed records are applied in memory, a
//! snapshot is the checkpoint at the retention boundary.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use gantry_storage::commitlog::Located;
use gantry_storage::{Applied, PhysicalOffset, Snapshot, Store, StoreError};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use crate::aside::aside;
use crate::network::SnapshotOf;
use crate::types::{
    GroupTypes, LogId, Reply, SnapshotMeta, StoredMembership, decode_membership, log_id,
};

/// Called for each record right after it was applied, in log order, on every replica, with the time
/// that applying took. Must be quick and must not block.
pub type AppliedHook = Arc<dyn Fn(&Located, &Applied, Duration) + Send + Sync>;

/// The state machine of one replica.
pub struct StateMachine {
    store: Arc<Store>,
    applied: AppliedHook,
    /// Where the last applied record ended.
    end: PhysicalOffset,
    unchosen: Unchosen,
}

/// The last snapshot that was built while the store had chosen no boundary: it is of the state at that
/// moment, and the store does not remember it.
type Unchosen = Arc<Mutex<Option<Snapshot>>>;

fn lock(unchosen: &Unchosen) -> MutexGuard<'_, Option<Snapshot>> {
    unchosen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateMachine {
    /// `applied` hears of every record that this replica applies.
    pub fn new(store: Arc<Store>, applied: AppliedHook) -> Self {
        StateMachine {
            store,
            applied,
            end: PhysicalOffset::ZERO,
            unchosen: Unchosen::default(),
        }
    }
}

impl RaftStateMachine<GroupTypes> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.store.applied().map(|(index, tag)| log_id(tag, index));
        let membership = match self.store.applied_membership() {
            Some((index, tag, bytes)) => {
                StoredMembership::new(Some(log_id(tag, index)), decode_membership(&bytes)?)
            }
            None => StoredMembership::default(),
        };
        Ok((applied, membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<GroupTypes>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let offset = match entry.offset {
                Some(offset) => offset,
                // Every entry of the log has its place; openraft's suite applies others that are not in it.
                None => {
                    assert!(
                        !entry.is_batch(),
                        "{entry} was applied without a place in the log"
                    );
                    self.end
                }
            };
            let located = Located {
                record: entry.to_record(),
                offset,
            };
            self.end = located.end_offset();
            let started = Instant::now();
            let applied = self.store.apply(&located);
            (self.applied)(&located, &applied, started.elapsed());
            if let Some(responder) = responder {
                responder.send(Reply { offset, applied });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            store: self.store.clone(),
            unchosen: self.unchosen.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        let store = self.store.clone();
        aside(move || store.install_snapshot(&snapshot))
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf>, io::Error> {
        let (store, unchosen) = (self.store.clone(), self.unchosen.clone());
        let current = aside(move || {
            let chosen = store.current_snapshot()?;
            Ok::<_, StoreError>(chosen.or_else(|| lock(&unchosen).clone()))
        });
        let current = current.await.map_err(io::Error::other)?;
        current
            .map_err(io::Error::other)?
            .map(to_openraft)
            .transpose()
    }
}

/// Takes the checkpoint that the store chose as its snapshot.
pub struct SnapshotBuilder {
    store: Arc<Store>,
    unchosen: Unchosen,
}

impl RaftSnapshotBuilder<GroupTypes> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf, io::Error> {
        let (store, unchosen) = (self.store.clone(), self.unchosen.clone());
        let built = aside(move || {
            let built = store.build_snapshot()?;
            let chosen = store.current_snapshot()?;
            *lock(&unchosen) = chosen.is_none().then(|| built.clone());
            Ok::<_, StoreError>(built)
        });
        let built = built.await.map_err(io::Error::other)?;
        to_openraft(built.map_err(io::Error::other)?)
    }
}

fn to_openraft(snapshot: Snapshot) -> Result<SnapshotOf, io::Error> {
    let last_log_id = snapshot.applied.map(|(index, tag)| log_id(tag, index));
    let last_membership = match snapshot.membership {
        Some((index, tag, bytes)) => {
            StoredMembership::new(Some(log_id(tag, index)), decode_membership(&bytes)?)
        }
        None => StoredMembership::default(),
    };
    let meta = SnapshotMeta {
        last_log_id,
        last_membership,
    };
    Ok(SnapshotOf {
        meta,
        snapshot: snapshot.bytes,
    })
}
