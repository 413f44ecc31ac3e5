//! Groups: response bodies of 38 and 353.

use serde::{Deserialize, Serialize};

/// Response body of the consumer list (38).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerList {
    /// Client ids of the members.
    pub consumer_id_list: Vec<String>,
}

/// Response body of `UPDATE_AND_GET_GROUP_FORBIDDEN` (353).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupForbidden {
    /// Group.
    pub group: String,
    /// Whether it may read the topic.
    pub readable: bool,
    /// Topic.
    pub topic: String,
}

standard_body!(ConsumerList, GroupForbidden);
