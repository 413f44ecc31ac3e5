//! Members of a group: response body of 38.

use serde::{Deserialize, Serialize};

/// Response body of the consumer list (38).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerList {
    /// Client ids of the members.
    pub consumer_id_list: Vec<String>,
}

standard_body!(ConsumerList);
