//! A naive model of the filters: each expression is written down together with its truth, worked out at once
//! from the values, without tokens, nodes or a parser.

use crate::input::Input;

const DEPTH_MAX: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

/// The evaluation failed: the message does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fails;

pub(super) struct Written {
    pub text: String,
    pub truth: Result<Truth, Fails>,
}

fn of(value: bool) -> Truth {
    if value { Truth::True } else { Truth::False }
}

/// The value of a property: none, a number, or a word.
pub(super) fn value(input: &mut Input<'_>) -> Option<String> {
    match input.byte() % 5 {
        0 => None,
        1 | 2 => Some(format!("{}", i64::from(input.byte()) - 128)),
        3 => Some(format!("{}.5", input.byte())),
        _ => Some(["red", "green", "it's", ""][input.below(4)].to_string()),
    }
}

pub(super) fn expression(
    input: &mut Input<'_>,
    values: &[Option<String>],
    depth: usize,
) -> Written {
    let kind = if depth >= DEPTH_MAX {
        3 + input.byte() % 6
    } else {
        input.byte() % 9
    };
    match kind {
        0 => not(expression(input, values, depth + 1)),
        1 | 2 => {
            let count = 2 + input.below(3);
            let parts = (0..count).map(|_| expression(input, values, depth + 1));
            list(parts.collect(), kind == 1)
        }
        3 => equal_text(input, values),
        4 | 5 => number(input, values),
        6 => is_null(input, values),
        7 => in_list(input, values),
        _ => holds(input, values),
    }
}

fn not(of: Written) -> Written {
    let truth = of.truth.map(|truth| match truth {
        Truth::True => Truth::False,
        Truth::False => Truth::True,
        Truth::Unknown => Truth::Unknown,
    });
    Written {
        text: format!("NOT ({})", of.text),
        truth,
    }
}

/// OR if `any`, else AND.
fn list(parts: Vec<Written>, any: bool) -> Written {
    let decides = of(any);
    let mut truth = Ok(of(!any));
    for part in &parts {
        match part.truth {
            Err(Fails) => {
                truth = Err(Fails);
                break;
            }
            Ok(found) if found == decides => {
                truth = Ok(decides);
                break;
            }
            Ok(Truth::Unknown) => truth = Ok(Truth::Unknown),
            Ok(_) => {}
        }
    }
    let texts: Vec<String> = parts
        .iter()
        .map(|part| format!("({})", part.text))
        .collect();
    Written {
        text: texts.join(if any { " OR " } else { " and " }),
        truth,
    }
}

fn property<'v>(input: &mut Input<'_>, values: &'v [Option<String>]) -> (String, Option<&'v str>) {
    let place = input.below(values.len());
    (format!("p{place}"), values[place].as_deref())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn word(input: &mut Input<'_>) -> &'static str {
    ["red", "green", "it's", "e", "", "5"][input.below(6)]
}

fn equal_text(input: &mut Input<'_>, values: &[Option<String>]) -> Written {
    let (name, value) = property(input, values);
    let word = word(input);
    let differs = input.flag();
    let truth = match value {
        None => Truth::Unknown,
        Some(value) => of((value == word) != differs),
    };
    let sign = if differs { "<>" } else { "=" };
    Written {
        text: format!("{name} {sign} {}", quoted(word)),
        truth: Ok(truth),
    }
}

fn number(input: &mut Input<'_>, values: &[Option<String>]) -> Written {
    let (name, value) = property(input, values);
    let limit = i32::from(input.byte()) - 128;
    let is_float = input.flag();
    let sign = ["=", "<>", "<", "<=", ">", ">="][input.below(6)];
    let literal = if is_float {
        format!("{limit}.5")
    } else {
        limit.to_string()
    };
    let limit = if is_float {
        f64::from(limit) + if literal.starts_with('-') { -0.5 } else { 0.5 }
    } else {
        f64::from(limit)
    };
    let truth = match value {
        None => Ok(Truth::Unknown),
        // An integer is compared with a text that is one; a float with any number.
        Some(text) if !is_float && text.parse::<i32>().is_err() => Err(Fails),
        Some(text) => text.parse::<f64>().map_err(|_| Fails).map(|found| {
            of(match sign {
                "=" => found == limit,
                "<>" => found != limit,
                "<" => found < limit,
                "<=" => found <= limit,
                ">" => found > limit,
                _ => found >= limit,
            })
        }),
    };
    Written {
        text: format!("{name} {sign} {literal}"),
        truth,
    }
}

fn is_null(input: &mut Input<'_>, values: &[Option<String>]) -> Written {
    let (name, value) = property(input, values);
    let negated = input.flag();
    Written {
        text: format!("{name} IS {}NULL", if negated { "NOT " } else { "" }),
        truth: Ok(of(value.is_none() != negated)),
    }
}

fn in_list(input: &mut Input<'_>, values: &[Option<String>]) -> Written {
    let (name, value) = property(input, values);
    let words: Vec<&str> = (0..1 + input.below(3)).map(|_| word(input)).collect();
    let negated = input.flag();
    let listed: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    let truth = match value {
        None => Truth::Unknown,
        Some(value) => of(words.contains(&value) != negated),
    };
    Written {
        text: format!(
            "{name} {}IN ({})",
            if negated { "NOT " } else { "" },
            listed.join(", ")
        ),
        truth: Ok(truth),
    }
}

fn holds(input: &mut Input<'_>, values: &[Option<String>]) -> Written {
    let (name, value) = property(input, values);
    let word = word(input);
    let how = ["CONTAINS", "STARTSWITH", "ENDSWITH"][input.below(3)];
    let negated = input.flag();
    let truth = match value {
        None => false,
        Some(_) if word.is_empty() => false,
        Some(value) => {
            let found = match how {
                "CONTAINS" => value.contains(word),
                "STARTSWITH" => value.starts_with(word),
                _ => value.ends_with(word),
            };
            found != negated
        }
    };
    Written {
        text: format!(
            "{name} {}{how} {}",
            if negated { "NOT " } else { "" },
            quoted(word)
        ),
        truth: Ok(of(truth)),
    }
}
