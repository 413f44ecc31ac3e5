//! The JSON header encoding.
//!
//! Reading is tolerant: unknown members are skipped, absent and null ones default, and a field
//! whose value is a number or a boolean becomes its text (the C++ client sends such). Writing is
//! plain: every field a string, because the C++ client reads nothing else.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::command::{DecodeError, Encoding, RemotingCommand, blank};
use crate::fields::{FIELD_NAME_BYTES_MAX, FIELDS_MAX, Fields};
use crate::json::write_string;
use crate::language::Language;

const FIELDS_USUAL: usize = 16;
/// All of a header but its fields and its remark.
const FIXED_BYTES: usize = 160;

pub(crate) fn decode(header: &[u8]) -> Result<RemotingCommand, DecodeError> {
    let json_error = |error: serde_json::Error| DecodeError::Json(error.to_string());
    let mut reader = serde_json::Deserializer::from_slice(header);
    let visitor = HeaderVisitor {
        header_bytes: header.len(),
    };
    let command = Deserializer::deserialize_map(&mut reader, visitor).map_err(json_error)?;
    reader.end().map_err(json_error)?;
    Ok(command)
}

pub(crate) fn encode(command: &RemotingCommand, buffer: &mut BytesMut) {
    let remark = command.remark.as_deref().unwrap_or_default();
    buffer.reserve(FIXED_BYTES + remark.len() + command.fields.text_bytes() * 2);
    put_number(buffer, "{\"code\":", command.code);
    buffer.put_slice(b",\"extFields\":{");
    for (position, (name, value)) in command.fields.iter().enumerate() {
        if position > 0 {
            buffer.put_u8(b',');
        }
        write_string(name, buffer);
        buffer.put_u8(b':');
        write_string(value, buffer);
    }
    put_number(buffer, "},\"flag\":", command.flag);
    buffer.put_slice(b",\"language\":\"");
    buffer.put_slice(command.language.name().as_bytes());
    put_number(buffer, "\",\"opaque\":", command.opaque);
    if !remark.is_empty() {
        buffer.put_slice(b",\"remark\":");
        write_string(remark, buffer);
    }
    put_number(
        buffer,
        ",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":",
        command.version,
    );
    buffer.put_u8(b'}');
}

fn put_number(buffer: &mut BytesMut, before: &str, number: i32) {
    buffer.put_slice(before.as_bytes());
    write!(buffer, "{number}").expect("writing to a growing buffer cannot fail");
}

struct HeaderVisitor {
    header_bytes: usize,
}

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RemotingCommand;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut command = blank(Encoding::Json);
        while let Some(key) = map.next_key::<Name<'de>>()? {
            match key.0.as_ref() {
                "code" => command.code = map.next_value::<Option<i32>>()?.unwrap_or(0),
                "version" => command.version = map.next_value::<Option<i32>>()?.unwrap_or(0),
                "opaque" => command.opaque = map.next_value::<Option<i32>>()?.unwrap_or(0),
                "flag" => command.flag = map.next_value::<Option<i32>>()?.unwrap_or(0),
                "language" => command.language = map.next_value_seed(LanguageSeed)?,
                "remark" => {
                    let remark = map.next_value::<Option<String>>()?.unwrap_or_default();
                    command.remark = (!remark.is_empty()).then_some(Cow::Owned(remark));
                }
                "extFields" => {
                    // A second `extFields` adds to the first and finds the room already there.
                    let room = self
                        .header_bytes
                        .saturating_sub(command.fields.text_bytes());
                    command.fields.reserve(FIELDS_USUAL, room);
                    map.next_value_seed(FieldsSeed(&mut command.fields))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(command)
    }
}

struct LanguageSeed;

impl<'de> DeserializeSeed<'de> for LanguageSeed {
    type Value = Language;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Language, D::Error> {
        let name = Option::<Name<'de>>::deserialize(reader)?;
        Ok(name.map_or(Language::Other, |name| Language::from_name(&name.0)))
    }
}

/// Reads the object into the map, or leaves it empty for null.
struct FieldsSeed<'f>(&'f mut Fields);

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of header fields")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name<'de>>()? {
            if self.0.len() == FIELDS_MAX {
                return Err(A::Error::custom(format_args!(
                    "more than {FIELDS_MAX} fields"
                )));
            }
            if name.0.len() > FIELD_NAME_BYTES_MAX {
                return Err(A::Error::custom("field name too long"));
            }
            map.next_value_seed(ValueSeed {
                name: &name.0,
                fields: self.0,
            })?;
        }
        Ok(())
    }
}

/// A key that borrows from the header unless it has escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Owned(name.to_string())))
    }
}

/// Appends one field: text as it is, numbers and booleans as text, anything else not at all.
struct ValueSeed<'n, 'f> {
    name: &'n str,
    fields: &'f mut Fields,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header field")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.fields.push(self.name, value);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.fields.push_display(self.name, value);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.fields.push_display(self.name, value);
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.fields.push_display(self.name, value);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.fields.push_display(self.name, value);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
