//! RocketMQ's remoting protocol on sockets: ports, connections, and which handler answers what.

mod channel;
mod connection;
mod request;
mod router;
mod server;
mod tools;

pub use channel::Channel;
pub use request::{Answer, Caller, Relayed, Request};
pub use router::Router;
pub use server::{ClientPort, RemotingServer, bind};
