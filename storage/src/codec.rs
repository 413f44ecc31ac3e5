//! The one place that turns state into bytes with `bincode`: commands, checkpoints, the copy of the tables.
//!
//! Fixed-width integers, little-endian, no trailing bytes, and never more allocation than the input is
//! long. A version number and a CRC belong to whoever frames the bytes. Message bodies never come here.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .reject_trailing_bytes()
}

/// The bytes of `value`; the same value always gives the same bytes.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    options()
        .serialize(value)
        .expect("values of this crate have lengths and no failing serializers")
}

/// The value that `bytes` stand for, all of them.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, bincode::Error> {
    options().with_limit(bytes.len() as u64).deserialize(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back_and_nothing_else_does() {
        let value = (7u32, vec!["a".to_owned(), "b".to_owned()]);
        let mut bytes = encode(&value);
        assert_eq!(decode::<(u32, Vec<String>)>(&bytes).unwrap(), value);
        bytes.push(0);
        assert!(
            decode::<(u32, Vec<String>)>(&bytes).is_err(),
            "trailing byte"
        );
    }

    #[test]
    fn a_length_beyond_the_input_is_refused() {
        let bytes = u64::MAX.to_le_bytes();
        assert!(decode::<Vec<u8>>(&bytes).is_err());
    }
}
