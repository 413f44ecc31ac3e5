//! What an expression says of one message.
//!
//! Logic has three values: true, false, and unknown, which is `Null`. Only what is true matches. Values of
//! properties are texts; compared with a number they are read as one of its kind.

use std::cmp::Ordering;

use super::{Literal, Node, Order, Part, Selector, Value};

/// Steps that one message may cost: a node is one, and so are 64 bytes of text that are looked at.
const STEPS_MAX: usize = 32 * 1024;

const STEP_BYTES: usize = 64;

/// The expression has no value for this message, which does not match then.
struct NoValue;

type Outcome<'a> = Result<Value<'a>, NoValue>;

pub(super) fn matches<'a>(
    selector: &Selector,
    properties: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> bool {
    let mut evaluation = Evaluation {
        values: vec![None; selector.names.len()],
        steps: 0,
    };
    for (name, value) in properties {
        let place = selector
            .names
            .binary_search_by(|known| known.as_bytes().cmp(name));
        if let Ok(place) = place {
            evaluation.values[place] = std::str::from_utf8(value).ok();
        }
    }
    matches!(evaluation.value(&selector.root), Ok(Value::Bool(true)))
}

struct Evaluation<'a> {
    /// The message's values of the selector's names.
    values: Vec<Option<&'a str>>,
    steps: usize,
}

impl<'a> Evaluation<'a> {
    fn property<'v>(&self, place: usize) -> Value<'v>
    where
        'a: 'v,
    {
        self.values[place].map_or(Value::Null, Value::Text)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), NoValue> {
        self.steps += 1 + bytes / STEP_BYTES;
        if self.steps > STEPS_MAX {
            return Err(NoValue);
        }
        Ok(())
    }

    fn value<'v>(&mut self, node: &'v Node) -> Outcome<'v>
    where
        'a: 'v,
    {
        self.spend(0)?;
        match node {
            Node::Literal(literal) => Ok(literal.value()),
            Node::Property(place) => Ok(self.property(*place)),
            Node::Negate(of) => Ok(negated(self.value(of)?)),
            Node::Not(of) => Ok(match self.value(of)? {
                Value::Bool(value) => Value::Bool(!value),
                _ => Value::Null,
            }),
            Node::All(nodes) => self.list(nodes, false),
            Node::Any(nodes) => self.list(nodes, true),
            Node::Equal(left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.equal(left, right)
            }
            Node::Compare(order, left, right) => {
                let left = self.value(left)?;
                if left == Value::Null {
                    return Ok(Value::Null);
                }
                let right = self.value(right)?;
                self.ordered(*order, left, right)
            }
            Node::IsNull(of) => Ok(Value::Bool(self.value(of)? == Value::Null)),
            Node::In {
                property,
                list,
                negated,
            } => {
                let Value::Text(text) = self.property(*property) else {
                    return Ok(Value::Null);
                };
                self.spend(text.len())?;
                Ok(Value::Bool(list.contains(text) != *negated))
            }
            Node::Holds {
                part,
                of,
                pattern,
                negated,
            } => {
                let Value::Text(text) = self.value(of)? else {
                    return Ok(Value::Bool(false));
                };
                if pattern.is_empty() {
                    return Ok(Value::Bool(false));
                }
                self.spend(text.len() + pattern.len())?;
                let holds = match part {
                    Part::Anywhere => text.contains(pattern.as_str()),
                    Part::AtStart => text.starts_with(pattern.as_str()),
                    Part::AtEnd => text.ends_with(pattern.as_str()),
                };
                Ok(Value::Bool(holds != *negated))
            }
        }
    }

    /// AND and OR: the first operand that decides ends it; without one, an unknown operand makes it unknown.
    fn list<'v>(&mut self, nodes: &'v [Node], decides: bool) -> Outcome<'v>
    where
        'a: 'v,
    {
        let mut outcome = Value::Bool(!decides);
        for node in nodes {
            match self.value(node)? {
                Value::Bool(value) if value == decides => return Ok(Value::Bool(decides)),
                Value::Bool(_) => {}
                _ => outcome = Value::Null,
            }
        }
        Ok(outcome)
    }

    fn equal<'v>(&mut self, left: Value<'v>, right: Value<'v>) -> Outcome<'v> {
        match (left, right) {
            (Value::Null, Value::Null) => Ok(Value::Bool(true)),
            (Value::Null, _) => Ok(Value::Null),
            (_, Value::Null) => Ok(Value::Bool(false)),
            (Value::Text(left), Value::Text(right)) => {
                self.spend(left.len().min(right.len()))?;
                Ok(Value::Bool(left == right))
            }
            _ => {
                let order = self.compare(left, right)?;
                Ok(Value::Bool(order == Some(Ordering::Equal)))
            }
        }
    }

    fn ordered<'v>(&mut self, order: Order, left: Value<'v>, right: Value<'v>) -> Outcome<'v> {
        let found = match (left, right) {
            (_, Value::Null) => return Ok(Value::Null),
            (Value::Text(left), Value::Text(right)) => {
                self.spend(left.len() + right.len())?;
                double(left)?.total_cmp(&double(right)?)
            }
            _ => self.compare(left, right)?.unwrap_or(Ordering::Less),
        };
        Ok(Value::Bool(match order {
            Order::Less => found.is_lt(),
            Order::LessOrEqual => found.is_le(),
            Order::Greater => found.is_gt(),
            Order::GreaterOrEqual => found.is_ge(),
        }))
    }

    /// Two values that are neither null nor both texts; `None` if nothing can be compared there.
    fn compare(&mut self, left: Value<'_>, right: Value<'_>) -> Result<Option<Ordering>, NoValue> {
        let (text, other, turned) = match (left, right) {
            (Value::Text(text), other) => (text, other, false),
            (other, Value::Text(text)) => (text, other, true),
            _ => return Ok(numbers(left, right)),
        };
        self.spend(text.len())?;
        let order = match other {
            Value::Bool(value) => text.eq_ignore_ascii_case("true").cmp(&value),
            Value::Int(value) => text.parse::<i32>().map_err(|_| NoValue)?.cmp(&value),
            Value::Long(value) => text.parse::<i64>().map_err(|_| NoValue)?.cmp(&value),
            Value::Double(value) => double(text)?.total_cmp(&value),
            Value::Null | Value::Text(_) => return Ok(None),
        };
        Ok(Some(if turned { order.reverse() } else { order }))
    }
}

impl Literal {
    fn value(&self) -> Value<'_> {
        match self {
            Literal::Null => Value::Null,
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(value) => Value::Int(*value),
            Literal::Long(value) => Value::Long(*value),
            Literal::Double(value) => Value::Double(*value),
            Literal::Text(text) => Value::Text(text),
        }
    }
}

fn negated(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Int(value) => Value::Int(value.wrapping_neg()),
        Value::Long(value) => Value::Long(value.wrapping_neg()),
        Value::Double(value) => Value::Double(-value),
        Value::Null | Value::Bool(_) | Value::Text(_) => Value::Null,
    }
}

/// Two numbers, or two booleans.
fn numbers(left: Value<'_>, right: Value<'_>) -> Option<Ordering> {
    if let (Value::Bool(left), Value::Bool(right)) = (left, right) {
        return Some(left.cmp(&right));
    }
    if let (Some(left), Some(right)) = (whole(left), whole(right)) {
        return Some(left.cmp(&right));
    }
    let as_double = |value| match value {
        Value::Double(value) => Some(value),
        other => whole(other).map(|value| value as f64),
    };
    Some(as_double(left)?.total_cmp(&as_double(right)?))
}

fn whole(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Int(value) => Some(i64::from(value)),
        Value::Long(value) => Some(value),
        Value::Null | Value::Bool(_) | Value::Double(_) | Value::Text(_) => None,
    }
}

/// A float as Java reads it: spaces around it and a type letter behind it do not matter, and not a number
/// and infinity have one spelling.
fn double(text: &str) -> Result<f64, NoValue> {
    let text = text.trim_matches(|c: char| c <= ' ');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        let digits = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
        return digits.parse().map_err(|_| NoValue);
    }
    match unsigned {
        "NaN" => Ok(f64::NAN),
        "Infinity" if text.starts_with('-') => Ok(f64::NEG_INFINITY),
        "Infinity" => Ok(f64::INFINITY),
        _ => Err(NoValue),
    }
}
