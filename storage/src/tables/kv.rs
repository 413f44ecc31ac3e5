//! Key-value pairs in namespaces, as name servers keep them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Values by namespace and key.
///
/// Invariant: no empty namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyValues {
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl KeyValues {
    pub(super) fn put(&mut self, namespace: String, key: String, value: String) {
        self.namespaces
            .entry(namespace)
            .or_default()
            .insert(key, value);
    }

    pub(super) fn remove(&mut self, namespace: &str, key: &str) {
        let Some(values) = self.namespaces.get_mut(namespace) else {
            return;
        };
        values.remove(key);
        if values.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    pub(super) fn get(&self, namespace: &str, key: &str) -> Option<&str> {
        self.namespaces.get(namespace)?.get(key).map(String::as_str)
    }

    /// Keys and values of a namespace, ordered.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = (&str, &str)> {
        let values = self.namespaces.get(namespace).into_iter().flatten();
        values.map(|(key, value)| (key.as_str(), value.as_str()))
    }
}
