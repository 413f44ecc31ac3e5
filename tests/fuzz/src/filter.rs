//! SQL92 filter expressions: any text, and expressions that are made together with what they must say.

use gantry_protocol::sql::{EXPRESSION_BYTES_MAX, Selector};

use crate::input::Input;
use model::{Truth, Written};

mod model;

/// The first byte chooses: arbitrary text, or a made expression whose outcome a naive model knows.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.flag() {
        return against_the_model(&mut input);
    }
    let pairs = properties(&mut input);
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    match Selector::parse(&text) {
        Ok(selector) => {
            let first = ask(&selector, &pairs);
            assert_eq!(ask(&selector, &pairs), first, "asked twice");
            // Blanks and a pair of parentheses change nothing, unless the text becomes too deep or long.
            if let Ok(wrapped) = Selector::parse(&format!(" ( {text}\n) ")) {
                assert_eq!(ask(&wrapped, &pairs), first, "{text:?} in parentheses");
            }
        }
        Err(error) => {
            assert!(error.at <= text.len().max(EXPRESSION_BYTES_MAX), "{error}");
            assert!(!error.reason.is_empty());
        }
    }
}

type Pairs = Vec<(String, String)>;

fn properties(input: &mut Input<'_>) -> Pairs {
    let mut pairs = Vec::new();
    for _ in 0..input.byte() % 4 {
        pairs.push((input.text(), input.text()));
    }
    pairs.push(("a".into(), "1".into()));
    pairs.push(("color".into(), "red".into()));
    pairs
}

fn ask(selector: &Selector, pairs: &Pairs) -> bool {
    let bytes = pairs
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    selector.matches(bytes)
}

fn against_the_model(input: &mut Input<'_>) {
    let names = ["p0", "p1", "p2", "p3"];
    let values: Vec<Option<String>> = names.iter().map(|_| model::value(input)).collect();
    let pairs: Pairs = names
        .iter()
        .zip(&values)
        .filter_map(|(name, value)| Some((name.to_string(), value.clone()?)))
        .collect();
    let Written { text, truth } = model::expression(input, &values, 0);
    let selector = match Selector::parse(&text) {
        Ok(selector) => selector,
        Err(error) => {
            let limit = error.reason.contains("nested") || error.reason.contains("longer");
            assert!(limit, "{text}: {error}");
            return;
        }
    };
    let expected = truth == Ok(Truth::True);
    assert_eq!(
        ask(&selector, &pairs),
        expected,
        "{text} of {pairs:?} is {truth:?}"
    );
}
