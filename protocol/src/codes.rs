//! Request and response codes with the names that clients and tools use for them.

use std::fmt;

/// What a request asks for. Any number is representable; unknown ones have no name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestCode(pub i32);

/// The outcome of a request. Any number is representable; unknown ones have no name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResponseCode(pub i32);

/// POP codes have more than 16 bits; the compact encoding truncates them to these.
const TRUNCATED: [RequestCode; 8] = [
    RequestCode::POP_MESSAGE,
    RequestCode::ACK_MESSAGE,
    RequestCode::PEEK_MESSAGE,
    RequestCode::CHANGE_MESSAGE_INVISIBLETIME,
    RequestCode::NOTIFICATION,
    RequestCode::POLLING_INFO,
    RequestCode::POP_ROLLBACK,
    RequestCode::BATCH_ACK_MESSAGE,
];

/// Constants from one table of names and numbers, so that a name is written once.
macro_rules! codes {
    ($type:ident: $($name:ident = $code:literal;)*) => {
        #[allow(missing_docs, reason = "the names are the documentation")]
        impl $type {
            $(pub const $name: $type = $type($code);)*
        }

        impl $type {
            /// Every named code, by number.
            pub const NAMED: &'static [($type, &'static str)] =
                &[$(($type($code), stringify!($name)),)*];

            /// The name of the code.
            pub fn name(self) -> Option<&'static str> {
                let position = Self::NAMED.binary_search_by_key(&self, |(code, _)| *code).ok()?;
                Some(Self::NAMED[position].1)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{name} ({})", self.0),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<$type> for i32 {
            fn from(code: $type) -> i32 {
                code.0
            }
        }
    };
}

codes! { RequestCode:
    SEND_MESSAGE = 10;
    PULL_MESSAGE = 11;
    QUERY_MESSAGE = 12;
    QUERY_CONSUMER_OFFSET = 14;
    UPDATE_CONSUMER_OFFSET = 15;
    UPDATE_AND_CREATE_TOPIC = 17;
    UPDATE_AND_CREATE_TOPIC_LIST = 18;
    GET_ALL_TOPIC_CONFIG = 21;
    UPDATE_BROKER_CONFIG = 25;
    GET_BROKER_CONFIG = 26;
    TRIGGER_DELETE_FILES = 27;
    GET_BROKER_RUNTIME_INFO = 28;
    SEARCH_OFFSET_BY_TIMESTAMP = 29;
    GET_MAX_OFFSET = 30;
    GET_MIN_OFFSET = 31;
    GET_EARLIEST_MSG_STORETIME = 32;
    VIEW_MESSAGE_BY_ID = 33;
    HEART_BEAT = 34;
    UNREGISTER_CLIENT = 35;
    CONSUMER_SEND_MSG_BACK = 36;
    END_TRANSACTION = 37;
    GET_CONSUMER_LIST_BY_GROUP = 38;
    CHECK_TRANSACTION_STATE = 39;
    NOTIFY_CONSUMER_IDS_CHANGED = 40;
    LOCK_BATCH_MQ = 41;
    UNLOCK_BATCH_MQ = 42;
    GET_ALL_CONSUMER_OFFSET = 43;
    GET_ALL_DELAY_OFFSET = 45;
    CHECK_CLIENT_CONFIG = 46;
    PUT_KV_CONFIG = 100;
    GET_KV_CONFIG = 101;
    DELETE_KV_CONFIG = 102;
    REGISTER_BROKER = 103;
    UNREGISTER_BROKER = 104;
    GET_ROUTEINFO_BY_TOPIC = 105;
    GET_BROKER_CLUSTER_INFO = 106;
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP = 200;
    GET_ALL_SUBSCRIPTIONGROUP_CONFIG = 201;
    GET_TOPIC_STATS_INFO = 202;
    GET_CONSUMER_CONNECTION_LIST = 203;
    GET_PRODUCER_CONNECTION_LIST = 204;
    WIPE_WRITE_PERM_OF_BROKER = 205;
    GET_ALL_TOPIC_LIST_FROM_NAMESERVER = 206;
    DELETE_SUBSCRIPTIONGROUP = 207;
    GET_CONSUME_STATS = 208;
    DELETE_TOPIC_IN_BROKER = 215;
    DELETE_TOPIC_IN_NAMESRV = 216;
    REGISTER_TOPIC_IN_NAMESRV = 217;
    GET_KVLIST_BY_NAMESPACE = 219;
    RESET_CONSUMER_CLIENT_OFFSET = 220;
    GET_CONSUMER_STATUS_FROM_CLIENT = 221;
    INVOKE_BROKER_TO_RESET_OFFSET = 222;
    INVOKE_BROKER_TO_GET_CONSUMER_STATUS = 223;
    GET_TOPICS_BY_CLUSTER = 224;
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST = 225;
    QUERY_TOPIC_CONSUME_BY_WHO = 300;
    QUERY_CONSUME_TIME_SPAN = 303;
    GET_SYSTEM_TOPIC_LIST_FROM_NS = 304;
    GET_SYSTEM_TOPIC_LIST_FROM_BROKER = 305;
    CLEAN_EXPIRED_CONSUMEQUEUE = 306;
    GET_CONSUMER_RUNNING_INFO = 307;
    QUERY_CORRECTION_OFFSET = 308;
    CONSUME_MESSAGE_DIRECTLY = 309;
    SEND_MESSAGE_V2 = 310;
    GET_UNIT_TOPIC_LIST = 311;
    GET_HAS_UNIT_SUB_TOPIC_LIST = 312;
    GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST = 313;
    CLONE_GROUP_OFFSET = 314;
    VIEW_BROKER_STATS_DATA = 315;
    CLEAN_UNUSED_TOPIC = 316;
    GET_BROKER_CONSUME_STATS = 317;
    UPDATE_NAMESRV_CONFIG = 318;
    GET_NAMESRV_CONFIG = 319;
    SEND_BATCH_MESSAGE = 320;
    QUERY_CONSUME_QUEUE = 321;
    QUERY_DATA_VERSION = 322;
    RESUME_CHECK_HALF_MESSAGE = 323;
    SEND_REPLY_MESSAGE = 324;
    SEND_REPLY_MESSAGE_V2 = 325;
    PUSH_REPLY_MESSAGE_TO_CLIENT = 326;
    ADD_WRITE_PERM_OF_BROKER = 327;
    GET_ALL_PRODUCER_INFO = 328;
    DELETE_EXPIRED_COMMITLOG = 329;
    QUERY_TOPICS_BY_CONSUMER = 343;
    QUERY_SUBSCRIPTION_BY_CONSUMER = 345;
    GET_TOPIC_CONFIG = 351;
    GET_SUBSCRIPTIONGROUP_CONFIG = 352;
    UPDATE_AND_GET_GROUP_FORBIDDEN = 353;
    LITE_PULL_MESSAGE = 361;
    RECALL_MESSAGE = 370;
    QUERY_ASSIGNMENT = 400;
    SET_MESSAGE_REQUEST_MODE = 401;
    GET_ALL_MESSAGE_REQUEST_MODE = 402;
    GET_BROKER_MEMBER_GROUP = 901;
    GET_BROKER_HA_STATUS = 907;
    GET_BROKER_EPOCH_CACHE = 1007;
    POP_MESSAGE = 200_050;
    ACK_MESSAGE = 200_051;
    PEEK_MESSAGE = 200_052;
    CHANGE_MESSAGE_INVISIBLETIME = 200_053;
    NOTIFICATION = 200_054;
    POLLING_INFO = 200_055;
    POP_ROLLBACK = 200_056;
    BATCH_ACK_MESSAGE = 200_151;
}

codes! { ResponseCode:
    SUCCESS = 0;
    SYSTEM_ERROR = 1;
    SYSTEM_BUSY = 2;
    REQUEST_CODE_NOT_SUPPORTED = 3;
    TRANSACTION_FAILED = 4;
    FLUSH_DISK_TIMEOUT = 10;
    SLAVE_NOT_AVAILABLE = 11;
    FLUSH_SLAVE_TIMEOUT = 12;
    MESSAGE_ILLEGAL = 13;
    SERVICE_NOT_AVAILABLE = 14;
    VERSION_NOT_SUPPORTED = 15;
    NO_PERMISSION = 16;
    TOPIC_NOT_EXIST = 17;
    TOPIC_EXIST_ALREADY = 18;
    PULL_NOT_FOUND = 19;
    PULL_RETRY_IMMEDIATELY = 20;
    PULL_OFFSET_MOVED = 21;
    QUERY_NOT_FOUND = 22;
    SUBSCRIPTION_PARSE_FAILED = 23;
    SUBSCRIPTION_NOT_EXIST = 24;
    SUBSCRIPTION_NOT_LATEST = 25;
    SUBSCRIPTION_GROUP_NOT_EXIST = 26;
    FILTER_DATA_NOT_EXIST = 27;
    FILTER_DATA_NOT_LATEST = 28;
    INVALID_PARAMETER = 29;
    NO_BUYER_ID = 204;
    NOT_IN_CURRENT_UNIT = 205;
    CONSUMER_NOT_ONLINE = 206;
    CONSUME_MSG_TIMEOUT = 207;
    NO_MESSAGE = 208;
    POLLING_FULL = 209;
    POLLING_TIMEOUT = 210;
    BROKER_NOT_EXIST = 211;
    BROKER_DISPATCH_NOT_COMPLETE = 212;
    BROADCAST_CONSUMPTION = 213;
    FLOW_CONTROL = 215;
    NOT_LEADER_FOR_QUEUE = 501;
    ILLEGAL_OPERATION = 604;
    GO_AWAY = 1500;
    USER_NOT_EXIST = 3001;
    POLICY_NOT_EXIST = 3002;
}

impl RequestCode {
    /// The code that a truncated one stands for, or the code itself.
    ///
    /// No defined code has the number of a truncated one.
    pub fn canonical(self) -> Self {
        let found = TRUNCATED
            .iter()
            .find(|full| i32::from(full.0 as i16) == self.0);
        found.copied().unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_so_that_names_are_found() {
        assert!(RequestCode::NAMED.is_sorted_by(|a, b| a.0 < b.0));
        assert!(ResponseCode::NAMED.is_sorted_by(|a, b| a.0 < b.0));
        for (code, name) in RequestCode::NAMED {
            assert_eq!(code.name(), Some(*name));
        }
        assert_eq!(RequestCode(9999).name(), None);
        assert_eq!(RequestCode::PULL_MESSAGE.to_string(), "PULL_MESSAGE (11)");
        assert_eq!(ResponseCode(77).to_string(), "77");
    }

    #[test]
    fn truncated_pop_codes_are_recognised() {
        assert_eq!(RequestCode(3442).canonical(), RequestCode::POP_MESSAGE);
        assert_eq!(RequestCode(3443).canonical(), RequestCode::ACK_MESSAGE);
        assert_eq!(
            RequestCode(3445).canonical(),
            RequestCode::CHANGE_MESSAGE_INVISIBLETIME
        );
        assert_eq!(RequestCode(3448).canonical(), RequestCode::POP_ROLLBACK);
        assert_eq!(
            RequestCode(3543).canonical(),
            RequestCode::BATCH_ACK_MESSAGE
        );
        assert_eq!(
            RequestCode::SEND_MESSAGE.canonical(),
            RequestCode::SEND_MESSAGE
        );
        let aliased = TRUNCATED.map(|full| RequestCode(i32::from(full.0 as i16)));
        assert!(
            RequestCode::NAMED
                .iter()
                .all(|(code, _)| !aliased.contains(code))
        );
    }
}
