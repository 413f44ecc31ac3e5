//! Answers as bytes: cut out of what has arrived, and read no further than the driver has to.
//!
//! An acknowledgement is a code and a number. Making a table of its header fields, as a client would, costs
//! more than all the rest that the driver does for a message.

use bytes::Bytes;
use gantry_protocol::frame::{FRAME_BYTES_MAX, PREFIX_BYTES};
use gantry_protocol::{Encoding, Frame, RemotingCommand, command};

/// One whole frame in a connection's buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    encoding: Encoding,
    header: &'a [u8],
    /// What follows the header.
    pub(super) body: &'a [u8],
    /// Bytes of the whole frame.
    pub(super) length: usize,
}

/// The part of a header that every answer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Response code, 0 for success.
    pub(super) code: i32,
    /// The number of the request that is answered.
    pub(super) opaque: i32,
    /// False for a request of the broker's own.
    pub(super) is_response: bool,
}

/// The frame at the front of `bytes`; `None` means more bytes are needed.
///
/// # Errors
/// The bytes are no frame: the connection is of no more use.
pub(super) fn cut(bytes: &[u8]) -> Result<Option<Answer<'_>>, String> {
    let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let [l0, l1, l2, l3, kind, h0, h1, h2] = *prefix;
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize + 4;
    let header = u32::from_be_bytes([0, h0, h1, h2]) as usize;
    let encoding = match kind {
        0 => Encoding::Json,
        1 => Encoding::RocketMq,
        other => return Err(format!("an answer with header encoding {other}")),
    };
    if length > FRAME_BYTES_MAX || PREFIX_BYTES + header > length {
        return Err(format!(
            "an answer of {length} bytes with a header of {header}"
        ));
    }
    if bytes.len() < length {
        return Ok(None);
    }
    let (header, body) = bytes[PREFIX_BYTES..length].split_at(header);
    Ok(Some(Answer {
        encoding,
        header,
        body,
        length,
    }))
}

impl Answer<'_> {
    /// Code and number, at the cost of one pass over the header at most.
    ///
    /// # Errors
    /// The header cannot be read.
    pub(super) fn outcome(&self) -> Result<Outcome, String> {
        let found = match self.encoding {
            Encoding::Json => scan_json(self.header),
            Encoding::RocketMq => scan_compact(self.header),
        };
        match found {
            Some(outcome) => Ok(outcome),
            None => self.command().map(|command| Outcome {
                code: command.code,
                opaque: command.opaque,
                is_response: command.is_response(),
            }),
        }
    }

    /// The whole header; the body stays where it is.
    ///
    /// # Errors
    /// The header cannot be read.
    pub(super) fn command(&self) -> Result<RemotingCommand, String> {
        let frame = Frame {
            encoding: self.encoding,
            header: Bytes::copy_from_slice(self.header),
            body: Bytes::new(),
        };
        RemotingCommand::decode(frame).map_err(|error| error.to_string())
    }

    /// Why the request failed, for people.
    pub(super) fn reason(&self) -> String {
        match self.command() {
            Ok(command) => {
                let remark = command.remark.as_deref().unwrap_or("no reason given");
                format!("{}: {remark}", command.response_code())
            }
            Err(error) => error,
        }
    }
}

fn scan_compact(header: &[u8]) -> Option<Outcome> {
    let code = i16::from_be_bytes(*header.first_chunk()?);
    let opaque = i32::from_be_bytes(*header.get(5..)?.first_chunk()?);
    let flag = i32::from_be_bytes(*header.get(9..)?.first_chunk()?);
    Some(outcome(i32::from(code), opaque, flag))
}

fn outcome(code: i32, opaque: i32, flag: i32) -> Outcome {
    Outcome {
        code,
        opaque,
        is_response: flag & command::FLAG_RESPONSE != 0,
    }
}

/// Finds the three numbers among the members of the outermost object; `None` if one is missing or is not
/// written as a plain number.
fn scan_json(header: &[u8]) -> Option<Outcome> {
    let (mut code, mut opaque, mut flag) = (None, None, None);
    let mut depth = 0;
    let mut at = 0;
    while at < header.len() {
        match header[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let start = at + 1;
                at = end_of_text(header, start)?;
                if depth == 1 {
                    let wanted = match &header[start..at] {
                        b"code" => &mut code,
                        b"opaque" => &mut opaque,
                        b"flag" => &mut flag,
                        _ => {
                            at += 1;
                            continue;
                        }
                    };
                    *wanted = number_after(&header[at + 1..]);
                    if let (Some(code), Some(opaque), Some(flag)) = (code, opaque, flag) {
                        return Some(outcome(code, opaque, flag));
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The position of the quote that ends a text.
fn end_of_text(header: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match header.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The number in `: -12,`. A text that happens to read like a member's name is followed by no colon.
fn number_after(rest: &[u8]) -> Option<i32> {
    let rest = rest.trim_ascii_start().strip_prefix(b":")?;
    let rest = rest.trim_ascii_start();
    let digits = rest
        .iter()
        .take_while(|byte| byte.is_ascii_digit() || **byte == b'-')
        .count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::BytesMut;
    use gantry_protocol::{RequestCode, ResponseCode};

    use super::*;

    fn answer(encoding: Encoding) -> BytesMut {
        let mut request = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, 1_000_000_007);
        request.encoding = encoding;
        let mut answer = RemotingCommand::response_to(
            &request,
            ResponseCode::SYSTEM_BUSY,
            r#"says "opaque":5, {"code":6"#,
        );
        answer.fields.push("code", "17");
        answer.fields.push("flag", "\"opaque\":3");
        let mut bytes = BytesMut::new();
        answer.with_body("body").encode_into(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn texts_and_fields_that_look_like_members_are_not_taken_for_them() {
        for encoding in [Encoding::Json, Encoding::RocketMq] {
            let bytes = answer(encoding);
            let answer = cut(&bytes).unwrap().unwrap();
            let wanted = Outcome {
                code: ResponseCode::SYSTEM_BUSY.0,
                opaque: 1_000_000_007,
                is_response: true,
            };
            assert_eq!(answer.outcome().unwrap(), wanted);
            assert_eq!((answer.body, answer.length), (&b"body"[..], bytes.len()));
            assert!(answer.reason().contains("says"), "{}", answer.reason());
        }
    }

    #[test]
    fn the_scan_finds_what_the_decoder_finds() {
        let bytes = answer(Encoding::Json);
        let answer = cut(&bytes).unwrap().unwrap();
        assert_eq!(scan_json(answer.header), answer.outcome().ok());
        for header in [
            r#"{"opaque": 5 , "code" : -3, "flag":1}"#,
            r#"{"extFields":{"a":[1,{"flag":0}]},"flag":1,"code":-3,"opaque":5}"#,
        ] {
            assert_eq!(scan_json(header.as_bytes()), Some(outcome(-3, 5, 1)));
        }
        assert_eq!(scan_json(br#"{"opaque":"5","code":1,"flag":1}"#), None);
    }

    #[test]
    fn part_of_a_frame_is_no_frame_and_nonsense_is_an_error() {
        let bytes = answer(Encoding::Json);
        for end in 0..bytes.len() {
            assert!(cut(&bytes[..end]).unwrap().is_none());
        }
        assert!(cut(b"GET / HTTP/1.1").is_err());
        assert!(cut(&[0, 0, 0, 5, 0, 0, 0, 9, 0]).is_err());
    }
}
