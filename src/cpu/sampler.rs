//! Logits to an id, in the order that [`SamplerSettings`] documents. The GPU's kernel does the same.
//!
//! Every filter is a threshold, so equals stay or go together and nothing depends on the order of a sort:
//! `top_k` keeps what is at least the k-th largest logit; `top_p` keeps what is at least the probability at which the
//! sum of the largest reaches `top_p`; `min_p` keeps what is at least `min_p` times the largest probability. The draw
//! is the inverse of the cumulative distribution in the order of the ids.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Result};
use crate::graph::SamplerSettings;

/// Which ids the prompt has, and how often each was generated: what penalties look at.
#[derive(Clone, Debug)]
pub struct History {
    in_prompt: Vec<bool>,
    generated: Vec<u32>,
}

impl History {
    /// After a prompt. Fails with `InvalidArgument` for an id that is not below `vocab`.
    pub fn new(vocab: usize, prompt: &[u32]) -> Result<Self> {
        let mut in_prompt = vec![false; vocab];
        for id in prompt {
            *in_prompt.get_mut(*id as usize).ok_or_else(|| {
                Error::new(ErrorKind::InvalidArgument, format!("the id {id} is not below {vocab}")).at("prompt")
            })? = true;
        }
        Ok(Self { in_prompt, generated: vec![0; vocab] })
    }

    /// Counts a generated id.
    pub fn push(&mut self, id: u32) {
        if let Some(count) = self.generated.get_mut(id as usize) {
            *count = count.saturating_add(1);
        }
    }
}

/// A number in `[0, 1)` with 24 bits that depends on `seed` and `index` alone: PCG-RXS-M-XS-32 (O'Neill, "PCG", 2014)
/// as a hash, twice, of `seed + index * 0x9E3779B9`.
pub fn uniform(seed: u32, index: u32) -> f32 {
    let hash = |input: u32| {
        let state = input.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
        (word >> 22) ^ word
    };
    let bits = hash(hash(seed.wrapping_add(index.wrapping_mul(0x9E37_79B9)))) >> 8;
    bits as f32 / (1 << 24) as f32
}

/// The id chosen from `logits (vocab)` as the generated token number `index` of a reply.
///
/// Fails with `BadLogits` where a logit is no finite number.
pub fn choose(logits: &[f32], history: &History, settings: &SamplerSettings, index: u32) -> Result<u32> {
    if let Some(id) = logits.iter().position(|logit| !logit.is_finite()) {
        return Err(Error::new(ErrorKind::BadLogits, format!("the logit of id {id} is {}", logits[id])));
    }
    let logits = penalised(logits, history, settings);
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if settings.temperature == 0.0 {
        let first = logits.iter().position(|logit| *logit == max);
        return first.map(|id| id as u32).ok_or_else(|| Error::new(ErrorKind::BadLogits, "there are no logits"));
    }
    let least = kth_largest(&logits, settings.top_k);
    // In proportion to the probabilities; the likeliest weighs 1.
    let weight = |logit: f32| ((logit - max) / settings.temperature).exp();
    let mut kept: Vec<(u32, f32)> = (0u32..)
        .zip(logits.iter())
        .filter(|(_, logit)| **logit >= least)
        .map(|(id, logit)| (id, weight(*logit)))
        .collect();
    let least = nucleus(&kept, settings.top_p).max(settings.min_p);
    kept.retain(|(_, weight)| *weight >= least);
    draw(&kept, uniform(settings.seed, index))
}

/// Repetition, frequency and presence penalties.
fn penalised<'a>(logits: &'a [f32], history: &History, settings: &SamplerSettings) -> Cow<'a, [f32]> {
    if !settings.penalises() {
        return Cow::Borrowed(logits);
    }
    let penalise = |(logit, (in_prompt, count)): (&f32, (&bool, &u32))| {
        let repeated = match logit {
            _ if !in_prompt && *count == 0 => *logit,
            logit if *logit > 0.0 => logit / settings.repetition_penalty,
            logit => logit * settings.repetition_penalty,
        };
        let presence = if *count > 0 { settings.presence_penalty } else { 0.0 };
        repeated - settings.frequency_penalty * *count as f32 - presence
    };
    logits.iter().zip(history.in_prompt.iter().zip(&history.generated)).map(penalise).collect()
}

/// The `k`-th largest of `logits`, or less than all of them when `k` is 0 or more than there are.
fn kth_largest(logits: &[f32], k: u32) -> f32 {
    match (k as usize).checked_sub(1) {
        Some(k) if k < logits.len() => {
            let mut order = logits.to_vec();
            *order.select_nth_unstable_by(k, |a, b| b.total_cmp(a)).1
        }
        _ => f32::NEG_INFINITY,
    }
}

/// The least weight of the smallest set of the largest whose sum reaches `top_p` of the whole.
fn nucleus(kept: &[(u32, f32)], top_p: f32) -> f32 {
    if top_p >= 1.0 {
        return 0.0;
    }
    let mut order: Vec<f32> = kept.iter().map(|(_, weight)| *weight).collect();
    order.sort_unstable_by(|a, b| b.total_cmp(a));
    let enough = f64::from(top_p) * order.iter().copied().map(f64::from).sum::<f64>();
    let mut sum = 0.0;
    for weight in order {
        sum += f64::from(weight);
        if sum >= enough {
            return weight;
        }
    }
    0.0
}

/// The first id at which the cumulative sum of weights passes `u` of the whole.
fn draw(kept: &[(u32, f32)], u: f32) -> Result<u32> {
    let whole: f64 = kept.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let mut sum = 0.0;
    for (id, weight) in kept {
        sum += f64::from(*weight);
        if sum > f64::from(u) * whole {
            return Ok(*id);
        }
    }
    Err(Error::new(ErrorKind::BadLogits, "no id has a probability"))
}
