//! Who wrote which byte of a prompt.
//!
//! A user who writes `<|im_end|>` must not end the turn. So the tokenizer recognises added tokens only in what the
//! template wrote, and the template's output has to say which bytes those are. The engine's strings carry no marks, and
//! templates trim, split, compare and join what users wrote, so the marks travel inside the text:
//!
//! 1. The template is rendered with the messages as they are. That is the prompt, letter for letter the reference's.
//! 2. It is rendered again with a sentinel (a private-use character that occurs nowhere) before every character of user
//!    text that is not white space. Like a combining mark it goes wherever its character goes: through `trim`, `upper`,
//!    `replace`, `tojson`, slices of lists, `split` at white space. If the output without sentinels equals the prompt,
//!    the sentinels say exactly which characters are the user's.
//! 3. If not, the template looked into user text (`content.startswith('<tool_response>')`) and saw the sentinels. Then
//!    only what could become an added token is marked: a sentinel inside every added token written in user text, and
//!    at both ends of a text where a token could begin or end across the border. That output, without sentinels, is
//!    the prompt, and no token is recognised across a place where one was. User text without added tokens is not
//!    touched by this; a template that wants to see one in user text (other than an assistant's) does not see it, which
//!    is the rule itself: what users write is text.
//!
//! What counts as user text: all contents, names, tool calls, tool definitions and variables. Roles that templates know
//! count as the template's own, because templates build tokens of them (`'<|' + role + '|>'`), and so do words like
//! `function` or `text` in the structure around texts. In an assistant's message, added tokens that are not special
//! (`<think>`, `<tool_call>`) keep their meaning: the model wrote them, and templates look for them.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::{Map, Value};

use super::{Message, RenderOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::{MarkedText, Tokenizer};

/// How much longer marks can make a text: a sentinel has three bytes, a character at least one.
pub(super) const GROWTH: usize = 4;
/// Roles whose name is the template's, not the user's.
const ROLES: &[&str] = &[
    "system",
    "user",
    "assistant",
    "tool",
    "developer",
    "function",
    "ipython",
    "model",
    "tool_call",
    "tool_response",
    "tool_results",
    "observation",
    "critic",
    "context",
];
/// Longest word of the structure around texts (`function`, `parameters`, a tool's name) that stays as it is.
const MAX_WORD: usize = 64;

/// How much of the user's text is marked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// Every character that is not white space.
    Every,
    /// Only where a token could come to be.
    Tokens,
}

/// The added tokens that users must not write.
pub(super) struct Literals {
    /// All occurrences, also overlapping ones.
    all: Option<AhoCorasick>,
    /// Those that are special.
    special: Option<AhoCorasick>,
    /// Those that are not, leftmost-longest.
    plain: Option<AhoCorasick>,
    /// Characters that tokens begin with, and end with.
    firsts: Vec<char>,
    lasts: Vec<char>,
    /// Characters of the longest one.
    longest: usize,
    /// Private-use characters in them.
    reserved: Vec<char>,
}

impl Literals {
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Literals> {
        let (special, plain): (Vec<_>, Vec<_>) = tokenizer.guarded_tokens().partition(|(_, special)| *special);
        let texts = |list: &[(&str, bool)]| list.iter().map(|(text, _)| (*text).to_owned()).collect::<Vec<_>>();
        let (special, plain) = (texts(&special), texts(&plain));
        let all: Vec<String> = special.iter().chain(&plain).cloned().collect();
        let ends = |end: fn(&String) -> Option<char>| {
            let mut ends: Vec<char> = all.iter().filter_map(end).collect();
            ends.sort_unstable();
            ends.dedup();
            ends
        };
        Ok(Literals {
            firsts: ends(|text| text.chars().next()),
            lasts: ends(|text| text.chars().next_back()),
            longest: all.iter().map(|text| text.chars().count()).max().unwrap_or_default(),
            reserved: all.iter().flat_map(|text| text.chars()).filter(is_private).collect(),
            all: automaton(&all, MatchKind::Standard)?,
            special: automaton(&special, MatchKind::Standard)?,
            plain: automaton(&plain, MatchKind::LeftmostLongest)?,
        })
    }

    /// Characters that cannot be sentinels.
    pub(super) fn reserved(&self) -> &[char] {
        &self.reserved
    }
}

fn automaton(texts: &[String], kind: MatchKind) -> Result<Option<AhoCorasick>> {
    if texts.is_empty() {
        return Ok(None);
    }
    AhoCorasick::builder().match_kind(kind).build(texts).map(Some).map_err(|error| {
        Error::new(ErrorKind::LimitExceeded, format!("{} added tokens are too many: {error}", texts.len()))
    })
}

fn is_private(c: &char) -> bool {
    ('\u{e000}'..='\u{f8ff}').contains(c)
}

/// Puts sentinels into user text and reads them back.
pub(super) struct Marker {
    sentinel: char,
}

impl Marker {
    /// Chooses a sentinel that occurs nowhere in what is rendered.
    pub(super) fn choose(reserved: &[char], messages: &[Message], options: &RenderOptions) -> Result<Marker> {
        let mut taken: Vec<char> = reserved.to_vec();
        for message in messages {
            collect_private(&Value::String(message.role.clone()), &mut taken);
            message.content.iter().chain(message.extra.values()).for_each(|value| collect_private(value, &mut taken));
            message.extra.keys().for_each(|key| taken.extend(key.chars().filter(is_private)));
        }
        options.tools.iter().chain(options.variables.values()).for_each(|value| collect_private(value, &mut taken));
        taken.sort_unstable();
        let free = ('\u{e000}'..='\u{f8ff}').rev().find(|c| taken.binary_search(c).is_err());
        free.map(|sentinel| Marker { sentinel })
            .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "the messages use every private-use character"))
    }

    /// A message with its user text marked.
    pub(super) fn mark_message(&self, message: &Message, marks: Marks, literals: &Literals) -> Value {
        let by_model = message.role == "assistant" || message.role == "model";
        let role = if ROLES.contains(&message.role.as_str()) {
            message.role.clone()
        } else {
            self.mark_text(&message.role, marks, literals, false)
        };
        let mut fields = Map::new();
        fields.insert("role".to_owned(), Value::String(role));
        if let Some(content) = &message.content {
            let content = match content {
                Value::String(text) => Value::String(self.mark_text(text, marks, literals, by_model)),
                other => self.mark_value(other.clone(), marks, literals, by_model),
            };
            fields.insert("content".to_owned(), content);
        }
        for (key, value) in &message.extra {
            fields.insert(
                self.mark_word(key, marks, literals, by_model),
                self.mark_value(value.clone(), marks, literals, by_model),
            );
        }
        Value::Object(fields)
    }

    /// A value (a tool definition, a variable) with its user text marked.
    pub(super) fn mark(&self, value: Value, marks: Marks, literals: &Literals) -> Value {
        self.mark_value(value, marks, literals, false)
    }

    fn mark_value(&self, value: Value, marks: Marks, literals: &Literals, by_model: bool) -> Value {
        match value {
            Value::String(text) => Value::String(self.mark_word(&text, marks, literals, by_model)),
            Value::Array(items) => {
                items.into_iter().map(|item| self.mark_value(item, marks, literals, by_model)).collect()
            }
            Value::Object(fields) => fields
                .into_iter()
                .map(|(key, item)| {
                    (self.mark_word(&key, marks, literals, by_model), self.mark_value(item, marks, literals, by_model))
                })
                .collect(),
            other => other,
        }
    }

    /// Marks a text unless it is a word such as templates compare with.
    fn mark_word(&self, text: &str, marks: Marks, literals: &Literals, by_model: bool) -> String {
        let is_word =
            text.len() <= MAX_WORD && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if is_word { text.to_owned() } else { self.mark_text(text, marks, literals, by_model) }
    }

    fn mark_text(&self, text: &str, marks: Marks, literals: &Literals, by_model: bool) -> String {
        let mut places = match marks {
            Marks::Every => {
                let kept = if by_model { matches(&literals.plain, text) } else { Vec::new() };
                let mut kept = kept.into_iter().peekable();
                let mut places = Vec::new();
                for (at, c) in text.char_indices() {
                    while kept.peek().is_some_and(|range| range.end <= at) {
                        kept.next();
                    }
                    if !c.is_whitespace() && !kept.peek().is_some_and(|range| range.contains(&at)) {
                        places.push(at);
                    }
                }
                places
            }
            Marks::Tokens => {
                let literals_in_text = if by_model { &literals.special } else { &literals.all };
                let inside = literals_in_text.iter().flat_map(|automaton| automaton.find_overlapping_iter(text));
                let mut places: Vec<usize> = inside.filter_map(|hit| after_first(text, hit.start())).collect();
                places.extend(edges(text, literals));
                places
            }
        };
        places.sort_unstable();
        places.dedup();
        let mut marked = String::with_capacity(text.len().saturating_add(places.len().saturating_mul(3)));
        let mut done = 0;
        for place in places {
            marked.push_str(text.get(done..place).unwrap_or_default());
            marked.push(self.sentinel);
            done = place;
        }
        marked.push_str(text.get(done..).unwrap_or_default());
        marked
    }

    /// The prompt with every character after a sentinel untrusted; `None` when the marks changed what was rendered.
    pub(super) fn exact(&self, prompt: &str, marked: &str) -> Option<MarkedText> {
        let mut trusted: Vec<Range<usize>> = Vec::new();
        let mut rest = prompt.chars();
        let mut at = 0usize;
        // Where the template's bytes begin that have not been reported yet.
        let mut from = 0;
        // End of the user's text, as long as only white space followed: up to the user's next character it is theirs.
        let mut user_end = None;
        let mut is_user = false;
        for c in marked.chars() {
            if c == self.sentinel {
                is_user = true;
                continue;
            }
            if rest.next() != Some(c) {
                return None;
            }
            let end = at.saturating_add(c.len_utf8());
            if is_user {
                if user_end.is_none() {
                    trusted.push(from..at);
                }
                from = end;
                user_end = Some(end);
            } else if !c.is_whitespace() {
                user_end = None;
            }
            is_user = false;
            at = end;
        }
        if rest.next().is_some() {
            return None;
        }
        trusted.push(from..at);
        Some(MarkedText::new(prompt.to_owned(), trusted))
    }

    /// The text without sentinels, trusted in pieces that end where they were.
    pub(super) fn broken(&self, marked: &str) -> MarkedText {
        let mut text = String::with_capacity(marked.len());
        let mut trusted = Vec::new();
        for piece in marked.split(self.sentinel) {
            let start = text.len();
            text.push_str(piece);
            trusted.push(start..text.len());
        }
        MarkedText::with_breaks(text, trusted)
    }
}

fn matches(automaton: &Option<AhoCorasick>, text: &str) -> Vec<Range<usize>> {
    automaton.iter().flat_map(|automaton| automaton.find_iter(text)).map(|hit| hit.range()).collect()
}

/// The place behind the character at `at`.
fn after_first(text: &str, at: usize) -> Option<usize> {
    text.get(at..)?.chars().next().map(|c| at.saturating_add(c.len_utf8()))
}

/// Places near the ends of a text where a token could begin or end that goes on outside it.
fn edges(text: &str, literals: &Literals) -> Vec<usize> {
    let body = text.trim();
    let offset = text.len().saturating_sub(text.trim_start().len());
    let starts = body.char_indices().rev().take(literals.longest).filter(|(_, c)| literals.firsts.contains(c));
    let ends = body.char_indices().take(literals.longest).filter(|(_, c)| literals.lasts.contains(c));
    let behind = starts.map(|(at, c)| offset.saturating_add(at).saturating_add(c.len_utf8()));
    let before = ends.map(|(at, _)| offset.saturating_add(at));
    behind.chain(before).collect()
}

fn collect_private(value: &Value, taken: &mut Vec<char>) {
    match value {
        Value::String(text) => taken.extend(text.chars().filter(is_private)),
        Value::Array(items) => items.iter().for_each(|item| collect_private(item, taken)),
        Value::Object(fields) => fields.iter().for_each(|(key, item)| {
            taken.extend(key.chars().filter(is_private));
            collect_private(item, taken);
        }),
        _ => {}
    }
}
