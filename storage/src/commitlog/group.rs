//! What the writer writes together, and what it must carry out alone.

use bytes::Bytes;

use super::damage::MendDone;
use super::format::{LeaderTag, Located};
use super::holes::Hole;
use super::log::Done;
use super::shared::Command;
use super::view::{LogStart, Truncation};
use crate::position::{LogIndex, PhysicalOffset};

/// What is written together.
#[derive(Default)]
pub(crate) struct Group {
    pub records: Vec<Located>,
    pub bytes: u64,
    /// History number of the newest append.
    pub epoch: u64,
    pub must_sync: bool,
    pub vote: Option<Vec<u8>>,
    pub done: Vec<Done>,
}

/// A command that is not part of a group.
pub(crate) enum Alone {
    Truncate(Truncation, u64, Done),
    Purge((LogIndex, LeaderTag), LogStart, Vec<PhysicalOffset>, Done),
    Reset(LogStart, Vec<PhysicalOffset>, u64, Done),
    Fill(Hole, Bytes, MendDone),
    Shutdown,
}

impl Group {
    /// Adds a command to the group, or gives it back if it must be carried out alone.
    pub(crate) fn take(&mut self, command: Command) -> Option<Alone> {
        match command {
            Command::Append {
                records,
                epoch,
                done,
            } => {
                self.bytes += records.iter().map(|l| l.record.encoded_len()).sum::<u64>();
                self.records.extend(records);
                self.epoch = epoch;
                self.done.push(done);
            }
            Command::SaveVote { bytes, done } => {
                self.must_sync = true;
                self.vote = Some(bytes);
                self.done.push(done);
            }
            Command::Barrier { done } => {
                self.must_sync = true;
                self.done.push(done);
            }
            Command::Truncate {
                truncation,
                epoch,
                done,
            } => {
                return Some(Alone::Truncate(truncation, epoch, done));
            }
            Command::Purge {
                purged,
                start,
                retired,
                done,
            } => {
                return Some(Alone::Purge(purged, start, retired, done));
            }
            Command::Reset {
                start,
                removed,
                epoch,
                done,
            } => {
                return Some(Alone::Reset(start, removed, epoch, done));
            }
            Command::Fill { hole, bytes, done } => return Some(Alone::Fill(hole, bytes, done)),
            Command::Shutdown => return Some(Alone::Shutdown),
        }
        None
    }
}
