//! The metrics of topics that keep one copy of a message.

use prometheus::{IntCounter, IntCounterVec};

use super::families::{CountGaugeVec, Maker};
use super::group::Count;

/// The families, one series for each group.
pub struct IdempotentFamilies {
    copies: IntCounterVec,
    pushed_out: IntCounterVec,
    remembered: CountGaugeVec,
}

/// What a group counts of such sends.
pub struct IdempotentMetrics {
    /// Sends that were answered with the place of an earlier one.
    pub copies: IntCounter,
    /// Sends that were forgotten before their time, because there are too many.
    pub pushed_out: IntCounter,
    remembered: Count,
}

impl IdempotentFamilies {
    pub(super) fn new(new: &Maker<'_>) -> Self {
        let group: &[&str] = &["group"];
        let copies = "Sends that were answered with the place of an earlier one";
        let pushed_out = "Sends that were forgotten before their time because there are too many";
        let remembered = "Sends of idempotent topics that are remembered";
        IdempotentFamilies {
            copies: new.counter("gantry_idempotent_copies_total", copies, group),
            pushed_out: new.counter("gantry_idempotent_pushed_out_total", pushed_out, group),
            remembered: new.gauge("gantry_idempotent_sends", remembered, group),
        }
    }
}

impl IdempotentMetrics {
    pub(super) fn new(of: &IdempotentFamilies, group: &str) -> Self {
        let label = &[group];
        IdempotentMetrics {
            copies: of.copies.with_label_values(label),
            pushed_out: of.pushed_out.with_label_values(label),
            remembered: of.remembered.with_label_values(label),
        }
    }

    /// Shows how many sends are remembered.
    pub fn sample(&self, remembered: usize) {
        self.remembered.set(remembered as u64);
    }
}
