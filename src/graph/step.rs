//! What one run of a graph is given: rows of tokens, where their keys and values live, and how to choose the next id.

use super::{Graph, StateSlots};
use crate::error::{Error, ErrorKind, Result};

/// Positions that one page of keys and values holds.
pub const PAGE_TOKENS: usize = 32;

/// One row of the activations: a token at its place in its sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The token's id.
    pub token: u32,
    /// Its position, from 0.
    pub position: u32,
    /// Index into [`Step::pages`].
    pub sequence: u32,
    /// Which of two texts it belongs to, where the model tells them apart; else 0.
    pub segment: u32,
}

/// One run of the graph over some rows. The rows of a sequence come in the order of their positions; keys and values
/// of earlier positions are in its pages already, and what else a model remembers is in its slot. Where rows see later
/// ones, a step has all rows of its sequences.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// What is computed.
    pub rows: &'a [Row],
    /// For each sequence its pages: position `p` lives in `pages[sequence][p / PAGE_TOKENS]` at `p % PAGE_TOKENS`.
    pub pages: &'a [Vec<u32>],
    /// For each sequence its slots; nothing looks at them where the graph keeps no state.
    pub states: &'a [StateSlots],
    /// Indices of the rows whose logits (or hidden states, or scores) are wanted.
    pub outputs: &'a [u32],
}

impl Step<'_> {
    /// Fails with `InvalidArgument` unless the step has between one and `max_rows` rows, ids, positions and segments that
    /// `graph` has embeddings of, positions that ascend within a sequence and lie in its pages, pages below `n_pages`, and
    /// outputs among its rows. Every backend asks before it computes.
    pub fn check(&self, graph: &Graph, n_pages: usize, max_rows: usize) -> Result<()> {
        let (vocab, positions, segments) = (graph.vocab(), graph.positions(), graph.segments());
        let invalid = |problem: String| Err(Error::new(ErrorKind::InvalidArgument, problem).at("step"));
        if self.rows.is_empty() || self.rows.len() > max_rows {
            return invalid(format!("{} rows, where 1 to {max_rows} are possible", self.rows.len()));
        }
        let mut last = vec![None; self.pages.len()];
        for Row { token, position, sequence, segment } in self.rows.iter().copied() {
            if token as usize >= vocab {
                return invalid(format!("the id {token} is not below {vocab}"));
            }
            if segment as usize >= segments {
                return invalid(format!("segment {segment} of {segments}"));
            }
            if let Some(most) = positions.filter(|most| position as usize >= *most) {
                return invalid(format!("position {position} of {most}"));
            }
            let place = self.pages.get(sequence as usize).zip(last.get_mut(sequence as usize));
            let Some((pages, last)) = place else {
                return invalid(format!("sequence {sequence} of {}", self.pages.len()));
            };
            if last.is_some_and(|last| last >= position) {
                return invalid(format!("position {position} of sequence {sequence} does not ascend"));
            }
            *last = Some(position);
            if pages.len() <= position as usize / PAGE_TOKENS {
                return invalid(format!("position {position} is past the {} pages of its sequence", pages.len()));
            }
        }
        if let Some(page) = self.pages.iter().flatten().find(|page| **page as usize >= n_pages) {
            return invalid(format!("page {page} of {n_pages}"));
        }
        if let Some(output) = self.outputs.iter().find(|output| **output as usize >= self.rows.len()) {
            return invalid(format!("output {output} of {} rows", self.rows.len()));
        }
        Ok(())
    }
}

/// How the next id is chosen from logits; the documented order is the order of the fields.
///
/// Penalties come first. Then, with a temperature of 0, the largest logit wins, the lower id among equals. Otherwise:
/// temperature, top-k, top-p, min-p, then a draw whose randomness depends only on `seed` and on the index of the
/// generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerSettings {
    /// Divides positive and multiplies negative logits of ids in the prompt or the output (CTRL, arXiv 1909.05858); 1 = off.
    pub repetition_penalty: f32,
    /// Subtracted once for each time the id was generated; 0 = off.
    pub frequency_penalty: f32,
    /// Subtracted once if the id was generated at all; 0 = off.
    pub presence_penalty: f32,
    /// Logits are divided by it; 0 = greedy.
    pub temperature: f32,
    /// Only the `top_k` largest (and their equals); 0 = off.
    pub top_k: u32,
    /// Only the smallest set of the largest whose probabilities reach `top_p` (Holtzman et al., arXiv 1904.09751); 1 = off.
    pub top_p: f32,
    /// Only ids at least `min_p` times as likely as the likeliest (arXiv 2407.01082); 0 = off.
    pub min_p: f32,
    /// Where the randomness starts.
    pub seed: u32,
}

impl Default for SamplerSettings {
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
        }
    }
}

impl SamplerSettings {
    /// The same without penalties.
    #[must_use]
    pub fn unpenalised(&self) -> Self {
        let Self { repetition_penalty, frequency_penalty, presence_penalty, .. } = Self::default();
        Self { repetition_penalty, frequency_penalty, presence_penalty, ..self.clone() }
    }

    /// Whether any penalty is on.
    pub fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }
}
