//! What this process tells Prometheus: counters and histograms that are fed where things happen,
//! and gauges that are set when someone scrapes.
//!
//! `docs/metrics.md` is the contract; a test holds every name, type and label here against it. Every
//! process, and every node of a test, has a registry of its own: there is no global one. No label
//! holds free text, and the series of a topic or consumer group go away with it.

mod families;
mod group;
mod idempotent;
mod node;
mod parked;
mod sampled;
#[cfg(test)]
mod tests;
mod traffic;
mod windows;

pub use group::{ConsumerLag, GroupMetrics, GroupSample, HoldGuard};
pub use node::{ConsumerConnection, Metrics, ProducerConnection};
pub use traffic::{Traffic, Way};
pub use windows::{READ_INTERVAL, Span};
