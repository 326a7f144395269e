//! A loaded model: everything that replies share.

use std::cell::Cell;

use super::adapters::{Adapters, Base};
use super::driver::Queue;
use super::identity::Identity;
use super::info::{Info, Kind};
use super::json::invalid;
use super::options::Environment;
use super::request::Prompt;
use super::session::Session;
use super::stats::{Stats, Totals, Traffic};
use super::turn::Turns;
use crate::chat::{Message, RenderOptions, Template, arguments_as_objects, arguments_as_text};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Backend;
use crate::model::Embedding;
use crate::tokenizer::{MarkedText, Tokenizer};

/// Submits that are under way at once where the backend works beside us; more would only be dropped at the end.
const SUBMITS_AHEAD: usize = 2;

/// What [`Engine`](super::Engine) shares with the replies under way.
pub(super) struct Loaded {
    pub(super) backend: Box<dyn Backend>,
    pub(super) tokenizer: Tokenizer,
    pub(super) template: Option<Template>,
    /// Tokens that prompt and reply may have together.
    pub(super) context: usize,
    pub(super) info: Info,
    /// What becomes of hidden states where a request says nothing.
    pub(super) embedding: Embedding,
    /// Elements of a final hidden state.
    pub(super) hidden_width: usize,
    /// A text must be in one step.
    pub(super) at_once: bool,
    /// Stands after every text that is embedded.
    pub(super) end_token: Option<&'static str>,
    /// The scores of a ranking are the logits.
    pub(super) raw_scores: bool,
    pub(super) traffic: Traffic,
    pub(super) weight_bytes: u64,
    pub(super) environment: Environment,
    /// The backend works while it is called, not beside us: nothing is gained by submitting ahead, and other work of
    /// the thread needs pauses that are made for it.
    pub(super) inline: bool,
    /// Which model it is.
    pub(super) identity: Identity,
    /// A hash of a part of every piece of the weights as the backend got them: where no hash of a file was verified, it tells
    /// models apart that are alike but for their weights.
    pub(super) weights_sample: String,
    pub(super) base: Base,
    pub(super) adapters: Adapters,
    /// Who may use the pages.
    pub(super) turns: Turns<Session>,
    /// Replies that were asked for.
    pub(super) queue: Queue,
    pub(super) totals: Totals,
    pub(super) disposed: Cell<bool>,
}

/// What a template is told beside the messages.
#[derive(Clone, Default)]
pub(super) struct TemplateInput {
    pub(super) tools: Option<serde_json::Value>,
    pub(super) variables: serde_json::Map<String, serde_json::Value>,
    pub(super) parse_special: bool,
    /// Stands after the prompt of messages, as text.
    pub(super) prefill: String,
}

impl Loaded {
    /// Fails once the model was disposed of.
    pub(super) fn alive(&self) -> Result<()> {
        if self.disposed.get() { Err(disposed()) } else { Ok(()) }
    }

    /// Fails unless the model can do what one of the kind `wanted` does.
    pub(super) fn needs(&self, wanted: Kind) -> Result<()> {
        self.info.kind.needs(wanted)
    }

    /// Submits that may be under way at once.
    pub(super) fn submits_ahead(&self) -> usize {
        if self.inline { 1 } else { SUBMITS_AHEAD }
    }

    /// The ids of a prompt.
    pub(super) fn encode(&self, prompt: &Prompt, input: TemplateInput) -> Result<Vec<u32>> {
        let ids = match prompt {
            Prompt::Text(text) if text.is_empty() => return Err(empty("the text")),
            Prompt::Text(text) => self.tokenizer.encode(text, true, input.parse_special)?,
            Prompt::Messages(messages) if messages.is_empty() => return Err(empty("the list of messages")),
            Prompt::Messages(messages) => {
                let Some(template) = &self.template else {
                    return Err(Error::new(
                        ErrorKind::TemplateError,
                        "this model has no chat template; give the prompt as a text or as ids",
                    ));
                };
                let options = RenderOptions {
                    add_generation_prompt: true,
                    tools: input.tools,
                    variables: input.variables,
                    now_secs: (self.environment.now_secs)(),
                };
                // Templates write the special tokens themselves.
                let rendered = render(template, messages, &options)?;
                self.tokenizer.encode_marked(&rendered.and_untrusted(&input.prefill), false)?
            }
            Prompt::Ids(ids) => ids.clone(),
        };
        self.check_ids(&ids)?;
        Ok(ids)
    }

    /// Fails on a list that is empty or that has an id without a row in the embedding table.
    pub(super) fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let vocab = self.info.vocab_size;
        match ids.iter().position(|id| *id as usize >= vocab) {
            _ if ids.is_empty() => Err(empty("the list of ids")),
            Some(index) => {
                Err(invalid(format!("item {index}: the id is outside 0 ..= {}", vocab.saturating_sub(1))).at("prompt"))
            }
            None => Ok(()),
        }
    }

    /// Fails unless `len` ids leave room for `reply` more.
    pub(super) fn check_room(&self, len: usize, reply: usize) -> Result<()> {
        if len.saturating_add(reply) <= self.context {
            return Ok(());
        }
        let room =
            format!("the prompt has {len} tokens and the context has room for {}", self.context.saturating_sub(reply));
        let note = if reply > 0 { " before the first token of a reply" } else { "" };
        Err(Error::new(ErrorKind::ContextFull, room + note))
    }

    /// What it has done.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            weight_bytes: self.weight_bytes,
            kv_bytes: self.traffic.kv_bytes(self.backend.n_pages()),
            counters: self.backend.counters(),
            ..self.totals.stats()
        }
    }
}

/// Renders a conversation, earlier calls of tools in whichever form the template wants.
fn render(template: &Template, messages: &[Message], options: &RenderOptions) -> Result<MarkedText> {
    let has_calls = messages.iter().any(|message| message.extra.contains_key("tool_calls"));
    if !has_calls {
        return template.render(messages, options);
    }
    let objects = arguments_as_objects(messages)?;
    match template.render(&objects, options) {
        Err(error) if error.kind() == ErrorKind::TemplateError => {
            template.render(&arguments_as_text(&objects)?, options).map_err(|_| error)
        }
        rendered => rendered,
    }
}

/// The error of every call after a dispose.
pub(super) fn disposed() -> Error {
    Error::new(ErrorKind::Disposed, "the model was disposed of")
}

fn empty(what: &str) -> Error {
    invalid(format!("{what} is empty")).at("prompt")
}
