//! The reader's liberties and limits, and the writer's dialects.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

fn parsed(text: &str) -> Value {
    parse(text.as_bytes()).unwrap()
}

#[test]
fn liberties() {
    let cases = [
        ("{0:\"a\",1:\"b\"}", json!({"0": "a", "1": "b"})),
        ("{-1:1}", json!({"-1": 1})),
        ("{'a':'x\"y',}", json!({"a": "x\"y"})),
        ("[1,2,]", json!([1, 2])),
        (
            "{{\"q\":0,\"t\":\"x\"}:{\"o\":9}}",
            json!({"{\"q\":0,\"t\":\"x\"}": {"o": 9}}),
        ),
        (
            "{ { t : 'x' } : 1 , {'t':'y'}:2}",
            json!({"{\"t\":\"x\"}": 1, "{\"t\":\"y\"}": 2}),
        ),
        (" \t\r\n[ ] ", json!([])),
        ("{\"a\":{},\"b\":[{}]}", json!({"a": {}, "b": [{}]})),
    ];
    for (text, expected) in cases {
        assert_eq!(parsed(text), expected, "{text}");
    }
}

#[test]
fn standard_json_reads_as_serde_reads_it() {
    let texts = [
        r#"{"a":[1,-2,3.5,1e3,true,false,null,"x"],"b":{"c":""}}"#,
        r#"["\"\\\/\b\f\n\r\t\u00e9\u4f60\ud83d\ude00 é"]"#,
        "9223372036854775807",
        "18446744073709551615",
        "-0.25",
        "\"text\"",
    ];
    for text in texts {
        let standard: Value = serde_json::from_str(text).unwrap();
        assert_eq!(parsed(text), standard, "{text}");
    }
    assert_eq!(parsed(r#""\ud800x""#), json!("\u{FFFD}x"));
    assert_eq!(parsed(r#""\ud800\u0041""#), json!("\u{FFFD}A"));
    assert_eq!(parsed(r#""\x41\v""#), json!("A\u{b}"));
}

#[test]
fn refusals_say_where() {
    let cases = [
        ("", 0),
        ("{", 1),
        ("{\"a\"}", 4),
        ("{\"a\":}", 5),
        ("{\"a\":1 \"b\":2}", 7),
        ("[1 2]", 3),
        ("[,]", 1),
        ("\"open", 1),
        ("\"\\q\"", 3),
        ("\"\\u12\"", 5),
        ("1 2", 2),
        ("nothing", 0),
        ("{name:'it''s'}", 10),
        ("1x", 0),
        ("NaN", 0),
    ];
    for (text, position) in cases {
        match parse(text.as_bytes()) {
            Err(JsonError::Syntax { at, .. }) => assert_eq!(at, position, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(parse(b"\"\xFF\"").is_err() && parse(b"{\xFF:1}").is_err());
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(nested(DEPTH_MAX + 1).as_bytes()).is_ok());
    assert!(parse(nested(DEPTH_MAX + 2).as_bytes()).is_err());
    assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
    assert!(parse("{\"a\":".repeat(1_000_000).as_bytes()).is_err());
}

#[test]
fn object_keys_do_not_nest() {
    assert!(parse(b"{{{\"a\":1}:1}:1}").is_err());
    assert!(parse("{".repeat(1_000_000).as_bytes()).is_err());
    let value = parsed("{{\"a\":{\"b\":1}}:{{\"c\":1}:2}}");
    assert_eq!(value, json!({"{\"a\":{\"b\":1}}": {"{\"c\":1}": 2}}));
}

#[test]
fn null_members_are_absent() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Body {
        #[serde(default)]
        list: Vec<i32>,
        #[serde(default)]
        name: String,
    }
    let body: Body = read(b"{list:null,\"name\":null}").unwrap();
    assert_eq!(
        body,
        Body {
            list: Vec::new(),
            name: String::new()
        }
    );
    assert!(matches!(
        read::<Body>(b"{\"list\":7}"),
        Err(JsonError::Shape(_))
    ));
}

#[test]
fn maps_in_every_dialect() {
    let ints: BTreeMap<i64, &str> = [(0, "a"), (-1, "b")].into();
    let mut out = Vec::new();
    write_int_map(&ints, Dialect::Unquoted, &mut out);
    write_int_map(&ints, Dialect::Quoted, &mut out);
    write_object_map(&BTreeMap::from([(["k"], 1)]), &mut out);
    write_object_map(&BTreeMap::<String, i32>::new(), &mut out);
    let expected = "{-1:\"b\",0:\"a\"}{\"-1\":\"b\",\"0\":\"a\"}{[\"k\"]:1}{}";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn strings_are_written_so_that_any_reader_reads_them() {
    let mut every = String::new();
    for code in 0..0x250 {
        every.extend(char::from_u32(code));
    }
    every.push('\u{1F600}');
    for text in ["", "plain", "\"", "\\\"\\", every.as_str()] {
        let mut out = Vec::new();
        write_string(text, &mut out);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        assert_eq!(parse(&out).unwrap(), json!(text));
    }
}

#[test]
fn plain_is_what_needs_no_escape() {
    for special in 0..=u8::MAX {
        let is_plain = !matches!(special, b'"' | b'\\' | 0..0x20);
        for before in 0..20 {
            let mut text = vec![b'!'; before];
            text.extend([special; 3]);
            text.extend(b"\x00 \x1F\"\\#[\x80\xFF      ");
            let expected = if is_plain { before + 3 } else { before };
            assert_eq!(plain_len(&text), expected, "{special} after {before}");
            assert_eq!(plain_len(&text[..before]), before);
        }
    }
}
