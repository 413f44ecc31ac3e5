//! The parts of a node that requests are answered from.

use std::sync::{Arc, Mutex, PoisonError};

use gantry_protocol::RemotingCommand;
use gantry_protocol::headers::broker_name;
use gantry_protocol::message_id::UniqueKeys;
use gantry_raft::Peers;

use crate::clock::WallClock;
use crate::config::Config;
use crate::filters::Filters;
use crate::group::Group;
use crate::metrics::Metrics;
use crate::remoting::Caller;
use crate::routes::Routes;
use crate::sessions::Sessions;

/// What handlers get their handles from; built once by `node` and never changed.
pub struct Broker {
    /// The configuration.
    pub config: Arc<Config>,
    /// The hosted groups, by id.
    pub groups: Vec<Arc<Group>>,
    /// Connected clients.
    pub sessions: Arc<Sessions>,
    /// Where clients should go.
    pub routes: Arc<Routes>,
    /// Filter expressions.
    pub filters: Filters,
    /// Other nodes.
    pub peers: Arc<Peers>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// What time it is.
    pub clock: WallClock,
    /// Keys for messages whose client gave them none.
    pub unique_keys: Mutex<UniqueKeys>,
}

impl Broker {
    /// The group that a request is for: the one it names, else the one whose port it came in on, else
    /// the first.
    pub fn group_of(&self, command: &RemotingCommand, caller: &Caller) -> &Arc<Group> {
        let named = broker_name(&command.fields)
            .and_then(|name| self.groups.iter().find(|group| group.name == name));
        let of_port = || {
            caller
                .port_group
                .and_then(|id| self.groups.get(usize::from(id)))
        };
        named.or_else(of_port).unwrap_or(&self.groups[0])
    }

    /// A key that no other message has.
    pub fn next_unique_key(&self) -> String {
        let mut keys = self
            .unique_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        keys.next(self.clock.now_ms() as i64)
    }
}
