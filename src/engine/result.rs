//! What comes of a reply: pieces as it is made, then the whole.

use serde::Serialize;

use super::chosen::TokenLogprob;
use super::output::ToolCall;
use super::overflow::Dropped;
use super::receipt::Receipt;
use super::speculation::Speculation;

/// A part of a reply, as it comes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Piece {
    /// Text that was not shown before; empty while it may still become a stop string or is half a character.
    pub text: String,
    /// What the model thought, in the same way.
    pub reasoning: String,
    /// A call, whole; each comes in a piece of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call: Option<ToolCall>,
    /// Ids that were not told before.
    pub tokens: Vec<u32>,
    /// How likely each of them was, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// Which of several replies it is a part of.
    pub choice: u32,
    /// What the model does not see any more from here on, in all, where the context was full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Dropped>,
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FinishReason {
    /// The model ended it, or a stop string came.
    Stop,
    /// `maxTokens` or the context ended it.
    Length,
    /// The model ended it and waits for the results of its calls.
    ToolCalls,
}

/// What a reply used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Ids of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were in the cache already.
    pub cached_tokens: usize,
    /// Ids of the reply, the one that ended it included.
    pub completion_tokens: usize,
}

/// How long a reply took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    /// From the call to the start of the work, while other replies had their turn.
    pub queued_secs: f64,
    /// From the call to the first id.
    pub first_token_secs: f64,
    /// From the start of the work to the first id.
    pub prefill_secs: f64,
    /// From the first id to the last.
    pub decode_secs: f64,
    /// Ids a second after the first one; 0 where there is none.
    pub tokens_per_second: f64,
}

impl Timings {
    pub(super) fn new(asked: f64, started: f64, first: f64, ended: f64, tokens: usize) -> Self {
        let decode_secs = (ended - first).max(0.0);
        let after_first = tokens.saturating_sub(1) as f64;
        Self {
            queued_secs: (started - asked).max(0.0),
            first_token_secs: (first - asked).max(0.0),
            prefill_secs: (first - started).max(0.0),
            decode_secs,
            tokens_per_second: if decode_secs > 0.0 { after_first / decode_secs } else { 0.0 },
        }
    }
}

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationResult {
    /// The text, without stop strings and without special tokens.
    pub text: String,
    /// What the model thought before.
    pub reasoning: String,
    /// The calls that it wrote, in their order.
    pub tool_calls: Vec<ToolCall>,
    /// All ids, the one that ended the reply included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// With `json`, `regex` or `grammar`, or a tool that must be called: whether the text is all that was asked for. It is
    /// not where something else ended the reply: `maxTokens`, the context or a stop string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint_complete: Option<bool>,
    /// What the model did not see at its end, where the context was full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Dropped>,
    /// What it used.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
    /// What came of drafts, where they were asked for; nothing did where they stepped aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speculation: Option<Speculation>,
    /// Where the randomness started.
    pub seed: u32,
    /// How likely each id was, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// What it was made of and by; [`Engine::check_receipt`](super::Engine::check_receipt).
    pub receipt: Option<Receipt>,
    /// The second reply and those after it, where several were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<GenerationResult>,
}
