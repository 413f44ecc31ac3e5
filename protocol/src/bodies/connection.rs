//! Who is connected: bodies of 203, 204 and 328.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConsumeFromWhere, ConsumeType, MessageModel, Subscription};

/// One connected client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    /// Its address.
    pub client_addr: String,
    /// Its id.
    pub client_id: String,
    /// Name of its language, see [`crate::Language::name`].
    pub language: String,
    /// Its version ordinal.
    pub version: i32,
}

/// Response body of 203: the members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerConnection {
    /// The members.
    pub connection_set: Vec<Connection>,
    /// Where a group without offsets begins.
    pub consume_from_where: ConsumeFromWhere,
    /// How they get their messages.
    pub consume_type: ConsumeType,
    /// Who gets which message.
    pub message_model: MessageModel,
    /// Subscriptions by topic.
    pub subscription_table: BTreeMap<String, Subscription>,
}

/// Response body of 204: the producers of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerConnection {
    /// The producers.
    pub connection_set: Vec<Connection>,
}

/// One producer of [`AllProducers`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerInfo {
    /// Its id.
    pub client_id: String,
    /// Name of its language.
    pub language: String,
    /// Its last heartbeat, milliseconds since 1970.
    pub last_update_timestamp: i64,
    /// Its address.
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    /// Its version ordinal.
    pub version: i32,
}

/// Response body of 328.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllProducers {
    /// Producers by group.
    pub data: BTreeMap<String, Vec<ProducerInfo>>,
}

standard_body!(ConsumerConnection, ProducerConnection, AllProducers);
