//! Logits to an id, in the order that [`SamplerSettings`] and [`Extra`] document. The GPU's kernel does the same for the
//! former.
//!
//! Every filter is a threshold, so equals stay or go together and nothing depends on the order of a sort:
//! `top_k` keeps what is at least the k-th largest logit; `top_p` keeps what is at least the probability at which the
//! sum of the largest reaches `top_p`; `min_p` keeps what is at least `min_p` times the largest probability. The draw
//! is the inverse of the cumulative distribution in the order of the ids.

use super::constraint::Mask;
use super::extra::{Extra, Mirostat, Xtc};
use super::history::History;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::SamplerSettings;

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

/// Turned into the seed of draws beside the one of the id, so that the two do not depend on one another.
const BESIDE: u32 = 0x5851_F42D;

/// Chooses the ids of one reply, one after another.
#[derive(Clone, Debug)]
pub struct Chooser {
    settings: SamplerSettings,
    extra: Extra,
    history: History,
    /// Mirostat's bound on the surprise of an id, in bits.
    surprise: f32,
}

impl Chooser {
    /// For a reply to `prompt`. Fails with `InvalidArgument` for an id of the prompt or of the bias that is not below
    /// `vocab`.
    pub fn new(vocab: usize, prompt: &[u32], settings: SamplerSettings, extra: Extra) -> Result<Self> {
        let outside = |id: u32, place: &str| {
            Error::new(ErrorKind::InvalidArgument, format!("the id {id} is not below {vocab}")).at(place.to_owned())
        };
        if let Some(id) = prompt.iter().find(|id| **id as usize >= vocab) {
            return Err(outside(*id, "prompt"));
        }
        if let Some((id, _)) = extra.logit_bias.iter().find(|(id, _)| *id as usize >= vocab) {
            return Err(outside(*id, "logitBias"));
        }
        let surprise = extra.mirostat.map_or(0.0, |mirostat| 2.0 * mirostat.tau);
        let history = History::new(prompt, extra.penalty_window);
        Ok(Self { settings, extra, history, surprise })
    }

    /// Where the randomness starts.
    pub fn set_seed(&mut self, seed: u32) {
        self.settings.seed = seed;
    }

    /// These were chosen before, in this order.
    pub fn go_on_from(&mut self, reply: &[u32]) {
        reply.iter().for_each(|id| self.history.push(*id));
    }

    /// From now on no repetition that DRY looks for goes across this id.
    pub fn break_at(&mut self, id: u32) {
        if let Some(dry) = &mut self.extra.dry {
            dry.breakers.insert(id);
        }
    }

    /// The id chosen from `logits (vocab)` as the generated token number `index` of the reply, of those that `mask` allows;
    /// it counts as generated from then on. Filters look at what is allowed alone.
    ///
    /// Fails with `BadLogits` where a logit is no finite number, or where none is allowed.
    pub fn choose(&mut self, logits: &[f32], mask: Option<&Mask>, index: u32) -> Result<u32> {
        if let Some(id) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(Error::new(ErrorKind::BadLogits, format!("the logit of id {id} is {}", logits[id])));
        }
        let changed = self.changes().then(|| self.changed(logits));
        let logits = changed.as_deref().unwrap_or(logits);
        let id = match mask {
            None => self.pick(logits, index)?,
            Some(mask) => {
                let allowed = mask.ids().map_while(|id| Some((id, *logits.get(id as usize)?)));
                let (ids, logits): (Vec<u32>, Vec<f32>) = allowed.unzip();
                let place = if ids.len() == 1 { 0 } else { self.pick(&logits, index)? };
                *ids.get(place as usize).ok_or_else(none)?
            }
        };
        self.push(id);
        Ok(id)
    }

    /// Counts an id as generated that was not chosen.
    pub fn push(&mut self, id: u32) {
        self.history.push(id);
    }

    /// Whether logits are changed before they are compared.
    fn changes(&self) -> bool {
        self.settings.penalises() || self.extra.dry.is_some() || !self.extra.logit_bias.is_empty()
    }

    /// Bias, penalties, DRY.
    fn changed(&self, logits: &[f32]) -> Vec<f32> {
        let mut logits = logits.to_vec();
        for (id, bias) in &self.extra.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        if self.settings.penalises() {
            for (id, count) in self.history.counts() {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = penalised(*logit, count, &self.settings);
                }
            }
        }
        for (id, penalty) in self.extra.dry.iter().flat_map(|dry| dry.penalties(self.history.ids())) {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit -= penalty;
            }
        }
        logits
    }

    fn pick(&mut self, logits: &[f32], index: u32) -> Result<u32> {
        let settings = &self.settings;
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if settings.temperature == 0.0 {
            let first = logits.iter().position(|logit| *logit == max);
            return first.map(|id| id as u32).ok_or_else(none);
        }
        let least = kth_largest(logits, settings.top_k).max(near_the_top(logits, max, self.extra.top_n_sigma));
        // In proportion to the probabilities; the likeliest weighs 1.
        let weight = |logit: f32| ((logit - max) / settings.temperature).exp();
        let mut kept: Vec<(u32, f32)> = (0u32..)
            .zip(logits.iter())
            .filter(|(_, logit)| **logit >= least)
            .map(|(id, logit)| (id, weight(*logit)))
            .collect();
        typical(&mut kept, self.extra.typical_p);
        let least = nucleus(&kept, settings.top_p).max(settings.min_p);
        kept.retain(|(_, weight)| *weight >= least);
        if let Some(xtc) = self.extra.xtc.filter(|xtc| uniform(settings.seed ^ BESIDE, index) < xtc.probability) {
            exclude_top(&mut kept, xtc);
        }
        let u = uniform(settings.seed, index);
        match self.extra.mirostat {
            None => draw(&kept, u),
            Some(mirostat) => surprising(&mut kept, mirostat, &mut self.surprise, u),
        }
    }
}

fn none() -> Error {
    Error::new(ErrorKind::BadLogits, "there are no logits")
}

/// How often an id occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Whether the prompt has it.
    pub in_prompt: bool,
    /// How often it was generated.
    pub generated: u32,
}

/// Repetition, frequency and presence penalties on the logit of an id that occurred.
fn penalised(logit: f32, count: Count, settings: &SamplerSettings) -> f32 {
    let repeated = if logit > 0.0 { logit / settings.repetition_penalty } else { logit * settings.repetition_penalty };
    let presence = if count.generated > 0 { settings.presence_penalty } else { 0.0 };
    repeated - settings.frequency_penalty * count.generated as f32 - presence
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

/// The logit `n` standard deviations of all logits below the largest, or less than all of them when `n` is 0.
fn near_the_top(logits: &[f32], max: f32, n: f32) -> f32 {
    if n == 0.0 {
        return f32::NEG_INFINITY;
    }
    let count = logits.len().max(1) as f64;
    let mean = logits.iter().map(|logit| f64::from(*logit)).sum::<f64>() / count;
    let variance = logits.iter().map(|logit| (f64::from(*logit) - mean).powi(2)).sum::<f64>() / count;
    (f64::from(max) - f64::from(n) * variance.sqrt()) as f32
}

/// Keeps the smallest set whose surprise is nearest to the expected one and whose probabilities reach `p`.
fn typical(kept: &mut Vec<(u32, f32)>, p: f32) {
    if p >= 1.0 {
        return;
    }
    let whole: f64 = kept.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let surprise = |weight: f32| -(f64::from(weight) / whole).ln();
    let entropy: f64 = kept
        .iter()
        .filter(|(_, weight)| *weight > 0.0)
        .map(|(_, weight)| f64::from(*weight) / whole * surprise(*weight))
        .sum();
    let distance = |weight: f32| (surprise(weight) - entropy).abs();
    let mut order: Vec<f32> = kept.iter().map(|(_, weight)| *weight).collect();
    order.sort_by(|a, b| distance(*a).total_cmp(&distance(*b)));
    let (mut sum, mut farthest) = (0.0, f64::INFINITY);
    for weight in order {
        sum += f64::from(weight);
        if sum >= f64::from(p) * whole {
            farthest = distance(weight);
            break;
        }
    }
    kept.retain(|(_, weight)| distance(*weight) <= farthest);
}

/// The least weight of the smallest set of the largest whose sum reaches `top_p` of the whole.
fn nucleus(kept: &[(u32, f32)], top_p: f32) -> f32 {
    if top_p >= 1.0 {
        return 0.0;
    }
    let whole: f64 = kept.iter().map(|(_, weight)| f64::from(*weight)).sum();
    // All that weigh less than this weigh less than `1 - top_p` of the whole together: few are left to sort.
    let too_light = (1.0 - f64::from(top_p)) * whole / kept.len() as f64;
    let mut order: Vec<f32> =
        kept.iter().map(|(_, weight)| *weight).filter(|weight| f64::from(*weight) >= too_light).collect();
    order.sort_unstable_by(|a, b| b.total_cmp(a));
    let mut sum = 0.0;
    for weight in &order {
        sum += f64::from(*weight);
        if sum >= f64::from(top_p) * whole {
            return *weight;
        }
    }
    order.last().copied().unwrap_or(0.0)
}

/// Of those whose probability is at least the threshold, keeps only the least likely.
fn exclude_top(kept: &mut Vec<(u32, f32)>, xtc: Xtc) {
    let whole: f64 = kept.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let likely = |weight: f32| f64::from(weight) >= f64::from(xtc.threshold) * whole;
    let least = kept.iter().map(|(_, weight)| *weight).filter(|weight| likely(*weight)).fold(f32::INFINITY, f32::min);
    kept.retain(|(_, weight)| *weight <= least || !likely(*weight));
}

/// Draws among those whose surprise is at most the bound (the likeliest always), then moves the bound.
fn surprising(kept: &mut Vec<(u32, f32)>, mirostat: Mirostat, bound: &mut f32, u: f32) -> Result<u32> {
    let whole: f64 = kept.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let bits = |weight: f32| -(f64::from(weight) / whole).log2();
    let likeliest = kept.iter().map(|(_, weight)| *weight).fold(0.0, f32::max);
    kept.retain(|(_, weight)| *weight >= likeliest || bits(*weight) <= f64::from(*bound));
    let id = draw(kept, u)?;
    // The surprise among those that were left, as the paper's algorithm 1 of version 2 renormalises them.
    let left: f64 = kept.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let weight = kept.iter().find(|(other, _)| *other == id).map_or(1.0, |(_, weight)| f64::from(*weight));
    *bound -= mirostat.eta * (-(weight / left).log2() as f32 - mirostat.tau);
    Ok(id)
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

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
