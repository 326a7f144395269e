//! One reply: the prompt in chunks, then chains of ids, submitted ahead of their results.
//!
//! The next chain is submitted before the ids of the last one are read, going on from an id that only the backend
//! knows; so the device never waits for the reader. What was computed past the end of the reply is dropped.

use serde::Serialize;

use super::loaded::Loaded;
use super::request::Settings;
use super::session::Session;
use super::stop::StopText;
use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::StreamDecoder;

/// A part of a reply, as it comes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Piece {
    /// Text that was not shown before; empty while it may still become a stop string or is half a character.
    pub text: String,
    /// Ids that were not told before.
    pub tokens: Vec<u32>,
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FinishReason {
    /// The model ended it, or a stop string came.
    Stop,
    /// `maxTokens` or the context ended it.
    Length,
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
    fn new(asked: f64, started: f64, first: f64, ended: f64, tokens: usize) -> Self {
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
    /// All ids, the one that ended the reply included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What it used.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
    /// Where the randomness started.
    pub seed: u32,
}

/// The ids of a reply turned into text, up to its end.
struct Transcript<'a> {
    decoder: StreamDecoder,
    stop_text: StopText,
    stop_ids: &'a [u32],
    limit: usize,
    text: String,
    tokens: Vec<u32>,
}

impl Transcript<'_> {
    /// Takes ids until the reply ends; those that follow are not part of it.
    fn take(&mut self, ids: &[u32]) -> Result<(Piece, Option<FinishReason>)> {
        let mut piece = Piece::default();
        let mut end = None;
        for id in ids {
            piece.tokens.push(*id);
            if self.stop_ids.contains(id) {
                end = Some(FinishReason::Stop);
            } else {
                piece.text.push_str(&self.stop_text.push(&self.decoder.push(*id)?));
                if self.stop_text.found() {
                    end = Some(FinishReason::Stop);
                } else if self.tokens.len().saturating_add(piece.tokens.len()) >= self.limit {
                    end = Some(FinishReason::Length);
                }
            }
            if end.is_some() {
                break;
            }
        }
        if end.is_some() {
            piece.text.push_str(&self.stop_text.push(&self.decoder.finish()?));
            if self.stop_text.found() {
                end = Some(FinishReason::Stop);
            } else {
                piece.text.push_str(&self.stop_text.finish());
            }
        }
        self.text.push_str(&piece.text);
        self.tokens.extend_from_slice(&piece.tokens);
        Ok((piece, end))
    }
}

/// What is to be done, all checked.
pub(super) struct Job {
    pub(super) prompt: Vec<u32>,
    pub(super) settings: Settings,
    /// When the caller asked.
    pub(super) asked_secs: f64,
}

impl Job {
    /// Runs the reply on the session. Whatever comes of it, the session can be used again.
    pub(super) async fn run(
        &self,
        loaded: &Loaded,
        session: &mut Session,
        aborted: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(&Piece),
    ) -> Result<GenerationResult> {
        let backend = loaded.backend.as_ref();
        let result = self.stream(loaded, session, aborted, sink).await;
        match &result {
            Ok(done) => session.finish(backend, self.prompt.len().saturating_add(done.tokens.len())).await?,
            Err(error) if error.kind() == ErrorKind::Aborted => session.finish(backend, usize::MAX).await?,
            Err(_) => session.abandon(backend).await?,
        }
        result
    }

    async fn stream(
        &self,
        loaded: &Loaded,
        session: &mut Session,
        aborted: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(&Piece),
    ) -> Result<GenerationResult> {
        let (backend, now) = (loaded.backend.as_ref(), &loaded.environment.now_secs);
        let may_go_on = || {
            loaded.alive()?;
            if aborted() { Err(Error::new(ErrorKind::Aborted, "the caller ended the reply")) } else { Ok(()) }
        };
        may_go_on()?;
        let started_secs = now();
        let limit = self.settings.max_tokens.min(loaded.context.saturating_sub(self.prompt.len()));
        let stop_ids = if self.settings.ignore_eos { &[] } else { loaded.tokenizer.stop_ids() };
        let mut transcript = Transcript {
            decoder: loaded.tokenizer.stream(true),
            stop_text: StopText::new(self.settings.stops.clone()),
            stop_ids,
            limit,
            text: String::new(),
            tokens: Vec::new(),
        };

        let cached = session.begin(backend, &self.prompt, true).await?;
        backend.start_reply(&self.settings.sampler, &self.prompt)?;
        let mut rest = self.prompt.get(cached..).unwrap_or_default().chunks(backend.max_rows().max(1)).peekable();
        while let Some(chunk) = rest.next() {
            session.prefill(backend, chunk, rest.peek().is_none())?;
            (loaded.environment.yield_now)().await;
            may_go_on()?;
        }

        let ahead = loaded.submits_ahead();
        let mut submitted = 1_u32;
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let mut first_secs = None;
        let finish_reason = loop {
            if session.open() < ahead && submitted < limit {
                let count = backend.decode_chain().max(1).min(limit - submitted);
                session.decode(backend, count, submitted)?;
                submitted += count;
                continue;
            }
            let ids = session.collect(backend).await?;
            first_secs.get_or_insert_with(now);
            if loaded.inline {
                (loaded.environment.yield_now)().await;
            }
            may_go_on()?;
            let (piece, end) = transcript.take(&ids)?;
            sink(&piece);
            if let Some(reason) = end {
                break reason;
            }
        };

        let first_secs = first_secs.unwrap_or(started_secs);
        let timings = Timings::new(self.asked_secs, started_secs, first_secs, now(), transcript.tokens.len());
        let usage = Usage {
            prompt_tokens: self.prompt.len(),
            cached_tokens: cached,
            completion_tokens: transcript.tokens.len(),
        };
        loaded.totals.add(&usage);
        Ok(GenerationResult {
            text: transcript.text,
            tokens: transcript.tokens,
            finish_reason,
            usage,
            timings,
            seed: self.settings.sampler.seed,
        })
    }
}
