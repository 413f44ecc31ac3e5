//! Commands over the wire: hand-computed bytes, what other clients send, limits.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::fields::FIELD_NAME_BYTES_MAX;

fn encoded(command: &RemotingCommand) -> BytesMut {
    let mut buffer = BytesMut::new();
    command.encode_into(&mut buffer).unwrap();
    buffer
}

fn decoded(mut buffer: BytesMut) -> RemotingCommand {
    let frame = frame::cut(&mut buffer).unwrap().unwrap();
    assert!(buffer.is_empty());
    RemotingCommand::decode(frame).unwrap()
}

fn decode_header(encoding: Encoding, header: &[u8]) -> Result<RemotingCommand, DecodeError> {
    let header = Bytes::copy_from_slice(header);
    RemotingCommand::decode(Frame {
        encoding,
        header,
        body: Bytes::new(),
    })
}

fn json(header: &str) -> Result<RemotingCommand, DecodeError> {
    decode_header(Encoding::Json, header.as_bytes())
}

fn send() -> RemotingCommand {
    RemotingCommand {
        code: 310,
        language: Language::Go,
        version: 317,
        opaque: 5,
        flag: 0,
        remark: None,
        fields: [("a", "P")].into_iter().collect(),
        body: Bytes::from_static(b"hi"),
        encoding: Encoding::RocketMq,
    }
}

#[test]
fn golden_compact_frame() {
    let golden = [
        0, 0, 0, 35, 1, 0, 0, 29, // prefix: 35 = 4 + 29 + 2
        0x01, 0x36, 9, 0x01, 0x3D, // code 310, Go, version 317
        0, 0, 0, 5, 0, 0, 0, 0, // opaque, flag
        0, 0, 0, 0, // no remark
        0, 0, 0, 8, 0, 1, b'a', 0, 0, 0, 1, b'P', // one field
        b'h', b'i',
    ];
    assert_eq!(&encoded(&send())[..], &golden[..]);
    assert_eq!(decoded(BytesMut::from(&golden[..])), send());
}

#[test]
fn golden_json_frame() {
    let mut command = RemotingCommand::response_to(&send(), ResponseCode(16), "no \u{e9}\u{1}");
    command.encoding = Encoding::Json;
    command.fields.push("k\"", "a\\b\n\u{2}");
    let header = "{\"code\":16,\"extFields\":{\"k\\\"\":\"a\\\\b\\n\\u0002\"},\"flag\":1,\
                  \"language\":\"JAVA\",\"opaque\":5,\"remark\":\"no \u{e9}\\u0001\",\
                  \"serializeTypeCurrentRPC\":\"JSON\",\"version\":479}";
    let length = header.len() as u8;
    let golden = [&[0, 0, 0, length + 4, 0, 0, 0, length], header.as_bytes()].concat();
    assert_eq!(&encoded(&command)[..], &golden[..]);
    assert_eq!(decoded(BytesMut::from(&golden[..])), command);
}

#[test]
fn json_that_other_clients_send() {
    let command = json(
        r#"{ "code":11, "language":"CPP", "version":333, "opaque":-3, "flag":2, "remark":null,
             "extFields":{"queueId":4,"offset":-9007199254740993,"big":18446744073709551615,
                          "half":0.5,"k":false,"Signature":"","none":null,"list":[1,{"a":2}],
                          "object":{"x":[]},"esc\u0041pe":"\u0001\u4f60\/","queueId":"5"},
             "serializeTypeCurrentRPC":"JSON", "future":{"a":[1,2,{"b":null}]} }"#,
    )
    .unwrap();
    assert_eq!(
        (command.code, command.opaque, command.version),
        (11, -3, 333)
    );
    assert_eq!(command.language, Language::Cpp);
    assert!(command.is_oneway() && !command.is_response() && command.remark.is_none());
    let get = |name| command.fields.get(name);
    assert_eq!(get("queueId"), Some("5"));
    assert_eq!(get("offset"), Some("-9007199254740993"));
    assert_eq!(get("big"), Some("18446744073709551615"));
    assert_eq!(
        (get("half"), get("k"), get("Signature")),
        (Some("0.5"), Some("false"), Some(""))
    );
    assert_eq!(
        (get("none"), get("list"), get("object")),
        (None, None, None)
    );
    assert_eq!(get("escApe"), Some("\u{1}\u{4f60}/"));
}

#[test]
fn json_members_may_be_absent_or_null() {
    let empty = json("{}").unwrap();
    assert_eq!(
        (empty.code, empty.opaque, empty.flag, empty.version),
        (0, 0, 0, 0)
    );
    assert_eq!((empty.language, empty.fields.len()), (Language::Other, 0));
    let nulls = r#"{"code":null,"language":null,"version":null,"opaque":null,"flag":null,
                    "remark":"","extFields":null}"#;
    assert_eq!(json(nulls).unwrap(), empty);
    assert_eq!(
        json(r#"{"language":"KLINGON"}"#).unwrap().language,
        Language::Other
    );
}

#[test]
fn bad_json_headers_are_errors() {
    let cases = [
        "",
        "[]",
        "7",
        "{",
        "{}x",
        r#"{"code":"a"}"#,
        r#"{"code":2147483648}"#,
        r#"{"code":1.5}"#,
        r#"{"extFields":7}"#,
        r#"{"extFields":[]}"#,
        r#"{"remark":7}"#,
        "{\"extFields\":{\"a\":\"\\ud800\"}}",
    ];
    for header in cases {
        assert!(
            matches!(json(header), Err(DecodeError::Json(_))),
            "{header}"
        );
    }
    let not_utf8 = decode_header(Encoding::Json, b"{\"remark\":\"\xFF\"}");
    assert!(matches!(not_utf8, Err(DecodeError::Json(_))));
}

#[test]
fn bad_compact_headers_are_errors() {
    let whole = encoded(&send());
    let header = &whole[8..37];
    for cut in 0..header.len() {
        let error = decode_header(Encoding::RocketMq, &header[..cut]).unwrap_err();
        assert!(
            matches!(error, DecodeError::Truncated(_)),
            "cut at {cut}: {error}"
        );
    }
    let changed = |position: usize, value: u8| {
        let mut bytes = header.to_vec();
        bytes[position] = value;
        decode_header(Encoding::RocketMq, &bytes).unwrap_err()
    };
    assert_eq!(changed(13, 0x80), DecodeError::NegativeLength("the remark"));
    assert_eq!(changed(17, 0xFF), DecodeError::NegativeLength("the fields"));
    assert_eq!(
        changed(21, 0xFF),
        DecodeError::NegativeLength("a field name")
    );
    assert_eq!(changed(23, 0xFF), DecodeError::NotUtf8("a field name"));
    assert_eq!(
        changed(24, 0x90),
        DecodeError::NegativeLength("a field value")
    );
    assert_eq!(changed(28, 0xC0), DecodeError::NotUtf8("a field value"));
    assert_eq!(changed(27, 9), DecodeError::Truncated("a field value"));
}

#[test]
fn too_many_fields_are_refused_in_both_encodings() {
    let mut command = send();
    for _ in 1..FIELDS_MAX {
        command.fields.push("a", "P");
    }
    for encoding in [Encoding::Json, Encoding::RocketMq] {
        command.encoding = encoding;
        assert_eq!(decoded(encoded(&command)).fields.len(), FIELDS_MAX);
        let mut more = command.clone();
        more.fields.push("a", "P");
        let frame = frame::cut(&mut encoded(&more)).unwrap().unwrap();
        let error = RemotingCommand::decode(frame).unwrap_err();
        assert!(error.to_string().contains("more than 4096"), "{error}");
    }
}

#[test]
fn long_field_names_are_refused_in_json() {
    let header = |bytes: usize| format!("{{\"extFields\":{{\"{}\":\"\"}}}}", "n".repeat(bytes));
    assert!(json(&header(FIELD_NAME_BYTES_MAX)).is_ok());
    assert!(json(&header(FIELD_NAME_BYTES_MAX + 1)).is_err());
}

#[test]
fn an_empty_compact_value_is_absent() {
    let mut command = send();
    command.fields.push("empty", "");
    let back = decoded(encoded(&command));
    assert_eq!((back.fields.get("empty"), back.fields.len()), (None, 1));
}

#[test]
fn responses_repeat_number_and_encoding() {
    for encoding in [Encoding::Json, Encoding::RocketMq] {
        let request = RemotingCommand {
            encoding,
            opaque: -9,
            ..send()
        };
        let failure = RemotingCommand::response_to(&request, ResponseCode::SYSTEM_ERROR, "why");
        let back = decoded(encoded(&failure));
        assert_eq!(back, failure);
        assert_eq!(
            (back.opaque, back.encoding, back.version),
            (-9, encoding, 479)
        );
        assert!(back.is_response() && !back.is_oneway());
        assert_eq!(back.response_code(), ResponseCode::SYSTEM_ERROR);
        assert_eq!(back.remark.as_deref(), Some("why"));
        let success = RemotingCommand::success_to(&request).with_body("body");
        assert_eq!(success.remark, None);
        assert_eq!(decoded(encoded(&success)), success);
    }
}

#[test]
fn pop_codes_survive_the_compact_encoding() {
    let mut command = RemotingCommand::request(RequestCode::POP_MESSAGE, 1).into_oneway();
    command.encoding = Encoding::RocketMq;
    let back = decoded(encoded(&command));
    assert_eq!(back.code, 3442);
    assert_eq!(back.request_code(), RequestCode::POP_MESSAGE);
    assert!(back.is_oneway());
}

#[test]
fn a_head_and_a_body_sent_apart_make_the_same_frame() {
    let command = send();
    let mut apart = BytesMut::from(&b"before"[..]);
    let without_body = RemotingCommand {
        body: Bytes::new(),
        ..command.clone()
    };
    without_body
        .encode_head_into(&mut apart, command.body.len())
        .unwrap();
    apart.extend_from_slice(&command.body);
    assert_eq!(apart[6..], encoded(&command)[..]);
}

#[test]
fn what_does_not_fit_in_a_frame_is_refused_and_leaves_no_trace() {
    for encoding in [Encoding::Json, Encoding::RocketMq] {
        let command = RemotingCommand { encoding, ..send() };
        let mut buffer = BytesMut::from(&b"before"[..]);
        command.encode_head_into(&mut buffer, 0).unwrap();
        let room = FRAME_BYTES_MAX - (buffer.len() - 6);
        buffer.truncate(6);
        let error = command.encode_head_into(&mut buffer, room + 1).unwrap_err();
        assert_eq!(
            error,
            CommandTooLarge {
                bytes: FRAME_BYTES_MAX + 1
            }
        );
        assert_eq!(&buffer[..], b"before");
        command.encode_head_into(&mut buffer, room).unwrap();
    }
}
