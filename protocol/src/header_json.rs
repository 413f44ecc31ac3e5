//! The JSON header encoding.
//!
//! Reading is tolerant: unknown members are skipped, absent and null ones default, and a field
//! whose value is a number or a boolean becomes its text (the C++ client sends such). Writing is
//! plain: every field a string, because the C++ client reads nothing else.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::command::{DecodeError, Encoding, RemotingCommand, blank};
use crate::fields::{Entry, FIELD_NAME_BYTES_MAX, FIELDS_MAX, Fields, Span};
use crate::json::write_string;
use crate::language::Language;
use scanner::{Problem, Scanner};

mod scanner;

const FIELDS_USUAL: usize = 16;
/// All of a header but its fields and its remark.
const FIXED_BYTES: usize = 160;

pub(crate) fn decode(header: &[u8]) -> Result<RemotingCommand, DecodeError> {
    let mut text = header.to_vec();
    let mut read = Read {
        command: blank(Encoding::Json),
        remark: None,
        fields: Vec::with_capacity(FIELDS_USUAL),
    };
    let mut scanner = Scanner::new(&mut text);
    let members = read.members(&mut scanner);
    let at = scanner.position();
    let rewritten = members
        .and_then(|()| scanner.finish())
        .map_err(|problem| DecodeError::Json(format!("{problem} at byte {at}")))?;
    text.extend_from_slice(rewritten.as_bytes());
    let text = String::from_utf8(text).map_err(|error| DecodeError::Json(error.to_string()))?;
    Ok(read.finish(text))
}

/// What was read so far. Texts are known by their places only.
struct Read {
    command: RemotingCommand,
    remark: Option<Span>,
    fields: Vec<Entry>,
}

impl Read {
    fn members(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Problem> {
        let mut is_first = true;
        scanner.enter_object()?;
        while let Some(name) = scanner.member(is_first)? {
            is_first = false;
            match scanner.bytes(name) {
                b"code" => self.command.code = scanner.int_or_null()?,
                b"version" => self.command.version = scanner.int_or_null()?,
                b"opaque" => self.command.opaque = scanner.int_or_null()?,
                b"flag" => self.command.flag = scanner.int_or_null()?,
                b"language" => self.command.language = language(scanner)?,
                b"remark" => self.remark = scanner.text_or_null()?,
                b"extFields" => self.fields(scanner)?,
                _ => scanner.skip()?,
            }
        }
        Ok(())
    }

    /// A second `extFields` adds to the first.
    fn fields(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Problem> {
        let mut is_first = true;
        if !scanner.enter_object_or_null()? {
            return Ok(());
        }
        while let Some(name) = scanner.member(is_first)? {
            is_first = false;
            if self.fields.len() == FIELDS_MAX {
                return Err(Problem::TooManyFields);
            }
            if name.len() > FIELD_NAME_BYTES_MAX {
                return Err(Problem::LongName);
            }
            if let Some(value) = scanner.scalar()? {
                self.fields.push(Entry { name, value });
            }
        }
        Ok(())
    }

    fn finish(mut self, text: String) -> RemotingCommand {
        let remark = self.remark.map(|span| span.of(&text).to_string());
        let remark = remark.filter(|remark| !remark.is_empty());
        self.command.remark = remark.map(Cow::Owned);
        self.command.fields = Fields::of_text(text, self.fields);
        self.command
    }
}

/// One that is not UTF-8 is found out at the end, with the rest of the header.
fn language(scanner: &mut Scanner<'_>) -> Result<Language, Problem> {
    let name = scanner.text_or_null()?;
    let name = name.and_then(|name| std::str::from_utf8(scanner.bytes(name)).ok());
    Ok(name.map_or(Language::Other, Language::from_name))
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
    buffer.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests;
