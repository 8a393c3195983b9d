//! Words, numbers, texts and signs of a SQL statement.

use crate::error::ApiError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A keyword or a name, as written.
    Word(String),
    /// A name in brackets or double quotes, which is never a keyword.
    Name(String),
    Number(String),
    Text(String),
    Sign(&'static str),
    End,
}

const SIGNS: &[&str] = &["<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", ",", ".", "*", "+", "-", "/", "%", ";"];

pub(super) fn error(what: impl Into<String>) -> ApiError {
    ApiError::query(what)
}

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ApiError> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, after) = token(rest, first)?;
        found.push(token);
        rest = after.trim_start();
    }
    found.push(Token::End);
    Ok(found)
}

fn token(rest: &str, first: char) -> Result<(Token, &str), ApiError> {
    if rest.starts_with("--") || rest.starts_with("/*") {
        return Err(error("Comments are not supported in a SQL query."));
    }
    if first == '\'' {
        let (text, after) = quoted(&rest[1..], '\'')?;
        return Ok((Token::Text(text), after));
    }
    if let Some(after) = rest.strip_prefix("N'").or_else(|| rest.strip_prefix("n'")) {
        let (text, after) = quoted(after, '\'')?;
        return Ok((Token::Text(text), after));
    }
    if first == '[' || first == '"' {
        let (name, after) = quoted(&rest[1..], if first == '[' { ']' } else { '"' })?;
        return Ok((Token::Name(name), after));
    }
    if first.is_ascii_digit() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        return Ok((Token::Number(number.to_owned()), after));
    }
    if first.is_alphabetic() || first == '_' || first == '@' || first == '#' {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '@' | '#'))).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        return Ok((Token::Word(word.to_owned()), after));
    }
    for sign in SIGNS {
        if let Some(after) = rest.strip_prefix(sign) {
            return Ok((Token::Sign(sign), after));
        }
    }
    Err(error(format!("Incorrect syntax near '{first}'.")))
}

/// Up to the closing quote, doubled quotes standing for one.
fn quoted(rest: &str, quote: char) -> Result<(String, &str), ApiError> {
    let mut text = String::new();
    let mut characters = rest.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        if character != quote {
            text.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            text.push(quote);
        } else {
            return Ok((text, &rest[index + quote.len_utf8()..]));
        }
    }
    Err(error("Unclosed quotation mark in the SQL query."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_falls_into_tokens() {
        let found = tokens("select [a b],N'it''s' <= -1.5").unwrap();
        let expected = [
            Token::Word("select".into()),
            Token::Name("a b".into()),
            Token::Sign(","),
            Token::Text("it's".into()),
            Token::Sign("<="),
            Token::Sign("-"),
            Token::Number("1.5".into()),
            Token::End,
        ];
        assert_eq!(found, expected);
        assert!(tokens("a -- b").is_err() && tokens("'a").is_err() && tokens("a § b").is_err());
    }
}
