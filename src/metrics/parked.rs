//! The metrics of messages that wait: timers and transactions.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::families::{CountGaugeVec, Maker, SECONDS};
use super::group::Count;

/// The families, one series for each group.
pub struct ParkedFamilies {
    timers_pending: CountGaugeVec,
    timers_delivered: IntCounterVec,
    timers_without_topic: IntCounterVec,
    timer_lateness: HistogramVec,
    moved: IntCounterVec,
    half_messages: CountGaugeVec,
    transaction_checks: IntCounterVec,
    transactions_given_up: IntCounterVec,
}

/// What a group counts of its messages that wait.
pub struct ParkedMetrics {
    /// Messages that came to their topic when they were due.
    pub timers_delivered: IntCounter,
    /// Messages that were due when their topic was gone.
    pub timers_without_topic: IntCounter,
    /// From the time at which a message was due until its delivery was applied, in seconds.
    pub timer_lateness: Histogram,
    /// Messages that were appended again because their part of the log was to go.
    pub moved: IntCounter,
    /// Producers asked about an open transaction.
    pub transaction_checks: IntCounter,
    /// Transactions whose producers were asked often enough.
    pub transactions_given_up: IntCounter,
    timers_pending: Count,
    half_messages: Count,
}

impl ParkedFamilies {
    pub(super) fn new(new: &Maker<'_>) -> Self {
        let group: &[&str] = &["group"];
        ParkedFamilies {
            timers_pending: new.gauge(
                "gantry_timers_pending",
                "Messages that wait for their time",
                group,
            ),
            timers_delivered: new.counter(
                "gantry_timers_delivered_total",
                "Messages that came to their topic when they were due",
                group,
            ),
            timers_without_topic: new.counter(
                "gantry_timers_without_topic_total",
                "Messages that were due when their topic was gone",
                group,
            ),
            timer_lateness: new.histogram(
                "gantry_timer_lateness_seconds",
                "From the time at which a message was due until its delivery was applied",
                SECONDS,
            ),
            moved: new.counter(
                "gantry_parked_moved_total",
                "Messages that wait, appended again because their part of the log was to go",
                group,
            ),
            half_messages: new.gauge(
                "gantry_half_messages",
                "Half messages of open transactions",
                group,
            ),
            transaction_checks: new.counter(
                "gantry_transaction_checks_total",
                "Producers asked about an open transaction",
                group,
            ),
            transactions_given_up: new.counter(
                "gantry_transactions_given_up_total",
                "Transactions whose producers were asked often enough",
                group,
            ),
        }
    }
}

impl ParkedMetrics {
    pub(super) fn new(of: &ParkedFamilies, group: &str) -> Self {
        let label = &[group];
        ParkedMetrics {
            timers_delivered: of.timers_delivered.with_label_values(label),
            timers_without_topic: of.timers_without_topic.with_label_values(label),
            timer_lateness: of.timer_lateness.with_label_values(label),
            moved: of.moved.with_label_values(label),
            transaction_checks: of.transaction_checks.with_label_values(label),
            transactions_given_up: of.transactions_given_up.with_label_values(label),
            timers_pending: of.timers_pending.with_label_values(label),
            half_messages: of.half_messages.with_label_values(label),
        }
    }

    /// Shows how much waits.
    pub fn sample(&self, timers: usize, half_messages: usize) {
        self.timers_pending.set(timers as u64);
        self.half_messages.set(half_messages as u64);
    }
}
