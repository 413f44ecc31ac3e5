//! JSON bodies of requests and responses.
//!
//! Bodies are read with [`crate::json::read`], which takes the liberties that clients take. Those
//! with integer or object keys write themselves; the others are written as standard JSON.
//!
//! The body of `GET_CONSUMER_RUNNING_INFO` (307) has no type here: it is relayed unread.

/// The two functions that every body in standard JSON has.
macro_rules! standard_body {
    ($($type:ty),*) => {$(
        impl $type {
            /// Reads the body.
            ///
            /// # Errors
            /// [`JsonError`](crate::json::JsonError).
            pub fn decode(body: &[u8]) -> Result<Self, crate::json::JsonError> {
                crate::json::read(body)
            }

            /// Writes the body.
            pub fn encode(&self) -> Vec<u8> {
                crate::json::to_vec(self)
            }
        }
    )*};
}

mod cluster;
mod connection;
mod consume_queue;
mod group;
mod group_config;
mod heartbeat;
mod lock;
mod offsets;
mod pop;
mod queue;
mod replication;
mod route;
mod stats;
mod subscription;
mod table;
mod topic_config;

pub use cluster::*;
pub use connection::*;
pub use consume_queue::*;
pub use group::*;
pub use group_config::*;
pub use heartbeat::*;
pub use lock::*;
pub use offsets::*;
pub use pop::*;
pub use queue::*;
pub use replication::*;
pub use route::*;
pub use stats::*;
pub use subscription::*;
pub use table::*;
pub use topic_config::*;

#[cfg(test)]
mod tests;
