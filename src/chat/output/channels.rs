//! Replies in channels, as gpt-oss writes them (OpenAI's "harmony" format): each part has a header that names its
//! channel, and perhaps whom it is for; then a sign, then its content.

use super::read::call;
use super::{CallForm, Delta, ThinkingSigns, certain, take};

pub(super) const NAME: &str = "gpt-oss";
pub(super) const CHANNEL: &str = "<|channel|>";
pub(super) const MESSAGE: &str = "<|message|>";
const START: &str = "<|start|>";
const CONSTRAIN: &str = "<|constrain|>";
/// Signs that end a part; the others begin one.
const ENDS: [&str; 5] = ["<|end|>", "<|return|>", "<|call|>", START, CHANNEL];
pub(super) const SIGNS: &[&str] = &[CHANNEL, MESSAGE, START, CONSTRAIN, "<|end|>", "<|return|>", "<|call|>"];
/// Before the name of a tool in a header.
const TO: &str = "to=";
const FUNCTIONS: &str = "functions.";

/// Reasoning is a part, and so is an answer.
pub(super) const THINKING: ThinkingSigns = ThinkingSigns {
    open: "<|channel|>analysis<|message|>",
    close: "<|end|>",
    after: "<|start|>assistant",
    always: true,
};
pub(super) const CALL: CallForm = CallForm {
    sign: "",
    before: "<|channel|>commentary to=functions.",
    middle: " <|constrain|>json<|message|>",
    after: "",
    between: None,
};
pub(super) const FINAL: &str = "<|channel|>final<|message|>";

/// What the content of a part is.
enum Part {
    Header,
    Text,
    Reasoning,
    Call(String),
}

pub(super) struct Channels {
    part: Part,
    held: String,
    tools: bool,
    /// Something was thought or said before: a further part of the same kind begins on a line of its own.
    thought: bool,
    said: bool,
    /// Nothing of this part was given out yet.
    fresh: bool,
}

impl Channels {
    pub(super) fn new(tools: bool) -> Self {
        Self { part: Part::Header, held: String::new(), tools, thought: false, said: false, fresh: true }
    }

    pub(super) fn push(&mut self, text: &str) -> Delta {
        self.held.push_str(text);
        let mut delta = Delta::default();
        while self.step(&mut delta) {}
        delta
    }

    pub(super) fn finish(&mut self) -> Delta {
        let mut delta = Delta::default();
        let held = std::mem::take(&mut self.held);
        match &self.part {
            // A reply that names no channel is all text; a header without content says nothing.
            Part::Header if SIGNS.iter().any(|sign| held.contains(sign)) => {}
            Part::Header => delta.text = held,
            _ => self.give(&held, true, &mut delta),
        }
        delta
    }

    fn step(&mut self, delta: &mut Delta) -> bool {
        if matches!(self.part, Part::Header) {
            let Some(at) = self.held.find(MESSAGE) else { return false };
            let header = take(&mut self.held, at);
            take(&mut self.held, MESSAGE.len());
            self.part = self.part_of(&header);
            self.fresh = true;
            return true;
        }
        match ENDS.iter().filter_map(|sign| self.held.find(sign).map(|at| (at, *sign))).min() {
            Some((at, sign)) => {
                let content = take(&mut self.held, at);
                self.give(&content, true, delta);
                // What begins a part belongs to its header.
                if sign != START && sign != CHANNEL {
                    take(&mut self.held, sign.len());
                }
                self.part = Part::Header;
                true
            }
            None => {
                if !matches!(self.part, Part::Call(_)) {
                    let certain = certain(&self.held, ENDS.into_iter());
                    let content = take(&mut self.held, certain);
                    self.give(&content, false, delta);
                }
                false
            }
        }
    }

    fn part_of(&self, header: &str) -> Part {
        let channel = header.split(CHANNEL).nth(1).unwrap_or_default().trim_start();
        let to = header
            .split(TO)
            .nth(1)
            .map(|rest| rest.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default());
        match to.and_then(|to| to.strip_prefix(FUNCTIONS)) {
            Some(name) if self.tools => Part::Call(name.to_owned()),
            _ if channel.starts_with("analysis") => Part::Reasoning,
            _ => Part::Text,
        }
    }

    /// Gives out content; `last` where the part ends with it.
    fn give(&mut self, content: &str, last: bool, delta: &mut Delta) {
        let (out, before) = match &self.part {
            Part::Header => return,
            Part::Call(name) => {
                let read = || call(name, &serde_json::from_str(content).ok()?);
                match read() {
                    Some(call) => delta.calls.push(call),
                    None => delta.text.push_str(content),
                }
                return;
            }
            Part::Text => (&mut delta.text, &mut self.said),
            Part::Reasoning => (&mut delta.reasoning, &mut self.thought),
        };
        let content = if last { content.trim_end() } else { content };
        if content.is_empty() {
            return;
        }
        if self.fresh && *before {
            out.push('\n');
        }
        (self.fresh, *before) = (false, true);
        out.push_str(content);
    }
}
