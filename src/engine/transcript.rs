//! What is told of a reply under way: ids become text, reasoning and calls, up to the end of the reply.

use super::chosen::TokenLogprob;
use super::output::Output;
use super::result::{FinishReason, Piece};
use super::stop::StopText;
use crate::error::Result;
use crate::tokenizer::StreamDecoder;

/// The ids of a reply turned into text, up to its end.
pub(super) struct Transcript<'a> {
    pub(super) decoder: StreamDecoder,
    pub(super) output: Output,
    pub(super) stop_text: StopText,
    pub(super) stop_ids: &'a [u32],
    pub(super) limit: usize,
    pub(super) text: String,
    pub(super) tokens: Vec<u32>,
}

impl Transcript<'_> {
    /// Takes ids until the reply ends; those that follow are not part of it. With `last` it ends with them.
    fn take(&mut self, ids: &[u32], last: bool) -> Result<(Piece, Option<FinishReason>)> {
        let mut piece = Piece::default();
        let mut end = None;
        for id in ids {
            piece.tokens.push(*id);
            if self.stop_ids.contains(id) {
                end = Some(FinishReason::Stop);
            } else {
                let text = self.stop_text.push(&self.decoder.push(*id)?);
                self.output.push(&text, &mut piece);
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
        if last && (end.is_none() || end == Some(FinishReason::Length) && piece.tokens.len() == ids.len()) {
            end = Some(FinishReason::Stop);
        }
        if end.is_some() {
            let mut rest = self.stop_text.push(&self.decoder.finish()?);
            if self.stop_text.found() {
                end = Some(FinishReason::Stop);
            } else {
                rest.push_str(&self.stop_text.finish());
            }
            self.output.push(&rest, &mut piece);
            self.output.finish(&mut piece);
            if end == Some(FinishReason::Stop) && !self.output.calls.is_empty() {
                end = Some(FinishReason::ToolCalls);
            }
        }
        self.text.push_str(&piece.text);
        self.tokens.extend_from_slice(&piece.tokens);
        Ok((piece, end))
    }
}

/// A reply under way.
pub(super) struct Telling<'a> {
    pub(super) transcript: Transcript<'a>,
    pub(super) choice: u32,
    pub(super) logprobs: Vec<TokenLogprob>,
    pub(super) now: &'a dyn Fn() -> f64,
    pub(super) first_secs: Option<f64>,
}

impl Telling<'_> {
    /// Tells what came; with `last` the reply ends there. Gives the reason if it has ended.
    pub(super) fn tell(
        &mut self,
        ids: &[u32],
        logprob: Option<TokenLogprob>,
        last: bool,
        sink: &mut dyn FnMut(&Piece),
    ) -> Result<Option<FinishReason>> {
        let (mut piece, end) = self.transcript.take(ids, last)?;
        piece.choice = self.choice;
        self.logprobs.extend(logprob.clone());
        piece.logprobs = logprob.into_iter().collect();
        sink(&piece);
        for call in self.transcript.output.tell_calls() {
            sink(&Piece { choice: self.choice, ..call });
        }
        Ok(end)
    }

    /// Notes that an id is there.
    pub(super) fn came(&mut self) {
        self.first_secs.get_or_insert_with(self.now);
    }
}
