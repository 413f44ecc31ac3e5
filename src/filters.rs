//! Filter expressions of subscriptions, parsed once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gantry_protocol::sql::{Selector, SqlError};

/// The type of an expression that names tags; also that of none.
pub const TAG: &str = "TAG";

/// The type of an expression over properties.
pub const SQL92: &str = "SQL92";

/// Expressions that are remembered. Each is at most 8 KiB of text, and a cluster has a few.
const KEPT_MAX: usize = 256;

type Parsed = Result<Arc<Selector>, SqlError>;

/// Parsed expressions by their text, also those that cannot be parsed: a client asks with every pull.
#[derive(Default)]
pub struct Filters {
    kept: Mutex<HashMap<String, Parsed>>,
}

impl Filters {
    /// The selector that a text stands for.
    ///
    /// # Errors
    /// [`SqlError`]: the client's fault.
    pub fn selector(&self, expression: &str) -> Parsed {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parsed) = kept.get(expression) {
            return parsed.clone();
        }
        let parsed = Selector::parse(expression).map(Arc::new);
        // Whoever sends ever new expressions pays for parsing them, and so do others then, once each.
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(expression.to_owned(), parsed.clone());
        parsed
    }
}

/// Why a filter of another type is refused.
pub fn unknown_kind(kind: &str) -> String {
    format!(
        "The broker does not support consumer to filter message by {kind}: use {TAG} or {SQL92}"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_parsed_once_and_the_memory_is_bounded() {
        let filters = Filters::default();
        let first = filters.selector("a > 1").unwrap();
        assert!(Arc::ptr_eq(&first, &filters.selector("a > 1").unwrap()));
        assert!(filters.selector("a >").is_err());
        for number in 0..2 * KEPT_MAX {
            filters.selector(&format!("a > {number}")).unwrap();
            assert!(filters.kept.lock().unwrap().len() <= KEPT_MAX);
        }
        assert_eq!(first, filters.selector("a > 1").unwrap());
    }
}
