//! A remoting command: what one frame means, in either header encoding.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::codes::{RequestCode, ResponseCode};
use crate::fields::{FIELDS_MAX, Fields};
use crate::frame::{self, FRAME_BYTES_MAX, Frame, PREFIX_BYTES};
use crate::language::Language;
use crate::{header_compact, header_json, version};

/// Bit of `flag`: this command is a response.
pub const FLAG_RESPONSE: i32 = 1;
/// Bit of `flag`: no response must be sent.
pub const FLAG_ONEWAY: i32 = 2;

/// How a header is encoded. The numbers are those of the frame's type byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// A JSON object.
    Json = 0,
    /// The compact binary layout.
    RocketMq = 1,
}

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotingCommand {
    /// Request code, or response code if this is a response.
    pub code: i32,
    /// Language of the sender.
    pub language: Language,
    /// Version ordinal of the sender, see [`crate::version`].
    pub version: i32,
    /// Number that pairs a response with its request; each side counts its own requests.
    pub opaque: i32,
    /// [`FLAG_RESPONSE`] and [`FLAG_ONEWAY`].
    pub flag: i32,
    /// Reason of a failure. Never `Some("")`: an empty remark decodes as none.
    pub remark: Option<Cow<'static, str>>,
    /// The typed header's fields as text.
    pub fields: Fields,
    /// The body; empty if there is none.
    pub body: Bytes,
    /// Encoding it came in, or will go out in.
    pub encoding: Encoding,
}

/// A frame whose header cannot be read. Its length was right, so the stream still has its place,
/// but without the number of the request no answer is possible: close the connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The JSON header is not a JSON object, or one of its members has a wrong type.
    #[error("JSON header: {0}")]
    Json(String),
    /// The compact header ends before the named part.
    #[error("compact header ends within {0}")]
    Truncated(&'static str),
    /// A part of the compact header has a negative length.
    #[error("negative length of {0}")]
    NegativeLength(&'static str),
    /// A text is not UTF-8.
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
    /// More than [`FIELDS_MAX`] fields.
    #[error("more than {FIELDS_MAX} header fields")]
    TooManyFields,
}

/// A command that does not fit in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("command of {bytes} bytes is above the frame limit of {FRAME_BYTES_MAX}")]
pub struct CommandTooLarge {
    /// Size the frame would have had.
    pub bytes: usize,
}

impl RemotingCommand {
    /// A request of ours, in JSON, without fields and body.
    pub fn request(code: RequestCode, opaque: i32) -> Self {
        RemotingCommand {
            code: code.0,
            language: Language::Java,
            version: version::CURRENT,
            opaque,
            flag: 0,
            remark: None,
            fields: Fields::new(),
            body: Bytes::new(),
            encoding: Encoding::Json,
        }
    }

    /// The response to `request`: same number, same encoding. An empty remark is none.
    pub fn response_to(
        request: &RemotingCommand,
        code: ResponseCode,
        remark: impl Into<Cow<'static, str>>,
    ) -> Self {
        let remark = remark.into();
        RemotingCommand {
            code: code.0,
            language: Language::Java,
            version: version::CURRENT,
            opaque: request.opaque,
            flag: FLAG_RESPONSE,
            remark: (!remark.is_empty()).then_some(remark),
            fields: Fields::new(),
            body: Bytes::new(),
            encoding: request.encoding,
        }
    }

    /// The successful response to `request`.
    pub fn success_to(request: &RemotingCommand) -> Self {
        Self::response_to(request, ResponseCode::SUCCESS, "")
    }

    /// The same command with that body.
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The same command, marked as one that must not be answered.
    pub fn into_oneway(mut self) -> Self {
        self.flag |= FLAG_ONEWAY;
        self
    }

    /// Whether this is a response.
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether no response must be sent.
    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// The request code, with the truncated codes of the compact encoding resolved.
    pub fn request_code(&self) -> RequestCode {
        RequestCode(self.code).canonical()
    }

    /// The response code.
    pub fn response_code(&self) -> ResponseCode {
        ResponseCode(self.code)
    }

    /// Decodes the header of a frame; the body stays a slice of the connection's buffer.
    ///
    /// # Errors
    /// [`DecodeError`]; the connection should be closed.
    pub fn decode(frame: Frame) -> Result<Self, DecodeError> {
        let mut command = match frame.encoding {
            Encoding::Json => header_json::decode(&frame.header)?,
            Encoding::RocketMq => header_compact::decode(&frame.header)?,
        };
        command.body = frame.body;
        Ok(command)
    }

    /// Appends the whole frame to `buffer`, in one pass.
    ///
    /// # Errors
    /// [`CommandTooLarge`]; the buffer is then as it was.
    pub fn encode_into(&self, buffer: &mut BytesMut) -> Result<(), CommandTooLarge> {
        self.encode_head_into(buffer, self.body.len())?;
        buffer.extend_from_slice(&self.body);
        Ok(())
    }

    /// Appends all but the body, announcing a body of `body_bytes` that the caller sends after it.
    /// The command's own body is not looked at.
    ///
    /// # Errors
    /// [`CommandTooLarge`]; the buffer is then as it was.
    pub fn encode_head_into(
        &self,
        buffer: &mut BytesMut,
        body_bytes: usize,
    ) -> Result<(), CommandTooLarge> {
        let start = buffer.len();
        buffer.extend_from_slice(&[0; PREFIX_BYTES]);
        match self.encoding {
            Encoding::Json => header_json::encode(self, buffer),
            Encoding::RocketMq => header_compact::encode(self, buffer),
        }
        let header_bytes = buffer.len() - start - PREFIX_BYTES;
        let bytes = PREFIX_BYTES + header_bytes + body_bytes;
        if bytes > FRAME_BYTES_MAX {
            buffer.truncate(start);
            return Err(CommandTooLarge { bytes });
        }
        let prefix = frame::prefix(self.encoding, header_bytes, body_bytes);
        buffer[start..start + PREFIX_BYTES].copy_from_slice(&prefix);
        Ok(())
    }
}

/// The command that a header without any member stands for.
pub(crate) fn blank(encoding: Encoding) -> RemotingCommand {
    RemotingCommand {
        code: 0,
        language: Language::Other,
        version: 0,
        opaque: 0,
        flag: 0,
        remark: None,
        fields: Fields::new(),
        body: Bytes::new(),
        encoding,
    }
}

#[cfg(test)]
mod tests;
