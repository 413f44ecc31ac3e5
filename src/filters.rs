//! Which messages a consumer wants; filter expressions of subscriptions, parsed once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use gantry_protocol::ResponseCode;
use gantry_protocol::sql::{Selector, SqlError};

use crate::error::Failure;

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

/// Which messages a consumer wants.
#[derive(Clone, Debug)]
pub enum Filter {
    /// All.
    All,
    /// Those whose tag has one of these hashes.
    Tags(Arc<HashSet<i64>>),
    /// Those whose properties an expression is true of.
    Sql(Arc<Selector>),
}

impl Filter {
    /// The filter that an expression of a type stands for.
    ///
    /// # Errors
    /// Code 23: there is no such type, or the expression is none of it.
    pub fn of(filters: &Filters, kind: &str, expression: &str) -> Result<Filter, Failure> {
        let refused =
            |reason: String| Failure::code(ResponseCode::SUBSCRIPTION_PARSE_FAILED, reason);
        match kind {
            TAG | "" => Ok(tag_hashes(expression)),
            SQL92 => {
                let selector = filters.selector(expression);
                // RocketMQ's words, and what is wrong.
                let failed =
                    |error| refused(format!("parse the consumer's subscription failed: {error}"));
                Ok(Filter::Sql(selector.map_err(failed)?))
            }
            other => Err(refused(unknown_kind(other))),
        }
    }

    /// Whether a message with this tags code may be wanted.
    pub fn matches_tag(&self, code: i64) -> bool {
        match self {
            Filter::All | Filter::Sql(_) => true,
            Filter::Tags(tags) => tags.contains(&code),
        }
    }
}

/// `a || b` as hashes; `*` and nothing mean every message.
fn tag_hashes(expression: &str) -> Filter {
    let expression = expression.trim();
    if expression.is_empty() || expression == "*" {
        return Filter::All;
    }
    let tags = expression
        .split("||")
        .map(str::trim)
        .filter(|tag| !tag.is_empty());
    let hashes = tags.map(|tag| i64::from(gantry_protocol::hash::java_hash(tag)));
    Filter::Tags(Arc::new(hashes.collect()))
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
    fn tag_expressions_are_sets_of_hashes() {
        assert!(matches!(tag_hashes("*"), Filter::All));
        assert!(matches!(tag_hashes("  "), Filter::All));
        let Filter::Tags(tags) = tag_hashes("TagA || TagB||") else {
            panic!("two tags are a filter");
        };
        let expected = ["TagA", "TagB"].map(|t| i64::from(gantry_protocol::hash::java_hash(t)));
        assert_eq!(*tags, HashSet::from(expected));
    }

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
