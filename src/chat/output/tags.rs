//! Replies with signs in their text. White space beside a sign goes with it.

use serde_json::Value;

use super::formats::{Reasoning, Section, ToolFormat};
use super::tagged::{by_schema, is_json};
use super::{Call, Delta, certain, take};

enum State {
    Text,
    Reasoning,
    /// In a section; its first bytes, up to the calls, are known to be there.
    Calls(&'static Section, usize),
}

pub(super) struct Tags {
    reasoning: Option<&'static Reasoning>,
    /// The format, and the names of the tools with their parameters' schemas.
    tools: Option<(&'static ToolFormat, Vec<(String, Value)>)>,
    state: State,
    /// What is not certain yet.
    held: String,
    /// Nothing but white space came so far in this state: of a text also nothing but calls.
    fresh: bool,
    /// A call came.
    called: bool,
    /// A sign came last: white space that follows goes with it.
    after_sign: bool,
}

impl Tags {
    /// `opened`: the prompt ends inside of the reasoning.
    pub(super) fn new(
        reasoning: Option<&'static Reasoning>,
        opened: bool,
        tools: Option<(&'static ToolFormat, Vec<(String, Value)>)>,
    ) -> Self {
        let state = if opened { State::Reasoning } else { State::Text };
        Self { reasoning, tools, state, held: String::new(), fresh: true, called: false, after_sign: opened }
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
        match self.state {
            State::Text => delta.text = held,
            State::Reasoning => delta.reasoning = held.trim_end().to_owned(),
            // Models leave out the last sign where a reply ends with it.
            State::Calls(section, skip) => match self.read(section, held.get(skip..).unwrap_or_default()) {
                Some(calls) => delta.calls = calls,
                None => delta.text = held,
            },
        }
        delta
    }

    /// Makes what is certain out of what is held; false when more text is needed.
    fn step(&mut self, delta: &mut Delta) -> bool {
        if self.after_sign && !matches!(self.state, State::Calls(..)) {
            // Calls that stand alone are parted by semicolons.
            let parted = self.called && self.fresh;
            let rest = self.held.trim_start_matches(|c: char| c.is_whitespace() || parted && c == ';');
            self.held = rest.to_owned();
            self.after_sign = self.held.is_empty();
            if self.after_sign {
                return false;
            }
        }
        match self.state {
            State::Text => self.text(delta),
            State::Reasoning => self.think(delta),
            State::Calls(section, skip) => self.calls(section, skip, delta),
        }
    }

    fn text(&mut self, delta: &mut Delta) -> bool {
        if self.fresh {
            match self.begin() {
                Some(true) => return true,
                Some(false) => return false,
                None => {}
            }
        }
        let signs = self.tools.iter().flat_map(|(format, _)| format.signs());
        let found = signs.clone().filter_map(|sign| self.held.find(sign).map(|at| (at, sign))).min();
        let Some((at, sign)) = found else {
            let certain = certain(&self.held, signs);
            return self.give_text(certain, delta);
        };
        let before = self.held.get(..at).unwrap_or_default().trim_end().len();
        self.give_text(before, delta);
        let space = at.saturating_sub(before);
        let section = self.tools.iter().flat_map(|(format, _)| format.sections).find(|section| section.open == sign);
        match section {
            Some(section) => self.state = State::Calls(section, space.saturating_add(section.skip)),
            None => {
                take(&mut self.held, space.saturating_add(sign.len()));
                self.after_sign = true;
            }
        }
        true
    }

    /// What counts only at the beginning. True: it came; false: it may still come; nothing: it did not.
    fn begin(&mut self) -> Option<bool> {
        let rest = self.held.trim_start();
        let space = self.held.len().saturating_sub(rest.len());
        if rest.is_empty() {
            return Some(false);
        }
        if let Some(signs) = self.reasoning {
            if rest.starts_with(signs.open) {
                take(&mut self.held, space.saturating_add(signs.open.len()));
                (self.state, self.after_sign) = (State::Reasoning, true);
                return Some(true);
            }
            if signs.open.starts_with(rest) {
                return Some(false);
            }
        }
        let bare = self.tools.as_ref().and_then(|(format, _)| format.bare)?;
        rest.starts_with(bare.open).then(|| {
            self.state = State::Calls(bare, space);
            true
        })
    }

    fn give_text(&mut self, len: usize, delta: &mut Delta) -> bool {
        let text = take(&mut self.held, len);
        self.fresh &= text.trim().is_empty();
        delta.text.push_str(&text);
        false
    }

    fn think(&mut self, delta: &mut Delta) -> bool {
        let Some(signs) = self.reasoning else {
            self.state = State::Text;
            return true;
        };
        if self.fresh {
            // Some models open what their template has opened already.
            if self.held.starts_with(signs.open) {
                take(&mut self.held, signs.open.len());
                (self.fresh, self.after_sign) = (false, true);
                return true;
            }
            if signs.open.starts_with(self.held.as_str()) {
                return false;
            }
        }
        self.fresh = false;
        match self.held.find(signs.close) {
            Some(at) => {
                let thought = take(&mut self.held, at);
                delta.reasoning.push_str(thought.trim_end());
                take(&mut self.held, signs.close.len());
                self.reasoning = None;
                (self.state, self.fresh, self.after_sign) = (State::Text, true, true);
                true
            }
            None => {
                let certain = certain(&self.held, std::iter::once(signs.close));
                delta.reasoning.push_str(&take(&mut self.held, certain));
                false
            }
        }
    }

    fn calls(&mut self, section: &'static Section, skip: usize, delta: &mut Delta) -> bool {
        let body = self.held.get(skip..).unwrap_or_default();
        let Some((calls_end, section_end)) = (section.end)(body) else { return false };
        let calls = self.read(section, body.get(..calls_end).unwrap_or_default());
        let raw = take(&mut self.held, skip.saturating_add(section_end));
        self.state = State::Text;
        match calls {
            Some(calls) => {
                delta.calls.extend(calls);
                (self.reasoning, self.called, self.after_sign) = (None, true, true);
            }
            None => {
                self.fresh = false;
                delta.text.push_str(&raw);
            }
        }
        true
    }

    fn read(&self, section: &Section, body: &str) -> Option<Vec<Call>> {
        let tool = |call: &Call| self.tools.iter().flat_map(|(_, tools)| tools).find(|(name, _)| *name == call.name);
        let mut calls = (section.read)(body)?;
        if section.known_only && !calls.iter().all(|call| tool(call).is_some()) {
            return None;
        }
        if section.bare_values && !is_json(body) {
            for call in &mut calls {
                let parameters = tool(call).map_or(&Value::Null, |(_, parameters)| parameters);
                by_schema(call, parameters);
            }
        }
        Some(calls)
    }
}
