//! A reply's text to what it means: text for the reader, reasoning, calls of tools.
//!
//! Which signs a model uses is told by its chat template; see `formats.rs`. Pieces of text go in as they come; what comes
//! out never holds half a sign, and does not depend on where the pieces were cut. A call comes whole, once its JSON could
//! be read; one that cannot be read is text, so that nothing a model wrote is lost.

mod channels;
mod formats;
mod python;
mod read;
mod tagged;
mod tags;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::tokenizer::Tokenizer;
use channels::Channels;
pub use formats::CallForm;
use formats::{Reasoning, ToolFormat};
use tags::Tags;

/// A call that a model wrote.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// The tool's name.
    pub name: String,
    /// By parameter.
    pub arguments: Map<String, Value>,
}

/// What more of a reply is certain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// For the reader.
    pub text: String,
    /// What the model thought before it answered.
    pub reasoning: String,
    /// Whole calls, in their order.
    pub calls: Vec<Call>,
}

/// How a model shows that it thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinkingSigns {
    /// Before what it thinks.
    pub open: &'static str,
    /// After it.
    pub close: &'static str,
    /// What stands between that and an answer.
    pub after: &'static str,
    /// Every reply of the model begins with `open`, unless it is told otherwise.
    pub always: bool,
}

/// The signs a model writes with, as its template tells them.
#[derive(Clone, Debug)]
pub struct OutputFormat {
    /// Parts of a reply lie in named channels; nothing else counts then.
    channels: bool,
    reasoning: Option<&'static Reasoning>,
    tools: &'static ToolFormat,
}

impl OutputFormat {
    /// Looks for the signs in the text of a template, and in the vocabulary.
    pub(super) fn detect(template: &str, tokenizer: &Tokenizer) -> Self {
        let thinks = |signs: &&Reasoning| template.contains(signs.close) || tokenizer.id(signs.close).is_some();
        Self {
            channels: template.contains(channels::CHANNEL) && template.contains(channels::MESSAGE),
            reasoning: formats::REASONING.iter().find(thinks),
            tools: formats::tools_of(template),
        }
    }

    /// Names that [`OutputFormat::with_tools`] knows.
    pub fn tool_formats() -> impl Iterator<Item = &'static str> {
        formats::TOOLS.iter().map(|format| format.name).chain([channels::NAME])
    }

    /// The same with another way of writing calls; nothing where no format has that name.
    pub fn with_tools(&self, name: &str) -> Option<Self> {
        if name == channels::NAME {
            return Some(Self { channels: true, ..self.clone() });
        }
        let tools = formats::TOOLS.iter().find(|format| format.name == name)?;
        Some(Self { channels: false, tools, ..self.clone() })
    }

    /// Whether the model writes down what it thinks.
    pub fn reasons(&self) -> bool {
        self.channels || self.reasoning.is_some()
    }

    /// How the model shows that it thinks; nothing where it does not.
    pub fn thinking(&self) -> Option<ThinkingSigns> {
        if self.channels {
            return Some(channels::THINKING);
        }
        let signs = self.reasoning?;
        Some(ThinkingSigns { open: signs.open, close: signs.close, after: signs.after, always: false })
    }

    /// Whether a prompt ends inside of the reasoning. `prompt_end` is the end of its text.
    pub fn opens(&self, prompt_end: &str) -> bool {
        !self.channels && self.reasoning.is_some_and(|signs| prompt_end.trim_end().ends_with(signs.open))
    }

    /// What a model writes before an answer.
    pub fn lead(&self) -> &'static str {
        if self.channels { channels::FINAL } else { "" }
    }

    /// How the model writes a call.
    pub fn call_form(&self, tokenizer: &Tokenizer) -> CallForm {
        let fits = |form: &&CallForm| form.sign.is_empty() || tokenizer.id(form.sign).is_some();
        match self.tools.writes.iter().find(fits) {
            Some(form) if !self.channels => *form,
            _ => channels::CALL,
        }
    }

    /// What calls are written in.
    pub fn tools(&self) -> &'static str {
        if self.channels { channels::NAME } else { self.tools.name }
    }

    /// The ids of special tokens that are signs: a decoder has to let them through.
    pub fn sign_ids(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let reasoning = self.reasoning.iter().flat_map(|signs| [signs.open, signs.close]);
        let signs: Vec<&str> = match self.channels {
            true => channels::SIGNS.to_vec(),
            false => reasoning.chain(self.tools.signs()).collect(),
        };
        signs.into_iter().filter_map(|sign| tokenizer.id(sign)).collect()
    }

    /// A splitter for one reply. `prompt_end` is the end of the prompt's text, where the template may have opened the
    /// reasoning; calls are looked for where `tools` is given: the names of those that the model was told about, and the
    /// schemas of their parameters.
    pub fn splitter(&self, prompt_end: &str, tools: Option<Vec<(String, Value)>>) -> Splitter {
        if self.channels {
            return Splitter(Kind::Channels(Channels::new(tools.is_some())));
        }
        let tools = tools.map(|tools| (self.tools, tools));
        if self.reasoning.is_none() && tools.is_none() {
            return Splitter(Kind::Plain);
        }
        let opened = self.opens(prompt_end);
        Splitter(Kind::Tags(Tags::new(self.reasoning, opened, tools)))
    }
}

/// Splits one reply.
pub struct Splitter(Kind);

enum Kind {
    /// All of it is text.
    Plain,
    Tags(Tags),
    Channels(Channels),
}

impl Splitter {
    /// A splitter for replies without any signs.
    pub fn plain() -> Self {
        Self(Kind::Plain)
    }

    /// Takes the next text.
    pub fn push(&mut self, text: &str) -> Delta {
        match &mut self.0 {
            Kind::Plain => Delta { text: text.to_owned(), ..Delta::default() },
            Kind::Tags(tags) => tags.push(text),
            Kind::Channels(channels) => channels.push(text),
        }
    }

    /// What was held back, once the reply has ended.
    pub fn finish(&mut self) -> Delta {
        match &mut self.0 {
            Kind::Plain => Delta::default(),
            Kind::Tags(tags) => tags.finish(),
            Kind::Channels(channels) => channels.finish(),
        }
    }
}

/// Where `text` may be given out up to: before white space and the beginning of a sign at its end.
fn certain<'a>(text: &str, signs: impl Iterator<Item = &'a str> + Clone) -> usize {
    let may_begin = |at: &usize| {
        let tail = text.get(*at..).unwrap_or_default();
        signs.clone().any(|sign| sign.len() > tail.len() && sign.starts_with(tail))
    };
    let cut = text.char_indices().map(|(at, _)| at).find(may_begin).unwrap_or(text.len());
    text.get(..cut).unwrap_or_default().trim_end().len()
}

/// Takes the first `len` bytes off.
fn take(held: &mut String, len: usize) -> String {
    let rest = held.split_off(len.min(held.len()));
    std::mem::replace(held, rest)
}

#[cfg(test)]
mod tests;
