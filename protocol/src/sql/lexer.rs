//! Cuts an expression into words, numbers, texts and signs.

use super::SqlError;

/// What stands at one place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(Word),
    /// Name of a property.
    Name(String),
    Integer(i64),
    Float(f64),
    Text(String),
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Open,
    Close,
    Comma,
    Plus,
    Minus,
    End,
}

/// A reserved word; written in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
}

const WORDS: [(&str, Word); 12] = [
    ("NOT", Word::Not),
    ("AND", Word::And),
    ("OR", Word::Or),
    ("BETWEEN", Word::Between),
    ("IN", Word::In),
    ("TRUE", Word::True),
    ("FALSE", Word::False),
    ("NULL", Word::Null),
    ("IS", Word::Is),
    ("CONTAINS", Word::Contains),
    ("STARTSWITH", Word::StartsWith),
    ("ENDSWITH", Word::EndsWith),
];

/// All tokens with their places; the last one is the end.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SqlError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks()?;
        let at = lexer.at;
        let token = lexer.token()?;
        let is_end = token == Token::End;
        tokens.push((at, token));
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.rest().bytes().next()
    }

    /// White space and comments.
    fn skip_blanks(&mut self) -> Result<(), SqlError> {
        loop {
            let rest = self.rest();
            let blanks = rest.len()
                - rest
                    .trim_start_matches([' ', '\t', '\n', '\r', '\x0C'])
                    .len();
            self.at += blanks;
            let rest = self.rest();
            if rest.starts_with("--") {
                self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let end = comment.find("*/");
                let end = end.ok_or_else(|| SqlError::new(self.at, "a comment does not end"))?;
                self.at += 2 + end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Token, SqlError> {
        let Some(first) = self.peek() else {
            return Ok(Token::End);
        };
        match first {
            b'\'' => self.text(),
            b'0'..=b'9' => self.number(),
            b'.' => self.number(),
            b'_' | b'$' => Ok(self.word()),
            _ if first.is_ascii_alphabetic() => Ok(self.word()),
            _ => self.sign(),
        }
    }

    fn sign(&mut self) -> Result<Token, SqlError> {
        const SIGNS: [(&str, Token); 11] = [
            ("<>", Token::NotEqual),
            ("<=", Token::LessOrEqual),
            (">=", Token::GreaterOrEqual),
            ("=", Token::Equal),
            ("<", Token::Less),
            (">", Token::Greater),
            ("(", Token::Open),
            (")", Token::Close),
            (",", Token::Comma),
            ("+", Token::Plus),
            ("-", Token::Minus),
        ];
        let found = SIGNS.iter().find(|(sign, _)| self.rest().starts_with(sign));
        let Some((sign, token)) = found else {
            let what = self.rest().chars().next().unwrap_or_default();
            return Err(SqlError::new(self.at, format!("{what:?} has no meaning")));
        };
        self.at += sign.len();
        Ok(token.clone())
    }

    fn word(&mut self) -> Token {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        self.at += word.len();
        let reserved = WORDS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word));
        match reserved {
            Some((_, word)) => Token::Word(*word),
            None => Token::Name(word.to_owned()),
        }
    }

    /// `'it''s'`: two quotes are one.
    fn text(&mut self) -> Result<Token, SqlError> {
        let start = self.at;
        let mut text = String::new();
        self.at += 1;
        loop {
            let rest = self.rest();
            let Some(quote) = rest.find('\'') else {
                return Err(SqlError::new(start, "a text does not end"));
            };
            text.push_str(&rest[..quote]);
            self.at += quote + 1;
            if self.peek() != Some(b'\'') {
                return Ok(Token::Text(text));
            }
            text.push('\'');
            self.at += 1;
        }
    }

    fn digits(&mut self) -> usize {
        let count = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        self.at += count;
        count
    }

    /// An integer, `12` or `12L`, or a float, `5.5`, `5.`, `.5`, `5E3`.
    fn number(&mut self) -> Result<Token, SqlError> {
        let start = self.at;
        let whole = self.digits();
        let mut is_float = false;
        if self.peek() == Some(b'.') {
            self.at += 1;
            is_float = true;
            if self.digits() + whole == 0 {
                return Err(SqlError::new(start, "a point without a number"));
            }
        }
        is_float |= self.exponent();
        let number = &self.text[start..self.at];
        if is_float {
            let value: f64 = number.parse().map_err(|_| out_of_range(start, number))?;
            return if value.is_finite() {
                Ok(Token::Float(value))
            } else {
                Err(out_of_range(start, number))
            };
        }
        if number.len() > 1 && number.starts_with('0') {
            return Err(SqlError::new(start, "a number begins with 0"));
        }
        if number != "0" && matches!(self.peek(), Some(b'l' | b'L')) {
            self.at += 1;
        }
        let value = number.parse().map_err(|_| out_of_range(start, number))?;
        Ok(Token::Integer(value))
    }

    /// Takes an exponent, if one is there.
    fn exponent(&mut self) -> bool {
        let before = self.at;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() > 0 {
                return true;
            }
        }
        self.at = before;
        false
    }
}

fn out_of_range(at: usize, number: &str) -> SqlError {
    SqlError::new(at, format!("the number {number} is out of range"))
}
