//! What a client says about itself: request body of 34.

use serde::{Deserialize, Deserializer, Serialize};

use crate::json::lenient;

/// Request body of a heartbeat. Absent arrays read as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Heartbeat {
    /// `ip@instance`, unique per client.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Groups it produces for.
    pub producer_data_set: Vec<ProducerData>,
    /// Groups it consumes for.
    pub consumer_data_set: Vec<ConsumerData>,
    /// Hash of the subscriptions; 0 from clients that always send them.
    #[serde(deserialize_with = "lenient::int")]
    pub heartbeat_fingerprint: i32,
    /// The subscriptions are left out because the fingerprint is known.
    pub without_sub: bool,
}

/// A producer group of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerData {
    /// Group.
    pub group_name: String,
}

/// A consumer group of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerData {
    /// Group.
    pub group_name: String,
    /// How it gets its messages.
    pub consume_type: ConsumeType,
    /// Who gets which message.
    pub message_model: MessageModel,
    /// Where a group without offsets begins.
    pub consume_from_where: ConsumeFromWhere,
    /// What it subscribes to.
    pub subscription_data_set: Vec<Subscription>,
    /// Unit mode, passed through.
    pub unit_mode: bool,
}

/// One topic of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subscription {
    /// Obsolete class filter.
    pub class_filter_mode: bool,
    /// Hashes of the tags, as the client computed them; do not trust them.
    #[serde(deserialize_with = "codes")]
    pub code_set: Vec<i32>,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    /// The expression.
    pub sub_string: String,
    /// Millisecond timestamp; a higher one replaces a lower one.
    #[serde(deserialize_with = "lenient::long")]
    pub sub_version: i64,
    /// Tags of a `TAG` expression.
    pub tags_set: Vec<String>,
    /// Topic.
    pub topic: String,
}

impl Default for Subscription {
    fn default() -> Self {
        Subscription {
            class_filter_mode: false,
            code_set: Vec::new(),
            expression_type: "TAG".into(),
            sub_string: String::new(),
            sub_version: 0,
            tags_set: Vec::new(),
            topic: String::new(),
        }
    }
}

/// An enumeration that Java and Go send by name and C++ by position; an unknown name is the
/// default, so that a newer client's heartbeat is not lost altogether.
macro_rules! named_enum {
    ($(#[$meta:meta])* $type:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
        pub enum $type {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl $type {
            const NAMED: &'static [($type, &'static str)] = &[$(($type::$variant, $name),)*];

            /// The name on the wire.
            pub fn name(self) -> &'static str {
                Self::NAMED[self as usize].1
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
                let value = NameOrPosition::deserialize(reader)?;
                let found = Self::NAMED.iter().enumerate().find(|(position, (_, name))| {
                    match &value {
                        NameOrPosition::Name(text) => text.eq_ignore_ascii_case(name),
                        NameOrPosition::Position(number) => usize::try_from(*number) == Ok(*position),
                    }
                });
                Ok(found.map_or(Self::default(), |(_, (variant, _))| *variant))
            }
        }
    };
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NameOrPosition {
    Position(i64),
    Name(String),
}

named_enum! {
    /// How a consumer gets its messages.
    ConsumeType {
        /// The application pulls.
        Actively = "CONSUME_ACTIVELY",
        /// The client pulls and calls the application.
        #[default]
        Passively = "CONSUME_PASSIVELY",
        /// The broker hands out single messages.
        Pop = "CONSUME_POP",
    }
}

named_enum! {
    /// Who of a group gets which message.
    MessageModel {
        /// Every member every message.
        Broadcasting = "BROADCASTING",
        /// Each message one member.
        #[default]
        Clustering = "CLUSTERING",
    }
}

named_enum! {
    /// Where a group without offsets begins. The client applies it, not the broker.
    ConsumeFromWhere {
        /// At the end.
        #[default]
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        /// Obsolete, as the end.
        LastOffsetAndFromMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        /// Obsolete, as the end.
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        /// Obsolete, as the end.
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        /// At the beginning.
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        /// At a time.
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}

standard_body!(Heartbeat);

/// Nobody relies on the codes: a wrong one is cut to size, the heartbeat stays good.
fn codes<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<i32>, D::Error> {
    #[derive(Deserialize)]
    struct Code(#[serde(deserialize_with = "lenient::long")] i64);
    let codes = Vec::<Code>::deserialize(reader)?;
    Ok(codes.into_iter().map(|code| code.0 as i32).collect())
}
