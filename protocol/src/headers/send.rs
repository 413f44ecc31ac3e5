//! Sending messages: codes 10, 310, 320, 324, 325 and their response.
//!
//! The same header has two sets of names: words (10, 324) and, to save bytes, letters (310, 320,
//! 325).

use crate::fields::FieldValue;
use crate::{FieldError, Fields, RequestCode};

/// A send, single or batch, under either set of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendRequest<'a> {
    /// Group of the sender.
    pub producer_group: &'a str,
    /// Topic to append to.
    pub topic: &'a str,
    /// Topic whose settings an automatically created topic takes over.
    pub default_topic: &'a str,
    /// Most queues an automatically created topic gets.
    pub default_topic_queue_nums: i32,
    /// Queue; negative lets the broker choose.
    pub queue_id: i32,
    /// Compression and transaction bits of the stored message.
    pub sys_flag: i32,
    /// Sender's time, milliseconds since 1970.
    pub born_timestamp: i64,
    /// The application's flag.
    pub flag: i32,
    /// Properties in their stored text form, see [`crate::properties`].
    pub properties: Option<&'a str>,
    /// How often the message was delivered before, for a consumer's retry.
    pub reconsume_times: Option<i32>,
    /// Unit mode, passed through.
    pub unit_mode: Option<bool>,
    /// The body is a batch, see [`crate::batch`].
    pub batch: Option<bool>,
    /// Limit of deliveries, for a consumer's retry.
    pub max_reconsume_times: Option<i32>,
    /// Broker name, only under the short names (`n`).
    pub broker_name: Option<&'a str>,
}

/// Wire names in the order of [`SendRequest`]'s fields; words have no broker name.
const WORDS: [&str; 13] = [
    "producerGroup",
    "topic",
    "defaultTopic",
    "defaultTopicQueueNums",
    "queueId",
    "sysFlag",
    "bornTimestamp",
    "flag",
    "properties",
    "reconsumeTimes",
    "unitMode",
    "batch",
    "maxReconsumeTimes",
];
const LETTERS: [&str; 13] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "m", "l",
];
const FIELDS_USUAL: usize = WORDS.len() + 1;
/// All names and values but the properties.
const TEXT_BYTES_USUAL: usize = 256;
const BROKER_LETTER: &str = "n";

/// Whether a send code uses letters.
fn has_letters(code: RequestCode) -> bool {
    match code {
        RequestCode::SEND_MESSAGE | RequestCode::SEND_REPLY_MESSAGE => false,
        RequestCode::SEND_MESSAGE_V2
        | RequestCode::SEND_BATCH_MESSAGE
        | RequestCode::SEND_REPLY_MESSAGE_V2 => true,
        other => panic!("{other} is not a send"),
    }
}

impl<'a> SendRequest<'a> {
    /// Reads the header under the names that `code` uses.
    ///
    /// # Errors
    /// [`FieldError`] names the first field that is absent or wrong.
    ///
    /// # Panics
    /// If `code` is none of 10, 310, 320, 324, 325.
    pub fn parse(code: RequestCode, fields: &'a Fields) -> Result<Self, FieldError> {
        if has_letters(code) {
            Self::parse_letters(fields)
        } else {
            Self::parse_words(fields)
        }
    }

    /// Appends the header under the names that `code` uses.
    ///
    /// # Panics
    /// If `code` is none of 10, 310, 320, 324, 325.
    pub fn write(&self, code: RequestCode, fields: &mut Fields) {
        let is_short = has_letters(code);
        let names = if is_short { &LETTERS } else { &WORDS };
        let properties_bytes = self.properties.map_or(0, str::len);
        fields.reserve(FIELDS_USUAL, TEXT_BYTES_USUAL + properties_bytes);
        fields.write(names[0], self.producer_group);
        fields.write(names[1], self.topic);
        fields.write(names[2], self.default_topic);
        fields.write(names[3], self.default_topic_queue_nums);
        fields.write(names[4], self.queue_id);
        fields.write(names[5], self.sys_flag);
        fields.write(names[6], self.born_timestamp);
        fields.write(names[7], self.flag);
        fields.write(names[8], self.properties);
        fields.write(names[9], self.reconsume_times);
        fields.write(names[10], self.unit_mode);
        fields.write(names[11], self.batch);
        fields.write(names[12], self.max_reconsume_times);
        if is_short {
            fields.write(BROKER_LETTER, self.broker_name);
        }
    }

    /// Whether the body is a batch: the field says so, the code does not.
    pub fn is_batch(&self) -> bool {
        self.batch == Some(true)
    }

    /// One pass over the fields: sends are the hot path and the letters make it a jump table.
    fn parse_letters(fields: &'a Fields) -> Result<Self, FieldError> {
        let mut found: [Option<&'a str>; 14] = [None; 14];
        for (name, value) in fields.iter() {
            if let [letter @ b'a'..=b'n'] = name.as_bytes() {
                found[usize::from(letter - b'a')] = Some(value);
            }
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = found;
        Ok(SendRequest {
            producer_group: must("a", a)?,
            topic: must("b", b)?,
            default_topic: must("c", c)?,
            default_topic_queue_nums: must("d", d)?,
            queue_id: must("e", e)?,
            sys_flag: must("f", f)?,
            born_timestamp: must("g", g)?,
            flag: must("h", h)?,
            properties: may("i", i)?,
            reconsume_times: may("j", j)?,
            unit_mode: may("k", k)?,
            batch: may("m", m)?,
            max_reconsume_times: may("l", l)?,
            broker_name: may("n", n)?,
        })
    }

    fn parse_words(fields: &'a Fields) -> Result<Self, FieldError> {
        Ok(SendRequest {
            producer_group: fields.read(WORDS[0])?,
            topic: fields.read(WORDS[1])?,
            default_topic: fields.read(WORDS[2])?,
            default_topic_queue_nums: fields.read(WORDS[3])?,
            queue_id: fields.read(WORDS[4])?,
            sys_flag: fields.read(WORDS[5])?,
            born_timestamp: fields.read(WORDS[6])?,
            flag: fields.read(WORDS[7])?,
            properties: fields.read(WORDS[8])?,
            reconsume_times: fields.read(WORDS[9])?,
            unit_mode: fields.read(WORDS[10])?,
            batch: fields.read(WORDS[11])?,
            max_reconsume_times: fields.read(WORDS[12])?,
            broker_name: None,
        })
    }
}

fn must<'a, T: FieldValue<'a>>(
    name: &'static str,
    value: Option<&'a str>,
) -> Result<T, FieldError> {
    T::parse(name, value.ok_or(FieldError::Missing { name })?)
}

fn may<'a, T: FieldValue<'a>>(
    name: &'static str,
    value: Option<&'a str>,
) -> Result<Option<T>, FieldError> {
    <Option<T>>::parse(name, value.unwrap_or_default())
}

header! {
    /// The response to a send.
    ///
    /// The C++ client fails on a response without any field, so there is always one.
    SendResponse<'a> {
        /// The offsetMsgId; of a batch, all of them joined by commas.
        msg_id: &'a str = "msgId",
        queue_id: i32 = "queueId",
        /// Of a batch, the first message's.
        queue_offset: i64 = "queueOffset",
        /// The unique key of a prepared message.
        transaction_id: Option<&'a str> = "transactionId",
        batch_uniq_id: Option<&'a str> = "batchUniqId",
        recall_handle: Option<&'a str> = "recallHandle",
        region: Option<&'a str> = "MSG_REGION",
        trace_on: Option<bool> = "TRACE_ON",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_send_code_has_its_names_and_both_hold_the_same() {
        let request = SendRequest {
            producer_group: "P",
            topic: "T",
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
            queue_id: -1,
            sys_flag: 3,
            born_timestamp: 1_700_000_000_000,
            flag: 7,
            properties: Some("KEYS\u{1}k\u{2}"),
            reconsume_times: Some(2),
            unit_mode: Some(false),
            batch: Some(true),
            max_reconsume_times: Some(16),
            broker_name: None,
        };
        for code in [10, 310, 320, 324, 325].map(RequestCode) {
            let mut fields = Fields::new();
            request.write(code, &mut fields);
            assert_eq!(fields.get("a").is_some(), ![10, 324].contains(&code.0));
            assert_eq!(SendRequest::parse(code, &fields).unwrap(), request);
        }
        assert!(request.is_batch());
        let named = SendRequest {
            broker_name: Some("broker-a"),
            ..request
        };
        let mut fields = Fields::new();
        named.write(RequestCode::SEND_MESSAGE_V2, &mut fields);
        assert_eq!(fields.get("n"), Some("broker-a"));
        assert_eq!(fields.get("l"), Some("16"));
        assert_eq!(fields.get("m"), Some("true"));
        assert_eq!(
            SendRequest::parse(RequestCode::SEND_MESSAGE_V2, &fields).unwrap(),
            named
        );
    }

    #[test]
    fn every_required_field_is_missed_by_name() {
        let code = RequestCode::SEND_MESSAGE_V2;
        let mut whole = Fields::new();
        SendRequest::default().write(code, &mut whole);
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let mut fields = whole.clone();
            fields.remove(name);
            let error = SendRequest::parse(code, &fields).unwrap_err();
            assert_eq!(error, FieldError::Missing { name });
        }
    }
}
