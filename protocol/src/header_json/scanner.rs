//! A cursor over the JSON of a header that finds texts and resolves their escapes in place.
//!
//! It accepts what `serde_json` accepts, and leaves to it what no header has on a usual day:
//! nested values that nobody reads, and numbers that are not plain integers.
//!
//! A text with escapes becomes shorter and stays where it was; the room that it leaves behind is
//! filled with blanks, so that the whole is UTF-8 if its parts are.
//!
//! Inlining matters here: a result that goes through memory costs as much as the text it is about.

use serde::de::IgnoredAny;
use serde_json::{Deserializer, Number};
use thiserror::Error;

use crate::fields::{FIELD_NAME_BYTES_MAX, FIELDS_MAX, Span};
use crate::json::plain_len;

/// Longest integer, sign included, that surely is an `i64`.
const PLAIN_INTEGER_BYTES_MAX: usize = 18;

/// Why a header cannot be read. One byte, because every result on the way carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Problem {
    #[error("an object is missing")]
    NoObject,
    #[error("a text is missing")]
    NoText,
    #[error("a 32-bit integer is missing")]
    NoInteger,
    #[error("a value is missing")]
    NoValue,
    #[error("a colon is missing")]
    NoColon,
    #[error("a comma or a closing brace is missing")]
    NoComma,
    #[error("a text without an end")]
    OpenText,
    #[error("a control character in a text")]
    ControlCharacter,
    #[error("an unknown escape")]
    Escape,
    #[error("half a surrogate pair")]
    Surrogate,
    #[error("more than {FIELDS_MAX} fields")]
    TooManyFields,
    #[error("a field name longer than {FIELD_NAME_BYTES_MAX} bytes")]
    LongName,
    #[error("text after the header")]
    TextAfter,
}

/// Invariant: `at <= text.len()`.
pub(crate) struct Scanner<'t> {
    text: &'t mut [u8],
    at: usize,
    /// Numbers whose text is not the one in the header. Their spans count on from the header's end.
    rewritten: String,
}

impl<'t> Scanner<'t> {
    /// A cursor at the start of a header.
    pub fn new(text: &'t mut [u8]) -> Self {
        Scanner {
            text,
            at: 0,
            rewritten: String::new(),
        }
    }

    /// Where the cursor is; after an error, about where it was found.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The bytes of a text in the header; nobody has checked yet that they are UTF-8.
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.text[span.range()]
    }

    /// What belongs behind the header, so that all spans are right. Nothing may follow the value
    /// that was read.
    pub fn finish(mut self) -> Result<String, Problem> {
        self.skip_space();
        if self.at < self.text.len() {
            return Err(Problem::TextAfter);
        }
        Ok(self.rewritten)
    }

    /// Enters an object. Each of its members is then found by [`Self::member`].
    pub fn enter_object(&mut self) -> Result<(), Problem> {
        self.skip_space();
        self.expect(b'{', Problem::NoObject)
    }

    /// The name of the next member, or `None` and past the object if there is no other. The cursor
    /// is then at the member's value, which must be read or skipped before the next call.
    #[inline(always)]
    pub fn member(&mut self, is_first: bool) -> Result<Option<Span>, Problem> {
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(None);
        }
        if !is_first {
            self.expect(b',', Problem::NoComma)?;
            self.skip_space();
        }
        let name = self.string()?;
        self.skip_space();
        self.expect(b':', Problem::NoColon)?;
        self.skip_space();
        Ok(Some(name))
    }

    /// Reads a text, or null as none.
    pub fn text_or_null(&mut self) -> Result<Option<Span>, Problem> {
        if self.peek() == Some(b'n') {
            return self.word("null").map(|_| None);
        }
        self.string().map(Some)
    }

    /// Reads an integer, or null as 0.
    pub fn int_or_null(&mut self) -> Result<i32, Problem> {
        if self.peek() == Some(b'n') {
            return self.word("null").map(|_| 0);
        }
        let span = self.number_token();
        plain_integer(self.bytes(span))
            .and_then(|number| i32::try_from(number).ok())
            .ok_or(Problem::NoInteger)
    }

    /// Reads an object of fields, or null as one without any; `false` for null.
    pub fn enter_object_or_null(&mut self) -> Result<bool, Problem> {
        if self.peek() == Some(b'n') {
            return self.word("null").map(|_| false);
        }
        self.enter_object().map(|()| true)
    }

    /// Reads any value: the text of a string, number or boolean, and none for all others.
    #[inline(always)]
    pub fn scalar(&mut self) -> Result<Option<Span>, Problem> {
        match self.peek() {
            Some(b'"') => self.string().map(Some),
            Some(b't') => self.word("true").map(Some),
            Some(b'f') => self.word("false").map(Some),
            Some(b'n') => self.word("null").map(|_| None),
            Some(b'[') => self.skip().map(|()| None),
            Some(b'{') => self.skip_object().map(|()| None),
            _ => self.number().map(Some),
        }
    }

    /// Passes over any value. What is not read need not be UTF-8.
    pub fn skip(&mut self) -> Result<(), Problem> {
        let rest = &self.text[self.at..];
        let skipped = plain_string_len(rest).map_or_else(|| value_len(rest), Ok)?;
        let skipped = &mut self.text[self.at..self.at + skipped];
        self.at += skipped.len();
        if !skipped.is_ascii() {
            skipped.fill(b' ');
        }
        Ok(())
    }

    /// Passes over the value of a field, whose own names must be texts.
    fn skip_object(&mut self) -> Result<(), Problem> {
        self.enter_object()?;
        let mut is_first = true;
        while self.member(is_first)?.is_some() {
            is_first = false;
            self.skip()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn string(&mut self) -> Result<Span, Problem> {
        self.expect(b'"', Problem::NoText)?;
        let start = self.at;
        // Many are one letter or digit. A processor that guesses so need not wait for the length.
        self.at += match &self.text[start..] {
            [b'0'..=b'9' | b'a'..=b'z', b'"', ..] => 1,
            rest => plain_len(rest),
        };
        let stop = self.at;
        if self.peek() != Some(b'"') {
            return self.string_with_escapes(start);
        }
        self.at += 1;
        Ok(Span::new(start, stop))
    }

    /// The rest of a string that is plain from `start` to the cursor.
    #[inline(never)]
    fn string_with_escapes(&mut self, start: usize) -> Result<Span, Problem> {
        let mut written = self.at;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    let char = self.escape()?;
                    let size = char.len_utf8();
                    char.encode_utf8(&mut self.text[written..written + size]);
                    written += size;
                }
                Some(0..0x20) => return Err(Problem::ControlCharacter),
                Some(_) => {
                    let run = plain_len(&self.text[self.at..]);
                    self.text.copy_within(self.at..self.at + run, written);
                    self.at += run;
                    written += run;
                }
                None => return Err(Problem::OpenText),
            }
        }
        self.text[written..self.at].fill(b' ');
        self.at += 1;
        Ok(Span::new(start, written))
    }

    fn escape(&mut self) -> Result<char, Problem> {
        self.at += 1;
        let byte = self.peek();
        self.at += usize::from(byte.is_some());
        match byte {
            Some(b'u') => self.unicode(),
            Some(byte @ (b'"' | b'\\' | b'/')) => Ok(char::from(byte)),
            Some(b'n') => Ok('\n'),
            Some(b'r') => Ok('\r'),
            Some(b't') => Ok('\t'),
            Some(b'b') => Ok('\u{8}'),
            Some(b'f') => Ok('\u{c}'),
            _ => Err(Problem::Escape),
        }
    }

    fn unicode(&mut self) -> Result<char, Problem> {
        let unit = self.hex()?;
        let is_high = (0xD800..0xDC00).contains(&unit);
        if !is_high {
            return char::from_u32(unit).ok_or(Problem::Surrogate);
        }
        self.expect(b'\\', Problem::Surrogate)?;
        self.expect(b'u', Problem::Surrogate)?;
        let low = self.hex()?;
        if !(0xDC00..0xE000).contains(&low) {
            return Err(Problem::Surrogate);
        }
        let scalar = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        Ok(char::from_u32(scalar).expect("a surrogate pair is a scalar value"))
    }

    fn hex(&mut self) -> Result<u32, Problem> {
        let digits = self.text[self.at..].first_chunk::<4>();
        let digits = digits.ok_or(Problem::OpenText)?;
        let mut unit = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16);
            let digit = digit.ok_or(Problem::Escape)?;
            unit = unit << 4 | digit;
        }
        self.at += 4;
        Ok(unit)
    }

    /// A number as Rust would display it, which for most is as it stands there.
    fn number(&mut self) -> Result<Span, Problem> {
        let token = self.number_token();
        if plain_integer(self.bytes(token)).is_some() {
            return Ok(token);
        }
        let number: Number =
            serde_json::from_slice(self.bytes(token)).map_err(|_| Problem::NoValue)?;
        let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
            return Ok(token);
        };
        let start = self.text.len() + self.rewritten.len();
        self.rewritten.push_str(&float.to_string());
        Ok(Span::new(start, self.text.len() + self.rewritten.len()))
    }

    /// All that can belong to a number.
    fn number_token(&mut self) -> Span {
        let start = self.at;
        let rest = &self.text[start..];
        let belongs = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        self.at += rest.iter().take_while(belongs).count();
        Span::new(start, self.at)
    }

    fn word(&mut self, word: &'static str) -> Result<Span, Problem> {
        let start = self.at;
        if !self.text[start..].starts_with(word.as_bytes()) {
            return Err(Problem::NoValue);
        }
        self.at += word.len();
        Ok(Span::new(start, self.at))
    }

    #[inline(always)]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8, otherwise: Problem) -> Result<(), Problem> {
        if self.peek() != Some(byte) {
            return Err(otherwise);
        }
        self.at += 1;
        Ok(())
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
}

/// Bytes of the string that `rest` begins with, if it does and the string has no escapes.
fn plain_string_len(rest: &[u8]) -> Option<usize> {
    let (b'"', inside) = rest.split_first()? else {
        return None;
    };
    let length = plain_len(inside);
    (inside.get(length) == Some(&b'"')).then_some(length + 2)
}

/// Bytes of the value that `rest` begins with.
fn value_len(rest: &[u8]) -> Result<usize, Problem> {
    let mut values = Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Ok(values.byte_offset()),
        Some(Err(_)) | None => Err(Problem::NoValue),
    }
}

/// The value of an integer in its shortest form that is not -0, which is a float.
fn plain_integer(token: &[u8]) -> Option<i64> {
    let digits = token.strip_prefix(b"-").unwrap_or(token);
    let is_short = match digits {
        [b'0'] => digits.len() == token.len(),
        [b'1'..=b'9', ..] => token.len() <= PLAIN_INTEGER_BYTES_MAX,
        _ => false,
    };
    if !is_short || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some(if digits.len() < token.len() {
        -value
    } else {
        value
    })
}
