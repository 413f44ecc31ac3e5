//! Readers for members that some client writes in another type than the others do.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};

struct IntegerVisitor;

impl Visitor<'_> for IntegerVisitor {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer, or a string of one")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<i64, E> {
        Ok(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<i64, E> {
        i64::try_from(value).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<i64, E> {
        value.parse().map_err(E::custom)
    }
}

/// An integer that may be a string: the C++ client writes 64-bit numbers so.
pub(crate) fn long<'de, D: Deserializer<'de>>(reader: D) -> Result<i64, D::Error> {
    reader.deserialize_any(IntegerVisitor)
}

/// As [`long`], for 32 bits.
pub(crate) fn int<'de, D: Deserializer<'de>>(reader: D) -> Result<i32, D::Error> {
    i32::try_from(long(reader)?).map_err(D::Error::custom)
}
