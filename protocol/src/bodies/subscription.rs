//! Single subscriptions: request body of 46, response body of 345.

use serde::{Deserialize, Serialize};

use super::Subscription;

/// Request body of `CHECK_CLIENT_CONFIG` (46): can this expression be served?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionCheck {
    /// Client that asks.
    pub client_id: String,
    /// Its group.
    pub group: String,
    /// Passed through.
    pub namespace: String,
    /// The expression.
    pub subscription_data: Subscription,
}

/// Response body of `QUERY_SUBSCRIPTION_BY_CONSUMER` (345).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupSubscription {
    /// Group.
    pub group: String,
    /// Its subscription, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<Subscription>,
    /// Topic.
    pub topic: String,
}

standard_body!(SubscriptionCheck, GroupSubscription);
