//! Tokens to nodes, by one function for each line of the grammar.

use std::collections::BTreeSet;

use super::lexer::{Token, Word, tokens};
use super::{DEPTH_MAX, Literal, Node, Order, Part, Selector, SqlError};

/// Reads a whole expression.
pub(super) fn parse(text: &str) -> Result<Selector, SqlError> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        nesting: 0,
        names: BTreeSet::new(),
        seen: Vec::new(),
    };
    let at = parser.at();
    let root = parser.or()?;
    if *parser.peek() != Token::End {
        return Err(parser.error("the expression should end or go on with an operator"));
    }
    let mut root = boolean(at, root)?.node;
    let names: Vec<String> = parser.names.into_iter().collect();
    let places: Vec<usize> = parser
        .seen
        .iter()
        .map(|name| names.binary_search(name).expect("every name was noted"))
        .collect();
    renumber(&mut root, &places);
    Ok(Selector { root, names })
}

/// A node and how deep it is.
struct Parsed {
    node: Node,
    depth: usize,
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    /// Parentheses and signs that are open: bounds the recursion before there is a node to measure.
    nesting: usize,
    names: BTreeSet<String>,
    /// Names in the order of their first use, by which nodes know them until the end.
    seen: Vec<String>,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn peek_second(&self) -> Option<&Token> {
        self.tokens.get(self.next + 1).map(|(_, token)| token)
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    fn error(&self, reason: impl Into<String>) -> SqlError {
        SqlError::new(self.at(), reason)
    }

    /// Takes the next token; the end stays.
    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn takes(&mut self, token: &Token) -> bool {
        let is_next = self.peek() == token;
        if is_next {
            self.next += 1;
        }
        is_next
    }

    fn takes_word(&mut self, word: Word) -> bool {
        self.takes(&Token::Word(word))
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<(), SqlError> {
        if self.takes(token) {
            return Ok(());
        }
        Err(self.error(format!("{what} is missing")))
    }

    fn or(&mut self) -> Result<Parsed, SqlError> {
        self.list(Word::Or, Self::and, Node::Any)
    }

    fn and(&mut self) -> Result<Parsed, SqlError> {
        self.list(Word::And, Self::equality, Node::All)
    }

    /// Operands between words, which are evaluated one after the other and do not nest.
    fn list(
        &mut self,
        word: Word,
        operand: fn(&mut Self) -> Result<Parsed, SqlError>,
        make: fn(Vec<Node>) -> Node,
    ) -> Result<Parsed, SqlError> {
        let at = self.at();
        let first = operand(self)?;
        if *self.peek() != Token::Word(word) {
            return Ok(first);
        }
        let first = boolean(at, first)?;
        let mut depth = first.depth;
        let mut nodes = vec![first.node];
        while self.takes_word(word) {
            let at = self.at();
            let operand = operand(self)?;
            let next = boolean(at, operand)?;
            depth = depth.max(next.depth);
            nodes.push(next.node);
        }
        self.parsed(make(nodes), depth)
    }

    fn equality(&mut self) -> Result<Parsed, SqlError> {
        let mut left = self.comparison()?;
        loop {
            let at = self.at();
            if self.takes(&Token::Equal) {
                left = self.equal(at, left)?;
            } else if self.takes(&Token::NotEqual) {
                let equal = self.equal(at, left)?;
                left = self.not(equal)?;
            } else if self.takes_word(Word::Is) {
                let negated = self.takes_word(Word::Not);
                self.expect(&Token::Word(Word::Null), "NULL")?;
                let is_null = self.parsed(Node::IsNull(Box::new(left.node)), left.depth)?;
                left = if negated { self.not(is_null)? } else { is_null };
            } else {
                return Ok(left);
            }
        }
    }

    fn equal(&mut self, at: usize, left: Parsed) -> Result<Parsed, SqlError> {
        let right = self.comparison()?;
        if [&left, &right]
            .map(|side| &side.node)
            .contains(&&Node::Literal(Literal::Null))
        {
            return Err(SqlError::new(at, "NULL cannot be compared, use IS NULL"));
        }
        if let (Node::Literal(Literal::Bool(_)), Node::Literal(other)) = (&left.node, &right.node)
            && !matches!(other, Literal::Bool(_))
        {
            return Err(SqlError::new(at, "a boolean cannot be compared with that"));
        }
        let depth = left.depth.max(right.depth);
        self.parsed(
            Node::Equal(Box::new(left.node), Box::new(right.node)),
            depth,
        )
    }

    fn comparison(&mut self) -> Result<Parsed, SqlError> {
        let mut left = self.unary()?;
        loop {
            let at = self.at();
            let order = match self.peek() {
                Token::Less => Order::Less,
                Token::LessOrEqual => Order::LessOrEqual,
                Token::Greater => Order::Greater,
                Token::GreaterOrEqual => Order::GreaterOrEqual,
                _ => match self.predicate(left)? {
                    (next, true) => {
                        left = next;
                        continue;
                    }
                    (last, false) => return Ok(last),
                },
            };
            self.take();
            let right = self.unary()?;
            left = self.compare(at, order, left, right)?;
        }
    }

    fn compare(
        &self,
        at: usize,
        order: Order,
        left: Parsed,
        right: Parsed,
    ) -> Result<Parsed, SqlError> {
        for side in [&left.node, &right.node] {
            let is_number = matches!(
                side,
                Node::Literal(Literal::Int(_) | Literal::Long(_) | Literal::Double(_))
            );
            if !is_number && (matches!(side, Node::Literal(_)) || side.is_boolean()) {
                return Err(SqlError::new(
                    at,
                    "only numbers and properties have an order",
                ));
            }
        }
        let depth = left.depth.max(right.depth);
        let node = Node::Compare(order, Box::new(left.node), Box::new(right.node));
        self.parsed(node, depth)
    }

    /// What begins with a word behind `left`, with or without NOT; false if nothing does.
    fn predicate(&mut self, left: Parsed) -> Result<(Parsed, bool), SqlError> {
        let negated = *self.peek() == Token::Word(Word::Not);
        let word = if negated {
            self.peek_second()
        } else {
            Some(self.peek())
        };
        let Some(Token::Word(word)) = word else {
            return Ok((left, false));
        };
        let word = *word;
        let part = match word {
            Word::Contains => Some(Part::Anywhere),
            Word::StartsWith => Some(Part::AtStart),
            Word::EndsWith => Some(Part::AtEnd),
            Word::Between | Word::In => None,
            _ => return Ok((left, false)),
        };
        let at = self.at();
        self.next += 1 + usize::from(negated);
        let parsed = match part {
            Some(part) => self.holds(part, negated, left)?,
            None if word == Word::In => self.in_list(at, negated, left)?,
            None => self.between(at, negated, left)?,
        };
        Ok((parsed, true))
    }

    fn holds(&mut self, part: Part, negated: bool, left: Parsed) -> Result<Parsed, SqlError> {
        let node = Node::Holds {
            part,
            of: Box::new(left.node),
            pattern: self.text()?,
            negated,
        };
        self.parsed(node, left.depth)
    }

    fn in_list(&mut self, at: usize, negated: bool, left: Parsed) -> Result<Parsed, SqlError> {
        let Node::Property(property) = left.node else {
            return Err(SqlError::new(
                at,
                "IN is asked of something that is no property",
            ));
        };
        self.expect(&Token::Open, "( after IN")?;
        let mut list = BTreeSet::from([self.text()?]);
        while self.takes(&Token::Comma) {
            list.insert(self.text()?);
        }
        self.expect(&Token::Close, ") after the list of IN")?;
        let node = Node::In {
            property,
            list,
            negated,
        };
        self.parsed(node, left.depth)
    }

    fn between(&mut self, at: usize, negated: bool, left: Parsed) -> Result<Parsed, SqlError> {
        let low = self.unary()?;
        self.expect(&Token::Word(Word::And), "AND of BETWEEN")?;
        let high = self.unary()?;
        if let (Node::Literal(low), Node::Literal(high)) = (&low.node, &high.node)
            && let (Some(low), Some(high)) = (number(low), number(high))
            && low > high
        {
            let reason = "the lower bound of BETWEEN is above the upper one";
            return Err(SqlError::new(at, reason));
        }
        let again = Parsed {
            node: left.node.clone(),
            depth: left.depth,
        };
        let (below, above) = if negated {
            (Order::Less, Order::Greater)
        } else {
            (Order::GreaterOrEqual, Order::LessOrEqual)
        };
        let first = self.compare(at, below, left, low)?;
        let second = self.compare(at, above, again, high)?;
        let depth = first.depth.max(second.depth);
        let both = vec![first.node, second.node];
        let node = if negated {
            Node::Any(both)
        } else {
            Node::All(both)
        };
        self.parsed(node, depth)
    }

    fn unary(&mut self) -> Result<Parsed, SqlError> {
        self.nesting += 1;
        if self.nesting > DEPTH_MAX {
            return Err(self.error(too_deep()));
        }
        let at = self.at();
        let parsed = if self.takes(&Token::Plus) {
            self.unary()
        } else if self.takes(&Token::Minus) {
            let of = self.unary()?;
            self.parsed(Node::Negate(Box::new(of.node)), of.depth)
        } else if self.takes_word(Word::Not) {
            let of = self.unary()?;
            let of = boolean(at, of)?;
            self.not(of)
        } else {
            self.primary()
        };
        self.nesting -= 1;
        parsed
    }

    fn primary(&mut self) -> Result<Parsed, SqlError> {
        let at = self.at();
        let literal = match self.take() {
            Token::Open => {
                let inside = self.or()?;
                self.expect(&Token::Close, ")")?;
                return Ok(inside);
            }
            Token::Name(name) => {
                let node = Node::Property(self.property(name));
                return self.parsed(node, 0);
            }
            Token::Integer(value) => {
                i32::try_from(value).map_or(Literal::Long(value), Literal::Int)
            }
            Token::Float(value) => Literal::Double(value),
            Token::Text(text) => Literal::Text(text),
            Token::Word(Word::True) => Literal::Bool(true),
            Token::Word(Word::False) => Literal::Bool(false),
            Token::Word(Word::Null) => Literal::Null,
            _ => {
                return Err(SqlError::new(
                    at,
                    "a property, a number or a text is missing",
                ));
            }
        };
        self.parsed(Node::Literal(literal), 0)
    }

    fn text(&mut self) -> Result<String, SqlError> {
        let at = self.at();
        match self.take() {
            Token::Text(text) => Ok(text),
            _ => Err(SqlError::new(at, "a text in quotes is missing")),
        }
    }

    fn property(&mut self, name: String) -> usize {
        if self.names.insert(name.clone()) {
            self.seen.push(name);
            return self.seen.len() - 1;
        }
        let known = self.seen.iter().position(|seen| *seen == name);
        known.expect("a name that was noted was seen")
    }

    fn not(&self, of: Parsed) -> Result<Parsed, SqlError> {
        self.parsed(Node::Not(Box::new(of.node)), of.depth)
    }

    /// A node above others of that depth.
    fn parsed(&self, node: Node, depth: usize) -> Result<Parsed, SqlError> {
        let depth = depth + 1;
        if depth > DEPTH_MAX {
            return Err(self.error(too_deep()));
        }
        Ok(Parsed { node, depth })
    }
}

fn too_deep() -> String {
    format!("the expression is nested deeper than {DEPTH_MAX}")
}

fn boolean(at: usize, parsed: Parsed) -> Result<Parsed, SqlError> {
    if parsed.node.is_boolean() {
        return Ok(parsed);
    }
    Err(SqlError::new(at, "this is neither true nor false"))
}

fn number(literal: &Literal) -> Option<f64> {
    match literal {
        Literal::Int(value) => Some(f64::from(*value)),
        Literal::Long(value) => Some(*value as f64),
        Literal::Double(value) => Some(*value),
        Literal::Null | Literal::Bool(_) | Literal::Text(_) => None,
    }
}

/// From the order of first use to the order of names.
fn renumber(node: &mut Node, places: &[usize]) {
    match node {
        Node::Property(property) => *property = places[*property],
        Node::In { property, .. } => *property = places[*property],
        Node::Literal(_) => {}
        Node::Negate(of) | Node::Not(of) | Node::IsNull(of) | Node::Holds { of, .. } => {
            renumber(of, places);
        }
        Node::All(nodes) | Node::Any(nodes) => {
            for node in nodes {
                renumber(node, places);
            }
        }
        Node::Equal(left, right) | Node::Compare(_, left, right) => {
            renumber(left, places);
            renumber(right, places);
        }
    }
}
