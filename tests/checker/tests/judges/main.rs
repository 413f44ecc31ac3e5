//! The judges, held against histories made by hand and by a simulated broker.

#![allow(clippy::unwrap_used)]

mod bad;
mod doubts;
mod features;
mod files;
mod lookups;
mod mutations;
mod once;
mod script;
mod simulated;
