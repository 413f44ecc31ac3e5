//! Plain lists and tables of texts: bodies of 28, 206, 219, 224, 300, 304, 305, 343.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Texts by name: runtime information (28), a key-value namespace (219).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    /// The texts.
    pub table: BTreeMap<String, String>,
}

/// Topic names: 206, 224, 304, 305, 343 and the unit lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    /// Address of some broker, only in the system topic list (304).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
    /// The names.
    pub topic_list: Vec<String>,
}

/// Group names: who consumes a topic (300).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupList {
    /// The names.
    pub group_list: Vec<String>,
}

standard_body!(KvTable, TopicList, GroupList);
