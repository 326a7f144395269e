//! Reasoning and calls of tools: what a request says of them, and how they come out of a reply.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::invalid;
use super::loaded::Loaded;
use super::request::{GenerateRequest, Prompt};
use super::result::Piece;
use crate::chat::{Call, Delta, OutputFormat, Splitter, Template, ToolDefinitions};
use crate::error::Result;
use crate::tokenizer::{StreamDecoder, Tokenizer};

/// Variables by which templates let callers turn reasoning on and off.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];
/// Ids at a prompt's end among which a template's opening of the reasoning is looked for.
const PROMPT_END: usize = 8;
/// Letters of a call's id. Some templates want exactly so many, and no other letters than these.
const ID_LEN: usize = 9;
const ID_LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The option `reasoning`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReasoningOptions {
    /// Whether the model shall think before it answers; as its template has it when absent.
    pub enabled: Option<bool>,
    /// Ids that it may think for, at most; then its reasoning is ended.
    pub budget: Option<f64>,
}

/// A call that a model wrote, whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToolCall {
    /// Names the call in the message with its result.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// By parameter; what they must be is the tool's own affair to check.
    pub arguments: Map<String, Value>,
}

/// What of a request concerns reasoning and tools, checked.
#[derive(Default)]
pub(super) struct Plan {
    /// The definitions for the template.
    pub(super) tools: Option<Value>,
    /// Variables for the template.
    pub(super) variables: Map<String, Value>,
    pub(super) reading: Option<Reading>,
}

/// How a reply is read: the format, and the tools that it may call.
pub(super) struct Reading(OutputFormat, Option<ToolDefinitions>);

/// Whether a reply is a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The model decides.
    Auto,
    /// It is, of any tool.
    Required,
    /// It is, of this one.
    Named(String),
}

impl Plan {
    /// Checks a request. `InvalidArgument` names the option, and of tools the one that is wrong.
    pub(super) fn new(request: &GenerateRequest, loaded: &Loaded) -> Result<Self> {
        let tools = tools(request)?;
        if request.tool_format.is_some() && tools.is_none() {
            return Err(invalid("this option needs tools").at("toolFormat"));
        }
        let variables = request.template_variables.clone();
        let (Prompt::Messages(_), Some(template)) = (&request.prompt, &loaded.template) else {
            return Ok(Self { variables, ..Self::default() });
        };
        let format = match &request.tool_format {
            None if tools.is_some() && !template.reads("tools") => {
                let words = "this model's chat template takes no tools; describe them in a message and say by \
                             toolFormat how the model writes calls";
                return Err(invalid(words).at("tools"));
            }
            None => template.output().clone(),
            Some(name) => template.output().with_tools(name).ok_or_else(|| {
                let known = OutputFormat::tool_formats().collect::<Vec<_>>().join(", ");
                invalid(format!("{name:?} is none of {known}")).at("toolFormat")
            })?,
        };
        let variables = with_reasoning(variables, request, template, &format)?;
        let listed = tools.as_ref().map(ToolDefinitions::to_json);
        Ok(Self { tools: listed, variables, reading: Some(Reading(format, tools)) })
    }
}

/// The tools that the model is told of.
fn tools(request: &GenerateRequest) -> Result<Option<ToolDefinitions>> {
    let tools = request.tools.as_ref().map(ToolDefinitions::from_json).transpose()?;
    let tools = tools.filter(|tools| !tools.is_empty());
    match choice(request)? {
        None => Ok(None),
        Some(Choice::Auto) => Ok(tools),
        Some(_) if tools.is_none() => Err(invalid("this choice needs tools").at("toolChoice")),
        Some(Choice::Named(name)) if tools.iter().all(|tools| !tools.names().contains(&name)) => {
            Err(invalid(format!("no tool is called {name:?}")).at("toolChoice"))
        }
        Some(_) => Ok(tools),
    }
}

/// The option `toolChoice`; nothing for `"none"`. A tool is named as here or as OpenAI's interface does.
pub(super) fn choice(request: &GenerateRequest) -> Result<Option<Choice>> {
    let Some(choice) = &request.tool_choice else { return Ok(Some(Choice::Auto)) };
    let name = choice.pointer("/function/name").or_else(|| choice.get("name")).and_then(Value::as_str);
    match (choice.as_str(), name) {
        (Some("auto"), _) => Ok(Some(Choice::Auto)),
        (Some("none"), _) => Ok(None),
        (Some("required"), _) => Ok(Some(Choice::Required)),
        (_, Some(name)) => Ok(Some(Choice::Named(name.to_owned()))),
        _ => Err(invalid(format!("{choice} is none of auto, none, required and {{ name }}")).at("toolChoice")),
    }
}

/// The template's variables with its switch of reasoning.
fn with_reasoning(
    mut variables: Map<String, Value>,
    request: &GenerateRequest,
    template: &Template,
    format: &OutputFormat,
) -> Result<Map<String, Value>> {
    let Some(reasoning) = &request.reasoning else { return Ok(variables) };
    if reasoning.budget.is_some() && !format.reasons() {
        return Err(invalid("this model does not reason").at("reasoning.budget"));
    }
    let Some(enabled) = reasoning.enabled else { return Ok(variables) };
    let place = "reasoning.enabled";
    match SWITCHES.iter().find(|name| template.reads(name)) {
        Some(name) if variables.insert((*name).to_owned(), enabled.into()).is_some() => {
            Err(invalid(format!("templateVariables has {name} too")).at(place))
        }
        Some(_) => Ok(variables),
        None if enabled == template.output().reasons() => Ok(variables),
        None if enabled => Err(invalid("this model does not reason").at(place)),
        None => Err(invalid("this model's chat template has no switch for its reasoning").at(place)),
    }
}

impl Reading {
    /// The signs that the model writes with.
    pub(super) fn format(&self) -> &OutputFormat {
        &self.0
    }

    /// What the model may call.
    pub(super) fn tools(&self) -> Option<&ToolDefinitions> {
        self.1.as_ref()
    }

    /// The tokens of a reply to text, signs included.
    pub(super) fn decoder(reading: Option<&Self>, tokenizer: &Tokenizer) -> StreamDecoder {
        let signs = reading.map(|Self(format, _)| format.sign_ids(tokenizer));
        tokenizer.stream_keeping(signs.unwrap_or_default())
    }
}

/// The text of a prompt's end, where a template may have opened the reasoning.
pub(super) fn prompt_end(tokenizer: &Tokenizer, prompt: &[u32]) -> String {
    let end = prompt.get(prompt.len().saturating_sub(PROMPT_END)..).unwrap_or_default();
    tokenizer.decode(end, false).unwrap_or_default()
}

/// What has come out of a reply.
pub(super) struct Output {
    splitter: Splitter,
    /// Grows with the calls, and makes their ids.
    hash: u64,
    /// Of `calls`, those that were told.
    n_told: usize,
    pub(super) reasoning: String,
    pub(super) calls: Vec<ToolCall>,
}

impl Output {
    /// Reads the reply to `prompt`. Ids of calls depend on the prompt and the seed alone: a conversation grows, so no
    /// two of it have the same, and a reply that is made again has the same.
    pub(super) fn new(reading: Option<&Reading>, tokenizer: &Tokenizer, prompt: &[u32], seed: u32) -> Self {
        let splitter = reading.map_or_else(Splitter::plain, |Reading(format, tools)| {
            let known = |tools: &ToolDefinitions| tools.names().iter().cloned().zip(tools.parameters()).collect();
            format.splitter(&prompt_end(tokenizer, prompt), tools.as_ref().map(known))
        });
        let hash = prompt.iter().chain([&seed]).fold(HASH, |hash, id| add(hash, *id));
        Self { splitter, hash, n_told: 0, reasoning: String::new(), calls: Vec::new() }
    }

    /// Adds to a piece what the next text is.
    pub(super) fn push(&mut self, text: &str, piece: &mut Piece) {
        let delta = self.splitter.push(text);
        self.take(delta, piece);
    }

    /// Adds to the last piece what was held back.
    pub(super) fn finish(&mut self, piece: &mut Piece) {
        let delta = self.splitter.finish();
        self.take(delta, piece);
    }

    /// A piece for each call that was not told yet.
    pub(super) fn tell_calls(&mut self) -> Vec<Piece> {
        let calls = self.calls.get(self.n_told..).unwrap_or_default();
        let pieces = calls.iter().map(|call| Piece { tool_call: Some(call.clone()), ..Piece::default() }).collect();
        self.n_told = self.calls.len();
        pieces
    }

    fn take(&mut self, delta: Delta, piece: &mut Piece) {
        piece.text.push_str(&delta.text);
        piece.reasoning.push_str(&delta.reasoning);
        self.reasoning.push_str(&delta.reasoning);
        for Call { name, arguments } in delta.calls {
            self.hash = add(self.hash, 0);
            self.calls.push(ToolCall { id: id(self.hash), name, arguments });
        }
    }
}

/// FNV-1a, 64 bits.
const HASH: u64 = 0xcbf2_9ce4_8422_2325;

fn add(hash: u64, word: u32) -> u64 {
    word.to_le_bytes().iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn id(hash: u64) -> String {
    let letter = |place: u32| {
        let digit = hash.checked_div(36_u64.pow(place)).unwrap_or(0).checked_rem(36).unwrap_or(0);
        char::from(ID_LETTERS.get(digit as usize).copied().unwrap_or(b'0'))
    };
    (0..ID_LEN as u32).map(letter).collect()
}
