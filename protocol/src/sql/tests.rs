//! Expressions against messages, and texts that are no expressions.

#![allow(clippy::unwrap_used)]

use super::*;

/// The message that the table asks about: texts, numbers and near misses; `gone` is not there.
const MESSAGE: [(&str, &str); 12] = [
    ("a", "1"),
    ("b", "2"),
    ("big", "4294967296"),
    ("f", "5.5"),
    ("negative", "-3"),
    ("t", "TrUe"),
    ("no", "false"),
    ("name", "it's here"),
    ("Name", "other"),
    ("_$1", "odd"),
    ("empty", ""),
    ("color", "red"),
];

fn verdict(expression: &str) -> bool {
    let selector =
        Selector::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    selector.matches(
        MESSAGE
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    )
}

fn refusal(expression: &str) -> String {
    match Selector::parse(expression) {
        Ok(selector) => panic!("{expression} is {selector:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_matches() {
    for expression in [
        // Constants, and words in any case.
        "TRUE",
        "true",
        "not FALSE",
        "TRUE OR NULL",
        "NULL IS NULL",
        // Numbers of each kind.
        "a = 1",
        "1 = a",
        "a <> 2",
        "a < 2",
        "2 > a",
        "a >= 1 AND a <= 1",
        "big = 4294967296",
        "big > 4294967295L",
        "f = 5.5",
        "f > 5. AND f < 6.",
        "f = 55E-1",
        "a > .5",
        "negative = -3",
        "negative < -2",
        "negative > - 4",
        "+a = +1",
        "1 = 1.0",
        "a < b",
        "negative < f",
        // Texts.
        "color = 'red'",
        "color <> 'blue'",
        "name = 'it''s here'",
        "Name = 'other'",
        "_$1 = 'odd'",
        "empty = ''",
        "color = color",
        // Booleans.
        "t = TRUE",
        "no = FALSE",
        "color = FALSE",
        "TRUE = TRUE",
        "(a = 1) = TRUE",
        // Nothing there.
        "gone IS NULL",
        "a IS NOT NULL",
        "gone = missing",
        "gone IS NULL AND a = 1",
        // Three values.
        "gone = 1 OR a = 1",
        "NOT (gone = 1 AND a = 2)",
        "(gone > 1) IS NULL",
        "(NOT (gone = 1)) IS NULL",
        "(gone = 1 AND a = 1) IS NULL",
        "(gone IN ('x')) IS NULL",
        "(-color) IS NULL",
        // Ranges and lists.
        "a BETWEEN 1 AND 1",
        "f BETWEEN 5.0 AND a OR f BETWEEN b AND 6.0",
        "a NOT BETWEEN 2 AND 3",
        "negative BETWEEN -5 AND -1",
        "color IN ('red')",
        "color IN ('blue', 'red', 'red')",
        "color NOT IN ('blue', 'green')",
        // Parts of texts.
        "color CONTAINS 'e'",
        "color contains 'red'",
        "color STARTSWITH 're'",
        "color ENDSWITH 'ed'",
        "color NOT CONTAINS 'x'",
        "color NOT STARTSWITH 'ed'",
        "color NOT ENDSWITH 're'",
        // AND before OR, comments, blanks.
        "a = 2 AND a = 1 OR b = 2",
        "a = 1 -- and nothing else\n AND /* ** */ b = 2",
        "(((a=1)))\t\n",
    ] {
        assert!(verdict(expression), "{expression}");
    }
}

#[test]
fn what_does_not_match() {
    for expression in [
        "FALSE",
        "NULL",
        "NOT NULL",
        "a = 2",
        "a <> 1",
        // A text that is not the number it is compared with.
        "color = 1",
        "color <> 1",
        "color > 1",
        "NOT (color = 1)",
        "a = 1 AND color > 1",
        "big = 1",
        "f = 5",
        "f > 5",
        "empty = 0",
        "color < name",
        // Errors in what is looked at first count, later ones may not be reached.
        "color = 1 OR a = 1",
        // Nothing there.
        "gone = 1",
        "gone <> 1",
        "gone > 1",
        "1 > gone",
        "a = gone",
        "gone IN ('x')",
        "gone NOT IN ('x')",
        "gone IS NOT NULL",
        "gone CONTAINS 'x'",
        "gone NOT CONTAINS 'x'",
        "color CONTAINS ''",
        "color NOT CONTAINS ''",
        "gone BETWEEN 1 AND 2",
        "gone NOT BETWEEN 1 AND 2",
        "gone = 1 AND a = 1",
        "NOT (gone = 1)",
        // Names have a case, texts too.
        "NAME = 'other'",
        "color = 'Red'",
        "color STARTSWITH 'ed'",
        "t = FALSE",
        "1 = TRUE",
        "a BETWEEN 2 AND 3",
    ] {
        assert!(!verdict(expression), "{expression}");
    }
    assert!(verdict("a = 1 OR color = 1"), "decided before the error");
}

#[test]
fn what_is_refused() {
    for (expression, reason) in [
        ("", "missing"),
        ("a", "neither true nor false"),
        ("a AND b = 1", "neither true nor false"),
        ("b = 1 OR 'x'", "neither true nor false"),
        ("NOT a = 1", "neither true nor false"),
        ("1", "neither true nor false"),
        ("-a", "neither true nor false"),
        ("a = NULL", "IS NULL"),
        ("NULL <> a", "IS NULL"),
        ("TRUE = 1", "boolean"),
        ("a > 'x'", "order"),
        ("a > TRUE", "order"),
        ("a > NULL", "order"),
        ("a > (b = 1)", "order"),
        ("a BETWEEN 'a' AND 'b'", "order"),
        ("a BETWEEN NULL AND 3", "order"),
        ("a BETWEEN 3 AND 2", "above the upper"),
        ("a BETWEEN 1 OR 2", "AND of BETWEEN"),
        ("'a' IN ('a')", "no property"),
        ("a IN ()", "in quotes"),
        ("a IN (1)", "in quotes"),
        ("a IN ('x'", ") after the list"),
        ("a IN 'x'", "( after IN"),
        ("a CONTAINS b", "in quotes"),
        ("a LIKE 'x%'", "should end"),
        ("a = 1 b", "should end"),
        ("a == 1", "missing"),
        ("a != 1", "no meaning"),
        ("a = 1 +", "should end"),
        ("a = 'x", "does not end"),
        ("a = 1 /* x", "does not end"),
        ("a = 01", "begins with 0"),
        ("a = 9223372036854775808", "out of range"),
        ("a = 1e999", "out of range"),
        ("a = .", "point without"),
        ("(a = 1", ") is missing"),
        ("a IS 1", "NULL is missing"),
        ("é = 1", "no meaning"),
    ] {
        let found = refusal(expression);
        assert!(found.contains(reason), "{expression}: {found}");
    }
    let error = Selector::parse("a = 1 AND !").unwrap_err();
    assert_eq!(error.at, 10);
}

#[test]
fn size_and_depth_are_bounded() {
    let many = ["a = 1"; 900].join(" OR ");
    assert!(many.len() < EXPRESSION_BYTES_MAX && verdict(&many));
    let long = ["a = 1"; 1000].join("  OR  ");
    assert!(refusal(&long).contains("longer than"));
    let nested = |depth: usize| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(verdict(&nested(DEPTH_MAX - 2)));
    for deep in [
        nested(4000),
        format!("{}a = 1", "(".repeat(8000)),
        format!("{} TRUE", "NOT ".repeat(2000)),
        format!("a = {}1", "- ".repeat(4000)),
        format!("a{}", " > 1".repeat(2000)),
        format!("a{}", " = 1".repeat(2000)),
        format!("a{}", " IS NULL".repeat(1000)),
    ] {
        let found = refusal(&deep);
        let expected = found.contains("nested deeper") || found.contains("order");
        assert!(expected, "{found}");
    }
}

#[test]
fn one_message_costs_a_bounded_number_of_steps() {
    let text = "x".repeat(30_000);
    let clause = "p = q";
    let selector = Selector::parse(&[clause; 800].join(" AND ")).unwrap();
    let properties = [("p", text.as_str()), ("q", text.as_str())];
    let pairs = properties
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    assert!(
        !selector.matches(pairs),
        "30 MB of comparisons for one message"
    );
    let selector = Selector::parse(&[clause; 10].join(" AND ")).unwrap();
    let pairs = properties
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    assert!(selector.matches(pairs));
}

#[test]
fn floats_are_read_as_java_reads_them() {
    for (text, expression, expected) in [
        (" 1.5 ", "p = 1.5", true),
        ("1.5f", "p = 1.5", true),
        ("2d", "p > 1.9", true),
        ("NaN", "p > 1.0", true),
        ("nan", "p > 1.0", false),
        ("-Infinity", "p < 0.5", true),
        ("inf", "p > 1.0", false),
        ("", "p > 1.0", false),
        ("+1", "p = 1", true),
        (" 1", "p = 1", false),
        ("1.0", "p = 1", false),
    ] {
        let selector = Selector::parse(expression).unwrap();
        let matched = selector.matches([(&b"p"[..], text.as_bytes())].into_iter());
        assert_eq!(matched, expected, "{text:?} {expression}");
    }
}

#[test]
fn the_last_property_of_a_name_counts() {
    let selector = Selector::parse("p = 'second'").unwrap();
    let twice = [(&b"p"[..], &b"first"[..]), (b"q", b"x"), (b"p", b"second")];
    assert!(selector.matches(twice.into_iter()));
}
