//! Calls as Python writes them: `[f(a=1, b="x"), g()]`, or one a line. Only literals, never anything that is run.

use serde_json::{Map, Number, Value};

use super::Call;

/// Lists and dictionaries inside of one another, at most.
const MAX_DEPTH: usize = 32;

/// All calls of a text; nothing where it holds anything else.
pub(super) fn calls(text: &str) -> Option<Vec<Call>> {
    let mut reader = Reader { rest: text.trim() };
    let listed = reader.take("[");
    let mut calls = Vec::new();
    while !(reader.rest.is_empty() || listed && reader.rest.starts_with(']')) {
        calls.push(reader.call()?);
        while reader.take(",") || reader.take(";") {}
    }
    if listed && !reader.take("]") {
        return None;
    }
    (reader.rest.is_empty() && !calls.is_empty()).then_some(calls)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Takes a sign and the white space after it, if it is there.
    fn take(&mut self, sign: &str) -> bool {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> Option<&'a str> {
        let len =
            self.rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest.trim_start();
        (!word.is_empty()).then_some(word)
    }

    fn call(&mut self) -> Option<Call> {
        let name = self.word()?;
        // Llama's built-in tools are written `name.call(...)`.
        let name = name.strip_suffix(".call").unwrap_or(name);
        let mut arguments = Map::new();
        if !self.take("(") {
            return None;
        }
        while !self.take(")") {
            let parameter = self.word()?;
            if !self.take("=") {
                return None;
            }
            arguments.insert(parameter.to_owned(), self.value(0)?);
            if !self.take(",") && !self.rest.starts_with(')') {
                return None;
            }
        }
        Some(Call { name: name.to_owned(), arguments })
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.rest.chars().next()? {
            '"' | '\'' => self.text().map(Value::String),
            '[' | '(' => self.list(depth),
            '{' => self.dictionary(depth),
            _ => match self.word()? {
                "True" | "true" => Some(Value::Bool(true)),
                "False" | "false" => Some(Value::Bool(false)),
                "None" | "null" => Some(Value::Null),
                word => number(word).map(Value::Number),
            },
        }
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        let close = if self.take("[") { "]" } else { self.take("(").then_some(")")? };
        let mut items = Vec::new();
        while !self.take(close) {
            items.push(self.value(depth.saturating_add(1))?);
            if !self.take(",") && !self.rest.starts_with(close) {
                return None;
            }
        }
        Some(Value::Array(items))
    }

    fn dictionary(&mut self, depth: usize) -> Option<Value> {
        self.take("{").then_some(())?;
        let mut map = Map::new();
        while !self.take("}") {
            let key = self.text()?;
            self.take(":").then_some(())?;
            map.insert(key, self.value(depth.saturating_add(1))?);
            if !self.take(",") && !self.rest.starts_with('}') {
                return None;
            }
        }
        Some(Value::Object(map))
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let mut letters = self.rest.char_indices().skip(1);
        let mut text = String::new();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => text.push(match letters.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                }),
                _ if letter == quote => {
                    self.rest = self.rest.get(at.checked_add(letter.len_utf8())?..)?.trim_start();
                    return Some(text);
                }
                _ => text.push(letter),
            }
        }
        None
    }
}

fn number(word: &str) -> Option<Number> {
    match word.parse::<i64>() {
        Ok(whole) => Some(whole.into()),
        Err(_) => Number::from_f64(word.parse().ok()?),
    }
}
