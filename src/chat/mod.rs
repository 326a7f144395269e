//! Messages to the text a model was trained on, by the model's own Jinja template, with origin marks.
//!
//! Templates come with models and are not trusted: they run with limits on source, nesting, steps and output, without
//! files, clocks or host objects. What they write is told apart from what users wrote; see `origin.rs`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

mod environment;
mod message;
mod nesting;
mod origin;
mod output;
mod python;
mod sources;
mod strftime;
mod tools;

pub use message::Message;
pub use output::{Call, CallForm, Delta, OutputFormat, Splitter, ThinkingSigns};
pub use tools::{ToolDefinitions, arguments_as_objects, arguments_as_text};

use minijinja::Environment;
use minijinja::value::Serde;
use serde_json::{Map, Value};

use crate::error::{At, Error, ErrorKind, Result};
use crate::format::Metadata;
use crate::tokenizer::{MarkedText, Tokenizer};
use origin::{Literals, Marker, Marks};

/// Largest template source, in bytes.
const MAX_SOURCE: usize = 256 << 10;
/// Instructions that one rendering may take.
const MAX_STEPS: u64 = 1_000_000;
/// Largest output, in bytes.
const MAX_OUTPUT: usize = 8 << 20;

/// What a rendering is told besides the messages.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// Whether the text ends where the assistant's reply begins.
    pub add_generation_prompt: bool,
    /// Tool definitions, as the template wants them (a list of JSON objects).
    pub tools: Option<Value>,
    /// More variables, such as `enable_thinking`.
    pub variables: Map<String, Value>,
    /// Seconds since 1970, for templates that write the date.
    pub now_secs: f64,
}

/// A model's chat template, compiled.
pub struct Template {
    environment: Environment<'static>,
    /// Names of the templates; the first is the default.
    names: Vec<String>,
    source: String,
    fingerprint: String,
    /// `bos_token` and the like.
    special_tokens: Map<String, Value>,
    literals: Literals,
    output: OutputFormat,
    /// Those of [`VARIABLES`] that it reads.
    variables: Vec<&'static str>,
}

/// Variables of templates that callers have a need to know of.
const VARIABLES: &[&str] = &["tools", "enable_thinking", "thinking"];

impl Template {
    /// Reads and compiles the template that comes with the model; `None` when there is none.
    ///
    /// Fails with `TemplateLimit` past a limit and `TemplateError` (with the line) for one that does not parse.
    pub fn from_metadata(metadata: &Metadata, tokenizer: &Tokenizer) -> Result<Option<Template>> {
        let Some(found) = sources::find(metadata)? else { return Ok(None) };
        let mut environment = environment::new()?;
        let mut names = Vec::with_capacity(found.templates.len());
        let (mut hash, mut whole) = (Fnv::new(), String::new());
        for (name, text) in found.templates {
            hash.add(&text);
            whole.push_str(&text);
            add(&mut environment, &name, text).at(|| format!("{} ({name})", found.source))?;
            names.push(name);
        }
        Ok(Some(Template {
            environment,
            names,
            source: found.source,
            fingerprint: hash.hex(),
            special_tokens: sources::special_tokens(metadata, tokenizer)?,
            literals: Literals::new(tokenizer)?,
            output: OutputFormat::detect(&whole, tokenizer),
            variables: VARIABLES.iter().copied().filter(|name| has_word(&whole, name)).collect(),
        }))
    }

    /// Where a model's template is and its fingerprint, without looking whether it can be used.
    pub fn look(metadata: &Metadata) -> Result<Option<(String, String)>> {
        let Some(found) = sources::find(metadata)? else { return Ok(None) };
        let mut hash = Fnv::new();
        found.templates.iter().for_each(|(_, text)| hash.add(text));
        Ok(Some((found.source, hash.hex())))
    }

    /// All of a model's templates as one text.
    pub fn text(metadata: &Metadata) -> Result<Option<String>> {
        Ok(sources::find(metadata)?.map(|found| found.templates.into_iter().map(|(_, text)| text).collect()))
    }

    /// Where the template came from, such as `chat_template.jinja`.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// A short hash of the template's text (FNV-1a, 64 bits): to tell templates apart, not to prove anything.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// How the model writes reasoning and calls of tools.
    pub fn output(&self) -> &OutputFormat {
        &self.output
    }

    /// Whether it reads the variable `name`: `tools`, `enable_thinking` or `thinking`.
    pub fn reads(&self, name: &str) -> bool {
        self.variables.contains(&name)
    }

    /// The prompt, and which of its bytes the template wrote.
    ///
    /// Fails with `TemplateError` (line and words of the template's own `raise_exception`) or `TemplateLimit`.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<MarkedText> {
        let plain = self.run(messages, options, None)?;
        let marker = Marker::choose(self.literals.reserved(), messages, options)?;
        // All user text marked: exact, unless the template looked into it and decided otherwise because of the marks.
        if let Ok(marked) = self.run(messages, options, Some((&marker, Marks::Every)))
            && let Some(text) = marker.exact(&plain, &marked)
        {
            return Ok(text);
        }
        // Marks only inside what could become a token: user text that holds none is left alone.
        let marked = self.run(messages, options, Some((&marker, Marks::Tokens)))?;
        Ok(marker.broken(&marked))
    }

    fn run(&self, messages: &[Message], options: &RenderOptions, marks: Option<(&Marker, Marks)>) -> Result<String> {
        let mut context = self.special_tokens.clone();
        let mark = |value: Value| match marks {
            Some((marker, marks)) => marker.mark(value, marks, &self.literals),
            None => value,
        };
        for (name, value) in &options.variables {
            context.insert(name.clone(), mark(value.clone()));
        }
        let list = messages.iter().map(|message| match marks {
            Some((marker, marks)) => marker.mark_message(message, marks, &self.literals),
            None => message.to_json(),
        });
        context.insert("messages".to_owned(), Value::Array(list.collect()));
        context.insert("tools".to_owned(), options.tools.clone().map_or(Value::Null, mark));
        context.insert("documents".to_owned(), Value::Null);
        context.insert("add_generation_prompt".to_owned(), options.add_generation_prompt.into());

        let name = match options.tools {
            Some(_) => self.names.iter().find(|name| *name == sources::TOOL_USE).or(self.names.first()),
            None => self.names.first(),
        };
        let name = name.map(String::as_str).unwrap_or_default();
        let template = self.environment.get_template(name).map_err(|error| from_jinja(&error))?;
        let context = minijinja::context! {
            strftime_now => strftime::function(options.now_secs),
            ..minijinja::Value::from(Serde(Value::Object(context)))
        };
        let limit = marks.map_or(MAX_OUTPUT, |_| MAX_OUTPUT.saturating_mul(origin::GROWTH));
        let mut output = environment::Limited::new(limit);
        let result = template.render_captured_to(context, &mut output);
        if output.is_over() {
            return Err(limit_error(format!("the output is longer than {limit} bytes")).at(self.source.as_str()));
        }
        result.map_err(|error| from_jinja(&error)).at(|| self.source.clone())?;
        output.into_text().ok_or_else(|| Error::new(ErrorKind::Internal, "the rendered text is not UTF-8"))
    }
}

/// Checks and compiles one template.
fn add(environment: &mut Environment<'static>, name: &str, text: String) -> Result<()> {
    if text.len() > MAX_SOURCE {
        return Err(limit_error(format!("{} bytes, at most {MAX_SOURCE} are allowed", text.len())));
    }
    nesting::check(&text)?;
    let text = nesting::without_generation_tags(&text);
    environment.add_template_owned(name.to_owned(), text).map_err(|error| from_jinja(&error))
}

fn limit_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::TemplateLimit, message)
}

/// An error of the template engine, with the line.
fn from_jinja(error: &minijinja::Error) -> Error {
    let kind = match error.kind() {
        minijinja::ErrorKind::OutOfFuel => ErrorKind::TemplateLimit,
        _ => ErrorKind::TemplateError,
    };
    let mut message = match (kind, error.detail()) {
        (ErrorKind::TemplateLimit, _) => format!("the template took more than {MAX_STEPS} steps"),
        (_, Some(detail)) if error.kind() == minijinja::ErrorKind::InvalidOperation => detail.to_owned(),
        (_, Some(detail)) => format!("{}: {detail}", error.kind()),
        (_, None) => error.kind().to_string(),
    };
    // The innermost cause says what went wrong.
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    let error_here = Error::new(kind, message);
    match error.line() {
        Some(line) => error_here.at(format!("line {line}")),
        None => error_here,
    }
}

/// Whether a text has a word that is not a part of another one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, rest) = text.split_at_checked(at).unwrap_or_default();
        let after = rest.get(word.len()..).unwrap_or_default();
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, text: &str) {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}
