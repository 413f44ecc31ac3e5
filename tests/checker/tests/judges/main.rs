//! The judges, held against histories made by hand and by a simulated broker.

#![allow(clippy::unwrap_used)]

mod bad;
mod files;
mod mutations;
mod script;
mod simulated;
