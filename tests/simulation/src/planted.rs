//! The gate: defects that are known, planted one at a time, must be found.

#[cfg(not(feature = "planted-bugs"))]
use crate::sweep::Sweep;

#[cfg(feature = "planted-bugs")]
mod search;

#[cfg(feature = "planted-bugs")]
pub use search::{plant, search};

#[cfg(not(feature = "planted-bugs"))]
const REMEDY: &str = "this build has no planted bugs: build it with `--features planted-bugs`";

/// Plants a bug in this process.
///
/// # Errors
/// There is none of that name.
#[cfg(not(feature = "planted-bugs"))]
pub fn plant(_name: &str) -> Result<(), String> {
    Err(REMEDY.to_string())
}

/// Searches for each planted bug with at most `limit` seeds. True if all were found.
///
/// # Errors
/// Processes cannot be started.
#[cfg(not(feature = "planted-bugs"))]
pub fn search(_sweep: &Sweep, _limit: u64) -> Result<bool, String> {
    Err(REMEDY.to_string())
}
