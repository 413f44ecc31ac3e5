//! The JSON of bodies, which is not quite JSON.
//!
//! Clients and tools write and expect two constructs beyond the standard: integer map keys without
//! quotes (`{0:"addr"}`) and objects as map keys (`{{"queueId":0}:{..}}`). The reader takes both,
//! single quotes, trailing commas and names without quotes as well; an object used as a key becomes
//! a string key that holds the object's JSON text.

use bytes::BufMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};
use thiserror::Error;

pub(crate) mod lenient;

/// Deepest nesting the reader follows.
pub const DEPTH_MAX: usize = 64;

/// A body that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// Not JSON, not even with the liberties above.
    #[error("bad JSON at byte {at}: {what}")]
    Syntax {
        /// Position in the body.
        at: usize,
        /// What was wrong there.
        what: &'static str,
    },
    /// JSON, but not of the expected shape.
    #[error("unexpected JSON: {0}")]
    Shape(String),
}

/// How integer map keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `{"0":"addr"}`: standard JSON.
    Quoted,
    /// `{0:"addr"}`: what clients before 4.9.4 were sent.
    Unquoted,
}

/// Reads one JSON value, with the liberties of this module. Empty input is an error.
///
/// # Errors
/// [`JsonError::Syntax`].
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let mut reader = Reader {
        text,
        at: 0,
        in_key: false,
    };
    reader.skip_space();
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(reader.error("text after the value"));
    }
    Ok(value)
}

/// Reads a body, which is an object, into its type. Members that are null count as absent.
///
/// # Errors
/// [`JsonError`].
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    let mut value = parse(text)?;
    if !value.is_object() {
        return Err(JsonError::Shape("not an object".into()));
    }
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(|error| JsonError::Shape(error.to_string()))
}

/// Writes a value as standard JSON.
///
/// # Panics
/// If `value` has map keys that are not strings or integers, or fails to serialize; no body does.
pub fn write<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("bodies serialize to memory without error");
}

/// A value as standard JSON.
///
/// # Panics
/// As [`write()`].
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

/// Writes a map with integer keys.
pub fn write_int_map<'a, T: Serialize + 'a>(
    entries: impl IntoIterator<Item = (&'a i64, &'a T)>,
    dialect: Dialect,
    out: &mut Vec<u8>,
) {
    let quote: &[u8] = if dialect == Dialect::Quoted {
        b"\""
    } else {
        b""
    };
    write_map(entries, out, |key, out| {
        out.extend_from_slice(quote);
        write(key, out);
        out.extend_from_slice(quote);
    });
}

/// Writes a map whose keys are objects, unquoted.
pub fn write_object_map<'a, K: Serialize + 'a, T: Serialize + 'a>(
    entries: impl IntoIterator<Item = (&'a K, &'a T)>,
    out: &mut Vec<u8>,
) {
    write_map(entries, out, |key, out| write(key, out));
}

/// Writes a JSON string with its quotes, into any buffer.
pub fn write_string(value: &str, out: &mut impl BufMut) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.put_u8(b'"');
    let mut rest = value.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain_len(rest));
        out.put_slice(plain);
        let Some((&byte, after)) = special.split_first() else {
            break;
        };
        match byte {
            b'"' | b'\\' => out.put_slice(&[b'\\', byte]),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            _ => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.put_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
        rest = after;
    }
    out.put_u8(b'"');
}

/// Bytes in front of the first one that a JSON string has a meaning for or cannot hold: a quote, a
/// backslash, a control character.
pub(crate) fn plain_len(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xFF;
    let mut length = 0;
    let mut rest = text;
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let quotes = word ^ (ONES * u64::from(b'"'));
        let backslashes = word ^ (ONES * u64::from(b'\\'));
        // The top bit of each byte: set if the byte is below 1, below 1, below 32. A borrow can set
        // it wrongly, but only above a byte where it is rightly set.
        let found = quotes.wrapping_sub(ONES) & !quotes
            | backslashes.wrapping_sub(ONES) & !backslashes
            | word.wrapping_sub(ONES * 0x20) & !word;
        let found = found & (ONES * 0x80);
        if found != 0 {
            return length + (found.trailing_zeros() / 8) as usize;
        }
        length += 8;
        rest = after;
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    length + rest.iter().position(is_special).unwrap_or(rest.len())
}

fn write_map<'a, K: 'a, T: Serialize + 'a>(
    entries: impl IntoIterator<Item = (&'a K, &'a T)>,
    out: &mut Vec<u8>,
    write_key: impl Fn(&K, &mut Vec<u8>),
) {
    out.push(b'{');
    for (position, (key, value)) in entries.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_key(key, out);
        out.push(b':');
        write(value, out);
    }
    out.push(b'}');
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// `in_key` is set while an object that is a key is read. Such an object must not have an object
/// as key itself: each level of text in text doubles its escapes.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    in_key: bool,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        if depth > DEPTH_MAX {
            return Err(self.error("nested too deeply"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"' | b'\'') => Ok(Value::String(self.string()?)),
            Some(_) => self.word(),
            None => Err(self.error("a value is missing")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut members = Map::new();
        self.at += 1;
        loop {
            self.skip_space();
            if self.eat(b'}') {
                return Ok(Value::Object(members));
            }
            let key = self.key(depth)?;
            self.skip_space();
            if !self.eat(b':') {
                return Err(self.error("a colon is missing"));
            }
            self.skip_space();
            let value = self.value(depth + 1)?;
            members.insert(key, value);
            self.separator(b'}')?;
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            self.skip_space();
            if self.eat(b']') {
                return Ok(Value::Array(items));
            }
            items.push(self.value(depth + 1)?);
            self.separator(b']')?;
        }
    }

    /// Eats the comma after a member, or leaves the closing bracket to the loop.
    fn separator(&mut self, close: u8) -> Result<(), JsonError> {
        self.skip_space();
        if self.eat(b',') || self.peek() == Some(close) {
            return Ok(());
        }
        Err(self.error("a comma or a closing bracket is missing"))
    }

    fn key(&mut self, depth: usize) -> Result<String, JsonError> {
        match self.peek() {
            Some(b'"' | b'\'') => self.string(),
            Some(b'{') if self.in_key => Err(self.error("an object key in an object key")),
            Some(b'{') => {
                self.in_key = true;
                let key = self.value(depth + 1)?.to_string();
                self.in_key = false;
                Ok(key)
            }
            Some(_) => Ok(self.bare()?.to_string()),
            None => Err(self.error("a key is missing")),
        }
    }

    /// The characters up to the next one that has a meaning.
    fn bare(&mut self) -> Result<&str, JsonError> {
        let start = self.at;
        let is_end = |byte: &u8| {
            matches!(byte, b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"')
                || byte.is_ascii_whitespace()
        };
        let rest = &self.text[start..];
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.error("a value is missing"));
        }
        self.at += length;
        std::str::from_utf8(&rest[..length]).map_err(|_| JsonError::Syntax {
            at: start,
            what: "not UTF-8",
        })
    }

    fn word(&mut self) -> Result<Value, JsonError> {
        let at = self.at;
        let word = self.bare()?;
        match word {
            "null" => Ok(Value::Null),
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => match number(word) {
                Some(number) => Ok(Value::Number(number)),
                None => Err(JsonError::Syntax {
                    at,
                    what: "neither a number nor a known word",
                }),
            },
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        let start = self.at;
        let quote = self.text[start];
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let stop = rest
                .iter()
                .position(|byte| *byte == quote || *byte == b'\\');
            let Some(stop) = stop else {
                return Err(self.error("a string without an end"));
            };
            bytes.extend_from_slice(&rest[..stop]);
            self.at += stop + 1;
            if rest[stop] == quote {
                break;
            }
            let char = self.escape()?;
            bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
        String::from_utf8(bytes).map_err(|_| JsonError::Syntax {
            at: start,
            what: "not UTF-8",
        })
    }

    /// One escape, its backslash already eaten. Half a surrogate pair reads as U+FFFD.
    fn escape(&mut self) -> Result<char, JsonError> {
        let Some(byte) = self.peek() else {
            return Err(self.error("a string without an end"));
        };
        self.at += 1;
        match byte {
            b'n' => Ok('\n'),
            b'r' => Ok('\r'),
            b't' => Ok('\t'),
            b'b' => Ok('\u{8}'),
            b'f' | b'F' => Ok('\u{c}'),
            b'v' => Ok('\u{b}'),
            b'"' | b'\'' | b'\\' | b'/' => Ok(char::from(byte)),
            b'x' => Ok(char::from(self.hex(2)? as u8)),
            b'u' => self.unicode(),
            _ => Err(self.error("an unknown escape")),
        }
    }

    fn unicode(&mut self) -> Result<char, JsonError> {
        let unit = self.hex(4)?;
        let is_high = (0xD800..0xDC00).contains(&unit);
        if !is_high || !self.text[self.at..].starts_with(b"\\u") {
            return Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before_low = self.at;
        self.at += 2;
        let low = self.hex(4)?;
        if !(0xDC00..0xE000).contains(&low) {
            self.at = before_low;
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        let scalar = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        Ok(char::from_u32(scalar).expect("a surrogate pair is a scalar value"))
    }

    fn hex(&mut self, digits: usize) -> Result<u32, JsonError> {
        let mut value = 0;
        for _ in 0..digits {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.error("a hexadecimal digit is missing"));
            };
            value = value << 4 | digit;
            self.at += 1;
        }
        Ok(value)
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn error(&self, what: &'static str) -> JsonError {
        JsonError::Syntax { at: self.at, what }
    }
}

fn number(word: &str) -> Option<Number> {
    let starts_well = word.starts_with(|char: char| char.is_ascii_digit() || "+-.".contains(char));
    if !starts_well {
        return None;
    }
    if let Ok(value) = word.parse::<i64>() {
        return Some(value.into());
    }
    if let Ok(value) = word.parse::<u64>() {
        return Some(value.into());
    }
    Number::from_f64(word.parse().ok()?)
}

#[cfg(test)]
mod tests;
