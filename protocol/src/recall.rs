//! The handle that a producer recalls a message with before it is due.
//!
//! `v1 <topic> <broker name> <due time, ms> <unique key>` in base64 with `-` and `_`.

use thiserror::Error;

const VERSION: &str = "v1";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A handle, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallHandle {
    /// Topic that the message is for.
    pub topic: String,
    /// Broker that has it.
    pub broker_name: String,
    /// When it is due; milliseconds since 1970.
    pub deliver_ms: u64,
    /// Its unique key.
    pub unique_key: String,
}

/// A text that is no handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a recall handle: {0}")]
pub struct NotAHandle(&'static str);

impl RecallHandle {
    /// The text that clients get.
    pub fn encode(&self) -> String {
        let RecallHandle {
            topic,
            broker_name,
            deliver_ms,
            unique_key,
        } = self;
        encode(format!("{VERSION} {topic} {broker_name} {deliver_ms} {unique_key}").as_bytes())
    }

    /// Takes a text apart that a client sent.
    ///
    /// # Errors
    /// [`NotAHandle`].
    pub fn decode(text: &str) -> Result<RecallHandle, NotAHandle> {
        let bytes = decode(text).ok_or(NotAHandle("it is not base64"))?;
        let plain = String::from_utf8(bytes).map_err(|_| NotAHandle("it is not UTF-8"))?;
        let parts: Vec<&str> = plain.split(' ').collect();
        let [version, topic, broker_name, deliver_ms, unique_key] = parts[..] else {
            return Err(NotAHandle("it does not have five parts"));
        };
        if version != VERSION {
            return Err(NotAHandle("its version is not known"));
        }
        let deliver_ms = deliver_ms.parse();
        Ok(RecallHandle {
            topic: topic.to_string(),
            broker_name: broker_name.to_string(),
            deliver_ms: deliver_ms.map_err(|_| NotAHandle("its time is not a number"))?,
            unique_key: unique_key.to_string(),
        })
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            if position > chunk.len() {
                text.push('=');
            } else {
                let index = bits >> (18 - 6 * position) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            }
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        if chunk.len() == 1 {
            return None;
        }
        let mut bits = 0u32;
        for letter in chunk {
            let value = ALPHABET.iter().position(|known| known == letter)?;
            bits = bits << 6 | value as u32;
        }
        bits <<= 6 * (4 - chunk.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_comes_back_with_and_without_its_padding() {
        for unique_key in ["K", "KE", "KEY", "0A0000070001"] {
            let handle = RecallHandle {
                topic: "T".into(),
                broker_name: "broker-a".into(),
                deliver_ms: 1_700_000_000_123,
                unique_key: unique_key.into(),
            };
            let text = handle.encode();
            assert_eq!(text.len() % 4, 0);
            assert_eq!(RecallHandle::decode(&text), Ok(handle.clone()));
            assert_eq!(RecallHandle::decode(text.trim_end_matches('=')), Ok(handle));
        }
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("~~?", "fn4_"),
        ] {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let wrong = [
            "",
            "x",
            "!!!!",
            &encode(b"v1 T b 5"),
            &encode(b"v2 T b 5 K"),
            &encode(b"v1 T b x K"),
        ];
        for text in wrong {
            assert!(RecallHandle::decode(text).is_err(), "{text}");
        }
        assert!(RecallHandle::decode(&encode(&[0xff; 9])).is_err());
    }
}
