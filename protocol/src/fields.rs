//! The string map of a header (`extFields`): an ordered small map with typed reads.
//!
//! A header has about a dozen fields and each is read once, so the map is a list searched from its
//! end. All names and values lie in one text, which may be the header they came in: a whole header
//! costs two allocations, however many fields it has.

use std::fmt;
use std::ops::Range;

use thiserror::Error;

/// Longest field name in bytes: the compact encoding has two signed bytes for it.
pub const FIELD_NAME_BYTES_MAX: usize = i16::MAX as usize;
/// Most fields a header may have. Stock clients send fewer than 40.
pub const FIELDS_MAX: usize = 4096;

const ERROR_VALUE_CHARS_MAX: usize = 64;

/// A field that a request must have, or have in another form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FieldError {
    /// The field is required and absent.
    #[error("header field {name} is missing")]
    Missing {
        /// Name on the wire.
        name: &'static str,
    },
    /// The field must be a decimal integer of its type's range.
    #[error("header field {name} is not a number in range: {value:?}")]
    NotNumeric {
        /// Name on the wire.
        name: &'static str,
        /// The first characters of what was sent.
        value: String,
    },
    /// The field must be `true` or `false`.
    #[error("header field {name} is neither true nor false: {value:?}")]
    NotBoolean {
        /// Name on the wire.
        name: &'static str,
        /// The first characters of what was sent.
        value: String,
    },
}

/// Ordered map of header fields. If a name occurs twice, the last one counts.
///
/// Invariants: the spans of all entries lie within `text` and on character boundaries; names are at
/// most [`FIELD_NAME_BYTES_MAX`] bytes.
#[derive(Clone, Default)]
pub struct Fields {
    text: String,
    entries: Vec<Entry>,
}

/// One field: where its name and its value are.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub name: Span,
    pub value: Span,
}

/// A part of a text, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Fields {
    /// An empty map; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The fields whose names and values lie in `text` where `entries` says.
    pub(crate) fn of_text(text: String, entries: Vec<Entry>) -> Self {
        Fields { text, entries }
    }

    /// Makes room for that many more fields of `text_bytes` bytes together.
    pub fn reserve(&mut self, fields: usize, text_bytes: usize) {
        self.text.reserve(text_bytes);
        self.entries.reserve(fields);
    }

    /// Appends a field; an earlier one of that name is hidden by it.
    ///
    /// # Panics
    /// If `name` is longer than [`FIELD_NAME_BYTES_MAX`].
    pub fn push(&mut self, name: &str, value: &str) {
        let name = self.append_name(name);
        self.text.push_str(value);
        self.finish(name);
    }

    /// Appends a typed value; an absent optional writes nothing.
    pub fn write<'a, T: FieldValue<'a>>(&mut self, name: &str, value: T) {
        value.write(self, name);
    }

    /// Replaces every field of that name by one.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.push(name, value);
    }

    /// Removes every field of that name.
    pub fn remove(&mut self, name: &str) {
        let text = &self.text;
        self.entries.retain(|entry| entry.name.of(text) != name);
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .entries
            .iter()
            .rev()
            .find(|entry| entry.name.of(&self.text) == name);
        found.map(|entry| entry.value.of(&self.text))
    }

    /// Reads a typed field: `i32`, `i64`, `bool`, `&str`, or an `Option` of those.
    ///
    /// # Errors
    /// [`FieldError`] if it is absent and not optional, or does not parse.
    pub fn read<'a, T: FieldValue<'a>>(&'a self, name: &'static str) -> Result<T, FieldError> {
        T::read(self, name)
    }

    /// Names and values in wire order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .map(|entry| (entry.name.of(&self.text), entry.value.of(&self.text)))
    }

    /// Number of fields, hidden ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the text that holds all names and values.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    fn append_name(&mut self, name: &str) -> Span {
        let bytes = name.len();
        assert!(bytes <= FIELD_NAME_BYTES_MAX, "field name of {bytes} bytes");
        let start = self.text.len();
        self.text.push_str(name);
        Span::new(start, self.text.len())
    }

    /// Makes all that stands behind `name` its value.
    fn finish(&mut self, name: Span) {
        let value = Span::new(name.end as usize, self.text.len());
        self.entries.push(Entry { name, value });
    }
}

impl Span {
    /// # Panics
    /// If a position is above 4 GiB.
    #[inline]
    pub fn new(start: usize, end: usize) -> Self {
        let position = |at: usize| u32::try_from(at).expect("header text is below 4 GiB");
        Span {
            start: position(start),
            end: position(end),
        }
    }

    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub fn of(self, text: &str) -> &str {
        &text[self.range()]
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut fields = Fields::new();
        for (name, value) in pairs {
            fields.push(name, value);
        }
        fields
    }
}

/// A type that a header field can be read as and written from.
pub trait FieldValue<'a>: Sized {
    /// Reads the field.
    ///
    /// # Errors
    /// [`FieldError`] if it is absent and required, or does not parse.
    fn read(fields: &'a Fields, name: &'static str) -> Result<Self, FieldError>;

    /// Parses the text of a field that is present.
    ///
    /// # Errors
    /// [`FieldError`] if it does not parse.
    fn parse(name: &'static str, value: &'a str) -> Result<Self, FieldError>;

    /// Appends the field, unless the value is absent.
    fn write(&self, fields: &mut Fields, name: &str);
}

fn required<'a>(fields: &'a Fields, name: &'static str) -> Result<&'a str, FieldError> {
    fields.get(name).ok_or(FieldError::Missing { name })
}

fn shown(value: &str) -> String {
    value.chars().take(ERROR_VALUE_CHARS_MAX).collect()
}

impl<'a> FieldValue<'a> for &'a str {
    fn read(fields: &'a Fields, name: &'static str) -> Result<Self, FieldError> {
        required(fields, name)
    }

    fn parse(_name: &'static str, value: &'a str) -> Result<Self, FieldError> {
        Ok(value)
    }

    fn write(&self, fields: &mut Fields, name: &str) {
        fields.push(name, self);
    }
}

macro_rules! integer_field {
    ($type:ty) => {
        impl<'a> FieldValue<'a> for $type {
            fn read(fields: &'a Fields, name: &'static str) -> Result<Self, FieldError> {
                Self::parse(name, required(fields, name)?)
            }

            fn parse(name: &'static str, value: &'a str) -> Result<Self, FieldError> {
                value.parse().map_err(|_| FieldError::NotNumeric {
                    name,
                    value: shown(value),
                })
            }

            fn write(&self, fields: &mut Fields, name: &str) {
                fields.push(name, itoa::Buffer::new().format(*self));
            }
        }
    };
}

integer_field!(i32);
integer_field!(i64);

impl<'a> FieldValue<'a> for bool {
    fn read(fields: &'a Fields, name: &'static str) -> Result<Self, FieldError> {
        Self::parse(name, required(fields, name)?)
    }

    /// Accepts `1` and `0` too, and any case.
    fn parse(name: &'static str, value: &'a str) -> Result<Self, FieldError> {
        if value.eq_ignore_ascii_case("true") || value == "1" {
            return Ok(true);
        }
        if value.eq_ignore_ascii_case("false") || value == "0" {
            return Ok(false);
        }
        Err(FieldError::NotBoolean {
            name,
            value: shown(value),
        })
    }

    fn write(&self, fields: &mut Fields, name: &str) {
        fields.push(name, if *self { "true" } else { "false" });
    }
}

impl<'a, T: FieldValue<'a>> FieldValue<'a> for Option<T> {
    /// An empty value counts as absent, as it does in the compact encoding.
    fn read(fields: &'a Fields, name: &'static str) -> Result<Self, FieldError> {
        match fields.get(name) {
            None | Some("") => Ok(None),
            Some(value) => T::parse(name, value).map(Some),
        }
    }

    fn parse(name: &'static str, value: &'a str) -> Result<Self, FieldError> {
        if value.is_empty() {
            Ok(None)
        } else {
            T::parse(name, value).map(Some)
        }
    }

    fn write(&self, fields: &mut Fields, name: &str) {
        if let Some(value) = self {
            value.write(fields, name);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_last_field_of_a_name_counts() {
        let mut fields: Fields = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(fields.get("a"), Some("3"));
        fields.set("a", "4");
        let pairs: Vec<_> = fields.iter().collect();
        assert_eq!(pairs, [("b", "2"), ("a", "4")]);
        fields.remove("b");
        assert_eq!((fields.len(), fields.get("b")), (1, None));
    }

    #[test]
    fn typed_reads_name_the_field_and_show_the_value() {
        let fields: Fields = [
            ("n", "-7"),
            ("t", "TRUE"),
            ("x", "1a"),
            ("e", ""),
            ("big", "4294967296"),
        ]
        .into_iter()
        .collect();
        assert_eq!(fields.read::<i32>("n").unwrap(), -7);
        assert!(fields.read::<bool>("t").unwrap());
        assert_eq!(fields.read::<Option<i64>>("absent").unwrap(), None);
        assert_eq!(fields.read::<Option<i64>>("e").unwrap(), None);
        assert_eq!(
            fields.read::<i64>("absent"),
            Err(FieldError::Missing { name: "absent" })
        );
        let value = "1a".to_string();
        assert_eq!(
            fields.read::<i64>("x"),
            Err(FieldError::NotNumeric { name: "x", value })
        );
        assert!(matches!(
            fields.read::<i32>("big"),
            Err(FieldError::NotNumeric { .. })
        ));
        assert!(matches!(
            fields.read::<bool>("x"),
            Err(FieldError::NotBoolean { .. })
        ));
        let message = fields.read::<i32>("x").unwrap_err().to_string();
        assert_eq!(message, "header field x is not a number in range: \"1a\"");
    }

    #[test]
    fn a_long_value_is_cut_in_the_error() {
        let long = "é".repeat(1000);
        let fields: Fields = [("x", long.as_str())].into_iter().collect();
        let Err(FieldError::NotNumeric { value, .. }) = fields.read::<i32>("x") else {
            panic!("must not parse");
        };
        assert_eq!(value.chars().count(), ERROR_VALUE_CHARS_MAX);
    }
}
