//! Reads generated and damaged headers and compares with what `serde_json` makes of them.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::*;

/// The same header read member by member through serde.
#[derive(Default)]
struct Expected {
    ints: HashMap<String, i32>,
    language: Option<String>,
    remark: Option<String>,
    fields: Fields,
}

fn expected(header: &[u8]) -> Result<Expected, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(header);
    let expected = Deserializer::deserialize_map(&mut reader, HeaderVisitor)?;
    reader.end()?;
    Ok(expected)
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Expected;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Expected, A::Error> {
        let mut header = Expected::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "code" | "version" | "opaque" | "flag" => {
                    let value = map.next_value::<Option<i32>>()?.unwrap_or(0);
                    header.ints.insert(name, value);
                }
                "language" => header.language = map.next_value()?,
                "remark" => header.remark = map.next_value()?,
                "extFields" => map.next_value_seed(FieldsSeed(&mut header.fields))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(header)
    }
}

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
        while let Some((name, value)) = map.next_entry::<String, Scalar>()? {
            if let Some(value) = value.0 {
                self.0.push(&name, &value);
            }
        }
        Ok(())
    }
}

/// The text of a string, number or boolean.
struct Scalar(Option<String>);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header field")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar(Some(value.to_string())))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar(Some(value.to_string())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar(Some(value.to_string())))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar(Some(value.to_string())))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar(Some(value.to_string())))
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
        Ok(Scalar(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar(None))
    }
}

fn check(header: &[u8]) -> bool {
    let shown = String::from_utf8_lossy(header);
    let (command, expected) = match (decode(header), expected(header)) {
        (Ok(command), Ok(expected)) => (command, expected),
        (Err(_), Err(_)) => return false,
        (ours, theirs) => panic!("{shown}\n{ours:?}\n{:?}", theirs.err()),
    };
    let int = |name| expected.ints.get(name).copied().unwrap_or(0);
    let ints = [command.code, command.version, command.opaque, command.flag];
    let names = ["code", "version", "opaque", "flag"];
    assert_eq!(ints, names.map(int), "{shown}");
    let language = expected.language.as_deref().map(Language::from_name);
    assert_eq!(command.language, language.unwrap_or(Language::Other));
    let remark = expected.remark.filter(|remark| !remark.is_empty());
    assert_eq!(command.remark.as_deref(), remark.as_deref(), "{shown}");
    assert_eq!(command.fields, expected.fields, "{shown}");
    true
}

/// A generator that gives the same numbers in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % limit
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }
}

const SPACE: [&[u8]; 6] = [b"", b"", b"", b" ", b"\r\n", b"\t"];
const NAMES: [&[u8]; 9] = [
    br#""a""#,
    br#""i""#,
    br#""queueId""#,
    br#""""#,
    br#""sixteen bytes 16""#,
    br#""esc\u0041pe\"d""#,
    "\"n\u{e9}\u{4f60}\"".as_bytes(),
    br#""\ud83d\uDE00\\""#,
    br#""\n\r\t\b\f\/""#,
];
const NUMBERS: [&[u8]; 20] = [
    b"0",
    b"7",
    b"-1",
    b"-0",
    b"01",
    b"2147483647",
    b"-2147483648",
    b"2147483648",
    b"999999999999999999",
    b"-99999999999999999",
    b"-999999999999999999",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"0.5",
    b"-1.25E+2",
    b"1e300",
    b"1e999",
    b"1-2",
    b"NaN",
];
const OTHERS: [&[u8]; 14] = [
    b"null",
    b"true",
    b"false",
    b"nulls",
    b"[]",
    br#"[1,"x",{"a":[null]}]"#,
    br#"{"x":{"y":[]},"z":1e999}"#,
    b"{}",
    b"[1,]",
    b"\"\xFF\"",
    b"{\"\xFF\":1}",
    b"{\"a\":{\"\xFF\":\"\xC3\"}}",
    br#"{"a":"\ud800"}"#,
    br#""UNIQ_KEY\u00017F000001\u0002WAIT\u0001true\u0002""#,
];
/// What damage puts into a header.
const SPLINTERS: [&[u8]; 17] = [
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud83d",
    b"\\ude00",
    b"\\x41",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\x01",
    b"\x7F",
    b"\xC3\xA9",
    b"\xE4",
    b"-",
];

fn put_value(dice: &mut Dice, header: &mut Vec<u8>) {
    let value = match dice.below(40) {
        0..20 => dice.pick(&NAMES),
        20..38 => dice.pick(&NUMBERS[..4]),
        38 => dice.pick(&NUMBERS),
        _ => dice.pick(&OTHERS),
    };
    header.extend_from_slice(value);
}

/// An object with members that `put` writes.
fn put_object(
    dice: &mut Dice,
    header: &mut Vec<u8>,
    members: usize,
    mut put: impl FnMut(&mut Dice, &mut Vec<u8>),
) {
    header.push(b'{');
    for position in 0..members {
        if position > 0 {
            header.push(b',');
        }
        header.extend_from_slice(dice.pick(&SPACE));
        put(dice, header);
        header.extend_from_slice(dice.pick(&SPACE));
    }
    header.push(b'}');
}

fn put_member(dice: &mut Dice, header: &mut Vec<u8>) {
    let ints: [&[u8]; 4] = [
        br#""code""#,
        br#""opaque""#,
        br#""flag""#,
        br#""versio\u006e""#,
    ];
    let texts: [&[u8]; 3] = [br#""language""#, br#""remark""#, br#""future""#];
    match dice.below(10) {
        0..4 => {
            header.extend_from_slice(dice.pick(&ints));
            header.push(b':');
            header.extend_from_slice(dice.pick(&NUMBERS[..3]));
        }
        4..6 => {
            header.extend_from_slice(dice.pick(&texts));
            header.push(b':');
            header.extend_from_slice(dice.pick(&[NAMES[5], NAMES[7], b"\"CPP\"", b"null"]));
        }
        6 => {
            header.extend_from_slice(br#""future" : "#);
            put_value(dice, header);
        }
        _ => {
            header.extend_from_slice(b"\"extFields\":");
            let members = dice.below(12);
            put_object(dice, header, members, |dice, header| {
                header.extend_from_slice(dice.pick(&NAMES));
                header.push(b':');
                put_value(dice, header);
            });
        }
    }
}

fn damage(dice: &mut Dice, header: &mut Vec<u8>) {
    let at = dice.below(header.len());
    match dice.below(4) {
        0 => header[at] ^= 1 << dice.below(8),
        1 => drop(header.remove(at)),
        2 => header.truncate(at.max(1)),
        _ => drop(header.splice(at..at, dice.pick(&SPLINTERS).iter().copied())),
    }
}

#[test]
fn headers_are_read_as_serde_reads_them() {
    const CASES: usize = 30_000;
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let (mut whole, mut damaged) = (0, 0);
    for _ in 0..CASES {
        let mut header = Vec::new();
        let members = dice.below(6);
        put_object(&mut dice, &mut header, members, put_member);
        whole += usize::from(check(&header));
        for _ in 0..=dice.below(2) {
            damage(&mut dice, &mut header);
        }
        damaged += usize::from(check(&header));
    }
    // Both outcomes were compared, and often.
    assert!(whole > CASES / 2, "{whole} good headers");
    assert!(
        (CASES / 10..CASES / 2).contains(&damaged),
        "{damaged} of the damaged headers are good"
    );
}

#[test]
fn every_value_is_read_as_serde_reads_it() {
    let all = NAMES.iter().chain(&NUMBERS).chain(&OTHERS);
    for value in all {
        let members: [&[u8]; 7] = [
            b"{\"code\":",
            b"{\"remark\":",
            b"{\"language\":",
            b"{\"future\":",
            b"{\"extFields\":",
            b"{\"extFields\":{\"a\":\"1\",\"n\":",
            b"{\"extFields\":{\"a\":{\"b\":",
        ];
        for before in members {
            let closing = before.iter().filter(|byte| **byte == b'{').count();
            let header = [before, value, &b"}}}"[..closing]].concat();
            check(&header);
        }
    }
}

#[test]
fn what_nobody_reads_may_nest_deeply() {
    for deep in [100, 1_000_000] {
        let nested = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
        assert!(check(format!("{{\"future\":{nested}}}").as_bytes()));
        let field = format!("{{\"extFields\":{{\"a\":{nested},\"b\":\"1\"}}}}");
        assert!(check(field.as_bytes()));
    }
}
