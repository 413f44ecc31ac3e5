//! Gauges whose series are known only at the scrape: what is no longer there disappears.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use super::families::CountGaugeVec;

/// One owner's series of a family. Families are shared between groups; each group shows and removes
/// its own series only.
pub struct Sampled {
    family: CountGaugeVec,
    /// Label values of the series that the family has through us. Locked for a whole replacement,
    /// so that two scrapes at once cannot remove each other's series.
    shown: Mutex<HashSet<Vec<String>>>,
}

impl Sampled {
    /// Nothing is shown yet.
    pub fn new(family: &CountGaugeVec) -> Self {
        Sampled {
            family: family.clone(),
            shown: Mutex::default(),
        }
    }

    /// Shows exactly these series. Keys are the values of the family's labels in their order.
    pub fn replace(&self, series: HashMap<Vec<String>, u64>) {
        let mut shown = self
            .shown
            .lock()
            .expect("nobody panics while replacing series");
        for (labels, value) in &series {
            self.family.with_label_values(labels).set(*value);
        }
        for gone in shown.iter().filter(|labels| !series.contains_key(*labels)) {
            self.family
                .remove_label_values(gone)
                .expect("a shown series is in its family");
        }
        *shown = series.into_keys().collect();
    }
}
