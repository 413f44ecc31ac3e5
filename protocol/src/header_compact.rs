//! The compact binary header encoding.
//!
//! ```text
//! 2      code
//! 1      language
//! 2      version
//! 4      opaque
//! 4      flag
//! 4 + n  remark; length 0 means none
//! 4 + m  fields, m bytes of { 2 + name, 4 + value }; an empty value means absent
//! ```
//!
//! Code and version have 16 bits: larger ones arrive truncated, see `RequestCode::canonical`.

use bytes::{BufMut, BytesMut};

use crate::command::{DecodeError, Encoding, RemotingCommand, blank};
use crate::fields::{FIELDS_MAX, Fields};
use crate::language::Language;

const FIELDS_USUAL: usize = 16;

pub(crate) fn decode(header: &[u8]) -> Result<RemotingCommand, DecodeError> {
    let mut rest = header;
    let mut command = blank(Encoding::RocketMq);
    command.code = i32::from(i16::from_be_bytes(take(&mut rest, "the code")?));
    let [language] = take(&mut rest, "the language")?;
    command.language = Language::from_code(language);
    command.version = i32::from(i16::from_be_bytes(take(&mut rest, "the version")?));
    command.opaque = i32::from_be_bytes(take(&mut rest, "opaque")?);
    command.flag = i32::from_be_bytes(take(&mut rest, "the flag")?);
    let remark = take_text(&mut rest, "the remark")?;
    if !remark.is_empty() {
        command.remark = Some(remark.to_string().into());
    }
    let fields = take_long(&mut rest, "the fields")?;
    if !fields.is_empty() {
        command.fields = decode_fields(fields)?;
    }
    Ok(command)
}

pub(crate) fn encode(command: &RemotingCommand, buffer: &mut BytesMut) {
    let remark = command.remark.as_deref().unwrap_or_default();
    buffer.put_i16(command.code as i16);
    buffer.put_u8(command.language.code());
    buffer.put_i16(command.version as i16);
    buffer.put_i32(command.opaque);
    buffer.put_i32(command.flag);
    put_text(remark, buffer);
    let at = buffer.len();
    buffer.put_u32(0);
    for (name, value) in command.fields.iter() {
        buffer.put_u16(name.len() as u16);
        buffer.put_slice(name.as_bytes());
        put_text(value, buffer);
    }
    let field_bytes = (buffer.len() - at - 4) as u32;
    buffer[at..at + 4].copy_from_slice(&field_bytes.to_be_bytes());
}

fn decode_fields(mut rest: &[u8]) -> Result<Fields, DecodeError> {
    let mut fields = Fields::new();
    fields.reserve(FIELDS_USUAL, rest.len());
    while !rest.is_empty() {
        if fields.len() == FIELDS_MAX {
            return Err(DecodeError::TooManyFields);
        }
        let length = i16::from_be_bytes(take(&mut rest, "a field name")?);
        let name = take_bytes(&mut rest, i32::from(length), "a field name")?;
        let name = text(name, "a field name")?;
        let value = take_text(&mut rest, "a field value")?;
        if !value.is_empty() {
            fields.push(name, value);
        }
    }
    Ok(fields)
}

fn take<const N: usize>(rest: &mut &[u8], what: &'static str) -> Result<[u8; N], DecodeError> {
    let (head, tail) = rest
        .split_first_chunk::<N>()
        .ok_or(DecodeError::Truncated(what))?;
    *rest = tail;
    Ok(*head)
}

fn take_long<'a>(rest: &mut &'a [u8], what: &'static str) -> Result<&'a [u8], DecodeError> {
    let length = i32::from_be_bytes(take(rest, what)?);
    take_bytes(rest, length, what)
}

fn take_text<'a>(rest: &mut &'a [u8], what: &'static str) -> Result<&'a str, DecodeError> {
    text(take_long(rest, what)?, what)
}

fn take_bytes<'a>(
    rest: &mut &'a [u8],
    length: i32,
    what: &'static str,
) -> Result<&'a [u8], DecodeError> {
    let length = usize::try_from(length).map_err(|_| DecodeError::NegativeLength(what))?;
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or(DecodeError::Truncated(what))?;
    *rest = tail;
    Ok(head)
}

fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8(what))
}

/// A length that does not fit is caught by the frame limit afterwards.
fn put_text(value: &str, buffer: &mut BytesMut) {
    buffer.put_u32(value.len() as u32);
    buffer.put_slice(value.as_bytes());
}
