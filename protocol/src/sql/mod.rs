//! SQL92 filter expressions, as RocketMQ understands them.
//!
//! ```text
//! or          and ( OR and )*
//! and         equality ( AND equality )*
//! equality    comparison ( = comparison | <> comparison | IS NULL | IS NOT NULL )*
//! comparison  unary ( > unary | >= unary | < unary | <= unary | [NOT] BETWEEN unary AND unary
//!                   | [NOT] IN ( 'text', ... ) | [NOT] CONTAINS 'text' | [NOT] STARTSWITH 'text'
//!                   | [NOT] ENDSWITH 'text' )*
//! unary       ( + | - | NOT ) unary | literal | property | ( or )
//! ```
//!
//! An expression is parsed once and then asked about many messages. Both are bounded: by the length of the
//! text, by the depth of the expression, and by the bytes that one message may cost.

mod evaluate;
mod lexer;
mod parser;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use thiserror::Error;

/// Longest expression; bytes.
pub const EXPRESSION_BYTES_MAX: usize = 8 * 1024;

/// Deepest nesting of parentheses and operators. Lists of AND and OR do not nest.
pub const DEPTH_MAX: usize = 64;

/// A text that is no expression: the client's fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}, at byte {at} of the expression")]
pub struct SqlError {
    /// Where.
    pub at: usize,
    /// What is wrong there.
    pub reason: String,
}

impl SqlError {
    fn new(at: usize, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        SqlError { at, reason }
    }
}

/// A parsed expression. Cloning it is not cheap: share it.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    root: Node,
    /// Names of the properties that it looks at, sorted; nodes name them by their place here.
    names: Vec<String>,
}

/// A value while an expression is evaluated. Texts are borrowed, from the message or the expression.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value<'a> {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(&'a str),
}

/// A literal.
#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Anywhere,
    AtStart,
    AtEnd,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Literal(Literal),
    /// By its place in the selector's names.
    Property(usize),
    Negate(Box<Node>),
    Not(Box<Node>),
    /// TRUE if none is FALSE or unknown.
    All(Vec<Node>),
    /// TRUE if one is.
    Any(Vec<Node>),
    Equal(Box<Node>, Box<Node>),
    Compare(Order, Box<Node>, Box<Node>),
    IsNull(Box<Node>),
    In {
        property: usize,
        list: BTreeSet<String>,
        negated: bool,
    },
    Holds {
        part: Part,
        of: Box<Node>,
        pattern: String,
        negated: bool,
    },
}

impl Node {
    /// Whether it can be the whole of a filter, or an operand of AND, OR and NOT.
    fn is_boolean(&self) -> bool {
        match self {
            Node::Literal(literal) => matches!(literal, Literal::Null | Literal::Bool(_)),
            Node::Property(_) | Node::Negate(_) => false,
            _ => true,
        }
    }
}

impl Selector {
    /// Reads an expression.
    ///
    /// # Errors
    /// [`SqlError`] says what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, SqlError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            let reason = format!(
                "an expression of {} bytes is longer than {EXPRESSION_BYTES_MAX}",
                text.len()
            );
            return Err(SqlError::new(EXPRESSION_BYTES_MAX, reason));
        }
        parser::parse(text)
    }

    /// Whether a message with these properties, names and values as they are stored, is wanted. If a name
    /// occurs twice the last one counts. What cannot be evaluated, because a text is not the number that it
    /// is compared with, say, does not match.
    pub fn matches<'a>(&self, properties: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
        evaluate::matches(self, properties)
    }
}
