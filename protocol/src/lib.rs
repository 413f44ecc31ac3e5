//! The RocketMQ remoting wire: frames, headers and bodies.
//!
//! Pure functions over bytes: no sockets, no clock, no threads. "Not enough bytes" is a value.
//!
//! A connection's bytes become [`frame::Frame`]s, a frame becomes a [`RemotingCommand`], its
//! `fields` become one of the typed [`headers`], its `body` one of the [`bodies`] or
//! [`message`]s. Nothing here knows what a request means for the broker.

pub mod batch;
pub mod bodies;
pub mod codes;
pub mod command;
pub mod fields;
pub mod frame;
pub mod hash;
mod header_compact;
mod header_json;
pub mod headers;
pub mod json;
pub mod language;
pub mod message;
pub mod message_id;
pub mod properties;
pub mod recall;
pub mod sql;
pub mod topic;
pub mod version;

pub use codes::{RequestCode, ResponseCode};
pub use command::{Encoding, RemotingCommand};
pub use fields::{FieldError, Fields};
pub use frame::Frame;
pub use language::Language;
