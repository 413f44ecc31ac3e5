//! Message properties in the text form they travel and are stored in.
//!
//! `name 0x01 value 0x02 name 0x01 value 0x02 ...`; the last 0x02 may be absent. Pieces without a
//! name or a separator are skipped. If a name occurs twice, the last one counts.

/// Longest properties text in bytes: its stored length has two signed bytes.
pub const PROPERTIES_BYTES_MAX: usize = i16::MAX as usize;

const NAME_END: char = '\u{1}';
const VALUE_END: char = '\u{2}';
const NAME_END_BYTE: u8 = NAME_END as u8;
const VALUE_END_BYTE: u8 = VALUE_END as u8;

/// Names that clients or brokers give a meaning to.
#[allow(missing_docs, reason = "the names are the documentation")]
pub mod names {
    pub const KEYS: &str = "KEYS";
    pub const TAGS: &str = "TAGS";
    pub const WAIT_STORE: &str = "WAIT";
    pub const DELAY_LEVEL: &str = "DELAY";
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    pub const REAL_QUEUE_ID: &str = "REAL_QID";
    pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
    pub const PRODUCER_GROUP: &str = "PGROUP";
    pub const MIN_OFFSET: &str = "MIN_OFFSET";
    pub const MAX_OFFSET: &str = "MAX_OFFSET";
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    pub const MSG_REGION: &str = "MSG_REGION";
    pub const TRACE_ON: &str = "TRACE_ON";
    pub const UNIQ_KEY: &str = "UNIQ_KEY";
    pub const CHECK_IMMUNITY_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    pub const TRANSACTION_ID: &str = "__transactionId__";
    pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
    pub const INSTANCE_ID: &str = "INSTANCE_ID";
    pub const CORRELATION_ID: &str = "CORRELATION_ID";
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    pub const TTL: &str = "TTL";
    pub const ARRIVE_TIME: &str = "ARRIVE_TIME";
    pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
    pub const CLUSTER: &str = "CLUSTER";
    pub const MSG_TYPE: &str = "MSG_TYPE";
    pub const POP_CK: &str = "POP_CK";
    pub const FIRST_POP_TIME: &str = "1ST_POP_TIME";
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    pub const INNER_NUM: &str = "INNER_NUM";
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
    pub const TIMER_DEL_UNIQKEY: &str = "TIMER_DEL_UNIQKEY";
    pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
}

/// Names and values in order. Allocates nothing.
pub fn iter(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (name_end, end) = next_piece(rest.as_bytes())?;
            let piece = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            if let Some(at @ 1..) = name_end {
                return Some((&piece[..at], &piece[at + 1..]));
            }
        }
    })
}

/// Where the first piece has its first separator, if it has one, and where it ends. One look at each
/// byte: every send passes here.
fn next_piece(text: &[u8]) -> Option<(Option<usize>, usize)> {
    let mut name_end = None;
    for (at, byte) in text.iter().enumerate() {
        match *byte {
            NAME_END_BYTE if name_end.is_none() => name_end = Some(at),
            VALUE_END_BYTE => return Some((name_end, at)),
            _ => {}
        }
    }
    (!text.is_empty()).then_some((name_end, text.len()))
}

/// The value of a property.
pub fn get<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    iter(text)
        .filter(|(candidate, _)| *candidate == name)
        .last()
        .map(|(_, value)| value)
}

/// The application's keys: the words of `KEYS`.
pub fn keys(text: &str) -> impl Iterator<Item = &str> {
    get(text, names::KEYS)
        .unwrap_or_default()
        .split(' ')
        .filter(|key| !key.is_empty())
}

/// Builds or extends a properties text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Builder {
    text: String,
}

impl Builder {
    /// Without any property.
    pub fn new() -> Self {
        Self::default()
    }

    /// Extends an existing text.
    pub fn from_text(text: &str) -> Self {
        let mut owned = String::with_capacity(text.len() + 64);
        owned.push_str(text);
        if !text.is_empty() && !text.ends_with(VALUE_END) {
            owned.push(VALUE_END);
        }
        Builder { text: owned }
    }

    /// An existing text without the properties that `drop` names.
    pub fn from_text_without(text: &str, drop: &[&str]) -> Self {
        let mut builder = Builder {
            text: String::with_capacity(text.len() + 64),
        };
        for (name, value) in iter(text).filter(|(name, _)| !drop.contains(name)) {
            builder.push(name, value);
        }
        builder
    }

    /// Appends a property; it hides an earlier one of that name.
    ///
    /// # Panics
    /// If the name is empty, or name or value contains 0x01 or 0x02. Values of clients cannot,
    /// if they were cut out of a properties text.
    pub fn push(&mut self, name: &str, value: &str) -> &mut Self {
        assert!(!name.is_empty(), "property without a name");
        for part in [name, value] {
            assert!(
                !part.contains([NAME_END, VALUE_END]),
                "separator in property {name:?}"
            );
        }
        self.text.push_str(name);
        self.text.push(NAME_END);
        self.text.push_str(value);
        self.text.push(VALUE_END);
        self
    }

    /// The text so far.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_and_reads_back() {
        let mut builder = Builder::new();
        builder
            .push("TAGS", "A")
            .push("KEYS", "k1  k2")
            .push("E", "");
        let text = builder.finish();
        assert_eq!(text, "TAGS\u{1}A\u{2}KEYS\u{1}k1  k2\u{2}E\u{1}\u{2}");
        let pairs: Vec<_> = iter(&text).collect();
        assert_eq!(pairs, [("TAGS", "A"), ("KEYS", "k1  k2"), ("E", "")]);
        assert_eq!(keys(&text).collect::<Vec<_>>(), ["k1", "k2"]);
        assert_eq!(get(&text, "none"), None);
    }

    #[test]
    fn odd_pieces_are_skipped_and_a_missing_end_is_added() {
        let odd = "\u{2}\u{2}noseparator\u{2}\u{1}noname\u{2}a\u{1}1\u{2}a\u{1}2";
        assert_eq!(iter(odd).collect::<Vec<_>>(), [("a", "1"), ("a", "2")]);
        assert_eq!(get(odd, "a"), Some("2"));
        let mut builder = Builder::from_text("a\u{1}1");
        builder.push("b", "2");
        assert_eq!(builder.as_str(), "a\u{1}1\u{2}b\u{1}2\u{2}");
        let kept = Builder::from_text_without(builder.as_str(), &["a"]);
        assert_eq!(kept.as_str(), "b\u{1}2\u{2}");
    }

    #[test]
    fn every_short_text_is_cut_where_its_separators_are() {
        let mut texts = vec![String::new()];
        for length in 0..8 {
            let shorter = texts.iter().filter(|text| text.len() == length);
            let longer =
                shorter.flat_map(|text| ["a", "\u{1}", "\u{2}"].map(|end| text.clone() + end));
            texts.extend(longer.collect::<Vec<_>>());
        }
        for text in texts {
            let pieces = text
                .split(VALUE_END)
                .filter_map(|piece| piece.split_once(NAME_END));
            let expected: Vec<_> = pieces.filter(|(name, _)| !name.is_empty()).collect();
            assert_eq!(iter(&text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    #[should_panic(expected = "separator in property")]
    fn a_separator_in_a_value_is_refused() {
        Builder::new().push("a", "x\u{2}y");
    }
}
