//! Reads the notation, as `llama-grammar.cpp` does: what it refuses is refused, with line and column.

use std::collections::BTreeMap;

use super::node::{Grammar, Letters, Node};
use super::{MAX_DEPTH, MAX_NODES, MAX_REPEAT, limit};
use crate::{Fault, FaultKind};

/// Reads a grammar; its rule `root` is what a text is.
pub(super) fn parse(text: &str) -> Result<Grammar, Fault> {
    let mut reader = Reader { text, at: 0, names: BTreeMap::new(), rules: Vec::new(), nodes: 0 };
    reader.space(true);
    while reader.peek().is_some() {
        reader.rule()?;
    }
    let undefined = reader.rules.iter().position(Option::is_none);
    if let Some((name, (_, first))) = reader.names.iter().find(|(_, (index, _))| Some(*index) == undefined) {
        return Err(reader.wrong(*first, &format!("the rule {name} is named and not defined")));
    }
    let Some(root) = reader.names.get("root").map(|(index, _)| *index) else {
        return Err(reader.wrong(text.len(), "there is no rule named root"));
    };
    Ok(Grammar { rules: reader.rules.into_iter().flatten().collect(), root })
}

struct Reader<'a> {
    text: &'a str,
    /// Bytes read.
    at: usize,
    /// The place of each rule, and where it was named first.
    names: BTreeMap<&'a str, (usize, usize)>,
    rules: Vec<Option<Node>>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn wrong(&self, at: usize, words: &str) -> Fault {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
        Fault { kind: FaultKind::Unsupported, message: format!("line {line}, column {column}: {words}") }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    /// Skips blanks and comments; line ends too with `lines`.
    fn space(&mut self, lines: bool) {
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' => self.at += 1,
                '#' => self.at += self.rest().find(['\n', '\r']).unwrap_or(self.rest().len()),
                '\n' | '\r' if lines => self.at += 1,
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).filter(|name| !name.is_empty())
    }

    fn count(&mut self) -> Result<(), Fault> {
        self.nodes += 1;
        match self.nodes > MAX_NODES {
            true => Err(limit(format!("the grammar has more than {MAX_NODES} parts"))),
            false => Ok(()),
        }
    }

    /// The place of a rule of that name, which stands at `at`.
    fn place(&mut self, name: &'a str, at: usize) -> usize {
        let next = self.rules.len();
        let (index, _) = *self.names.entry(name).or_insert((next, at));
        if index == next {
            self.rules.push(None);
        }
        index
    }

    fn rule(&mut self) -> Result<(), Fault> {
        let at = self.at;
        let name = self.name().ok_or_else(|| self.wrong(at, "the name of a rule is needed"))?;
        self.space(false);
        if !self.takes("::=") {
            return Err(self.wrong(self.at, "::= is needed"));
        }
        self.space(true);
        let body = self.choices(0)?;
        if let Some(next) = self.peek().filter(|next| !matches!(next, '\n' | '\r')) {
            return Err(self.wrong(self.at, &format!("{next:?} cannot come here")));
        }
        let index = self.place(name, at);
        if let Some(rule) = self.rules.get_mut(index) {
            *rule = Some(body);
        }
        self.space(true);
        Ok(())
    }

    fn choices(&mut self, depth: usize) -> Result<Node, Fault> {
        let mut choices = vec![self.sequence(depth)?];
        while self.takes("|") {
            self.space(true);
            choices.push(self.sequence(depth)?);
        }
        Ok(if choices.len() == 1 { choices.remove(0) } else { Node::Any(choices) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node, Fault> {
        if depth > MAX_DEPTH {
            return Err(limit(format!("more than {MAX_DEPTH} parentheses within one another")));
        }
        let mut parts: Vec<Node> = Vec::new();
        while let Some(next) = self.peek() {
            self.count()?;
            let at = self.at;
            match next {
                '"' => parts.push(self.literal()?),
                '[' => parts.push(self.class()?),
                '.' => {
                    self.at += 1;
                    parts.push(Node::One(Letters::default().others()));
                }
                '(' => {
                    self.at += 1;
                    self.space(true);
                    let inner = self.choices(depth + 1)?;
                    if !self.takes(")") {
                        return Err(self.wrong(self.at, "a parenthesis is not closed"));
                    }
                    parts.push(inner);
                }
                '*' | '+' | '?' | '{' => {
                    let last = parts.pop().ok_or_else(|| self.wrong(at, "there is nothing to repeat"))?;
                    let (least, most) = self.times()?;
                    parts.push(Node::Times(Box::new(last), least, most));
                }
                _ => match self.name() {
                    Some(name) => {
                        let index = self.place(name, at);
                        parts.push(Node::Rule(index));
                    }
                    None => break,
                },
            }
            self.space(depth > 0);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::All(parts) })
    }

    fn times(&mut self) -> Result<(u32, Option<u32>), Fault> {
        let at = self.at;
        match self.next() {
            Some('*') => return Ok((0, None)),
            Some('+') => return Ok((1, None)),
            Some('?') => return Ok((0, Some(1))),
            _ => self.space(true),
        }
        let least = self.number(at)?;
        self.space(true);
        let most = match self.takes(",") {
            false => Some(least),
            true => {
                self.space(true);
                if self.peek() == Some('}') { None } else { Some(self.number(at)?) }
            }
        };
        self.space(true);
        if !self.takes("}") || most.is_some_and(|most| most < least) {
            return Err(self.wrong(at, "a repetition is {m}, {m,} or {m,n}, the smaller number first"));
        }
        Ok((least, most))
    }

    fn number(&mut self, at: usize) -> Result<u32, Fault> {
        let digits = self.rest().len() - self.rest().trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number = self.rest().get(..digits).and_then(|digits| digits.parse::<u32>().ok());
        let number = number.filter(|number| *number <= MAX_REPEAT);
        self.at += digits;
        number.ok_or_else(|| self.wrong(at, &format!("a whole number up to {MAX_REPEAT} is needed in braces")))
    }

    fn literal(&mut self) -> Result<Node, Fault> {
        let at = self.at;
        self.at += 1;
        let mut letters = Vec::new();
        while !self.takes("\"") {
            self.count()?;
            letters.push(Node::One(Letters::one(self.letter(at, "a text is not closed")?)));
        }
        Ok(Node::All(letters))
    }

    fn class(&mut self) -> Result<Node, Fault> {
        let at = self.at;
        self.at += 1;
        let others = self.takes("^");
        let mut ranges = Vec::new();
        while !self.takes("]") {
            let first = self.letter(at, "a class of letters is not closed")?;
            let mut last = first;
            if self.rest().starts_with('-') && !self.rest().starts_with("-]") {
                self.at += 1;
                last = self.letter(at, "a class of letters is not closed")?;
            }
            if last < first {
                return Err(self.wrong(at, &format!("the range {first:?} to {last:?} is the wrong way round")));
            }
            self.count()?;
            ranges.push((first.into(), last.into()));
        }
        let letters = Letters::of(ranges);
        let letters = if others { letters.others() } else { letters };
        if letters.ranges().is_empty() {
            return Err(self.wrong(at, "no letter is in this class"));
        }
        Ok(Node::One(letters))
    }

    fn letter(&mut self, began: usize, unclosed: &str) -> Result<char, Fault> {
        let at = self.at;
        let unclosed = |reader: &Self| reader.wrong(began, unclosed);
        let letter = self.next().ok_or_else(|| unclosed(self))?;
        if letter != '\\' {
            return Ok(letter);
        }
        let digits = match self.next().ok_or_else(|| unclosed(self))? {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'n' => return Ok('\n'),
            plain @ ('\\' | '"' | '[' | ']' | '-' | '^' | '/') => return Ok(plain),
            other => return Err(self.wrong(at, &format!("\\{other} is no escape"))),
        };
        let code = self.rest().get(..digits).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += if code.is_some() { digits } else { 0 };
        let letter = code.and_then(char::from_u32);
        letter.ok_or_else(|| self.wrong(at, &format!("{digits} digits of a letter are needed behind this escape")))
    }
}
