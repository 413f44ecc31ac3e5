//! Settings of consumer groups: what may be set, and how it is told.

use gantry_protocol::bodies::{
    CustomizedRetry, ExponentialRetry, FixedSubscription, GroupConfig, RetryKind,
    RetryPolicy as RetryPolicyBody,
};
use gantry_protocol::{ResponseCode, json, topic as names};
use gantry_storage::tables::{RetryPolicy, SubscriptionGroupConfig};

use crate::error::Failure;

/// Queues of a retry topic; as many as of any topic.
const RETRY_QUEUES_MAX: i32 = 4096;

/// The settings as they are stored, if they may be.
pub(super) fn checked(wanted: GroupConfig) -> Result<SubscriptionGroupConfig, Failure> {
    let invalid = |reason: String| Failure::code(ResponseCode::INVALID_PARAMETER, reason);
    names::check_group(&wanted.group_name).map_err(|error| invalid(error.to_string()))?;
    let name = wanted.group_name;
    if wanted.retry_queue_nums > RETRY_QUEUES_MAX {
        return Err(invalid(format!(
            "group {name}: more than {RETRY_QUEUES_MAX} retry queues"
        )));
    }
    let fixed = &wanted.subscription_data_set;
    let fixed = (!fixed.is_empty()).then(|| String::from_utf8_lossy(&json::to_vec(fixed)).into());
    Ok(SubscriptionGroupConfig {
        consume_enable: wanted.consume_enable,
        consume_from_min_enable: wanted.consume_from_min_enable,
        consume_broadcast_enable: wanted.consume_broadcast_enable,
        consume_message_orderly: wanted.consume_message_orderly,
        retry_queues: wanted.retry_queue_nums,
        retry_max_times: wanted.retry_max_times,
        retry_policy: stored_policy(wanted.group_retry_policy),
        broker_id: wanted.broker_id,
        which_broker_when_consume_slowly: wanted.which_broker_when_consume_slowly,
        notify_consumer_ids_changed_enable: wanted.notify_consumer_ids_changed_enable,
        group_sys_flag: wanted.group_sys_flag,
        consume_timeout_minutes: wanted.consume_timeout_minute,
        subscription_data: fixed,
        attributes: wanted.attributes,
        name,
    })
}

fn stored_policy(policy: RetryPolicyBody) -> RetryPolicy {
    let milliseconds = |value: i64| value.max(0) as u64;
    match policy.kind {
        RetryKind::Customized => {
            let waits = policy.customized_retry_policy.unwrap_or_default().next;
            RetryPolicy::Customized(waits.into_iter().map(milliseconds).collect())
        }
        RetryKind::Exponential => {
            let waits = policy.exponential_retry_policy.unwrap_or_default();
            RetryPolicy::Exponential {
                initial_ms: milliseconds(waits.initial),
                max_ms: milliseconds(waits.max),
                multiplier: milliseconds(waits.multiplier),
            }
        }
    }
}

/// The settings as clients read them.
pub(super) fn to_body(config: &SubscriptionGroupConfig) -> GroupConfig {
    let fixed = config.subscription_data.as_deref().map(fixed_subscriptions);
    GroupConfig {
        attributes: config.attributes.clone(),
        broker_id: config.broker_id,
        consume_broadcast_enable: config.consume_broadcast_enable,
        consume_enable: config.consume_enable,
        consume_from_min_enable: config.consume_from_min_enable,
        consume_message_orderly: config.consume_message_orderly,
        consume_timeout_minute: config.consume_timeout_minutes,
        group_name: config.name.clone(),
        group_retry_policy: policy_body(&config.retry_policy),
        group_sys_flag: config.group_sys_flag,
        notify_consumer_ids_changed_enable: config.notify_consumer_ids_changed_enable,
        retry_max_times: config.retry_max_times,
        retry_queue_nums: config.retry_queues,
        subscription_data_set: fixed.unwrap_or_default(),
        which_broker_when_consume_slowly: config.which_broker_when_consume_slowly,
    }
}

fn fixed_subscriptions(text: &str) -> Vec<FixedSubscription> {
    serde_json::from_str(text).expect("the text was written from such a list")
}

fn policy_body(policy: &RetryPolicy) -> RetryPolicyBody {
    match policy {
        RetryPolicy::Customized(waits) => RetryPolicyBody {
            customized_retry_policy: (!waits.is_empty()).then(|| CustomizedRetry {
                next: waits.iter().map(|wait| *wait as i64).collect(),
            }),
            exponential_retry_policy: None,
            kind: RetryKind::Customized,
        },
        RetryPolicy::Exponential {
            initial_ms,
            max_ms,
            multiplier,
        } => RetryPolicyBody {
            customized_retry_policy: None,
            exponential_retry_policy: Some(ExponentialRetry {
                initial: *initial_ms as i64,
                max: *max_ms as i64,
                multiplier: *multiplier as i64,
            }),
            kind: RetryKind::Exponential,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_being_stored() {
        let policies = [
            RetryPolicyBody::default(),
            RetryPolicyBody {
                customized_retry_policy: Some(CustomizedRetry { next: vec![1, 2] }),
                ..RetryPolicyBody::default()
            },
            RetryPolicyBody {
                exponential_retry_policy: Some(ExponentialRetry::default()),
                kind: RetryKind::Exponential,
                ..RetryPolicyBody::default()
            },
        ];
        for policy in policies {
            let config = GroupConfig {
                group_name: "g".into(),
                group_retry_policy: policy,
                retry_max_times: 3,
                subscription_data_set: vec![FixedSubscription {
                    topic: "t".into(),
                    ..FixedSubscription::default()
                }],
                ..GroupConfig::default()
            };
            assert_eq!(to_body(&checked(config.clone()).unwrap()), config);
        }
    }

    #[test]
    fn a_group_needs_a_legal_name() {
        for name in ["", "a b", &"g".repeat(121)] {
            let config = GroupConfig {
                group_name: name.into(),
                ..GroupConfig::default()
            };
            let failure = checked(config).unwrap_err();
            assert!(
                matches!(failure, Failure::Code(ResponseCode::INVALID_PARAMETER, _)),
                "{name}"
            );
        }
    }
}
