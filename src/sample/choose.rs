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
use crate::graph::{Change, SamplerSettings};

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
    pub(super) settings: SamplerSettings,
    pub(super) extra: Extra,
    history: History,
    /// Mirostat's bound on the surprise of an id, in bits.
    pub(super) surprise: f32,
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
        let changes = self.changes();
        let changed = (!changes.is_empty()).then(|| changed(logits, &changes));
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

    /// Whether ids are chosen by filters that backends do not have.
    pub fn filters(&self) -> bool {
        let Extra { top_n_sigma, typical_p, xtc, mirostat, .. } = &self.extra;
        let any = *top_n_sigma != 0.0 || *typical_p < 1.0 || xtc.is_some() || mirostat.is_some();
        any && self.settings.temperature > 0.0
    }

    /// What bias, penalties and DRY do to logits before they are compared; by id, each once.
    pub fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, bias) in &self.extra.logit_bias {
            change_of(&mut changes, *id).bias += bias;
        }
        let settings = &self.settings;
        for (id, count) in self.history.counts().filter(|_| settings.penalises()) {
            let change = change_of(&mut changes, id);
            change.divisor = settings.repetition_penalty;
            let presence = if count.generated > 0 { settings.presence_penalty } else { 0.0 };
            change.less = settings.frequency_penalty * count.generated as f32 + presence;
        }
        for (id, penalty) in self.extra.dry.iter().flat_map(|dry| dry.penalties(self.history.ids())) {
            change_of(&mut changes, id).less += penalty;
        }
        changes
    }

    fn pick(&mut self, logits: &[f32], index: u32) -> Result<u32> {
        let settings = &self.settings;
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if settings.temperature == 0.0 {
            let first = logits.iter().position(|logit| *logit == max);
            return first.map(|id| id as u32).ok_or_else(none);
        }
        let least = kth_largest(logits, settings.top_k).max(near_the_top(logits, max, self.extra.top_n_sigma));
        let kept = (0u32..).zip(logits.iter().copied()).filter(|(_, logit)| *logit >= least);
        let kept = self.weights(kept, max);
        let (id, surprise) = self.draw_of(kept, index)?;
        self.surprise = surprise;
        Ok(id)
    }

    /// In proportion to the probabilities; the likeliest weighs 1.
    pub(super) fn weights(&self, logits: impl Iterator<Item = (u32, f32)>, max: f32) -> Vec<(u32, f32)> {
        logits.map(|(id, logit)| (id, self.weight(logit, max))).collect()
    }

    pub(super) fn weight(&self, logit: f32, max: f32) -> f32 {
        ((logit - max) / self.settings.temperature).exp()
    }

    /// Draws among those that passed top-k and top-n-sigma, with their weights. Gives the id and mirostat's next bound.
    pub(super) fn draw_of(&self, mut kept: Vec<(u32, f32)>, index: u32) -> Result<(u32, f32)> {
        typical(&mut kept, self.extra.typical_p);
        let least = nucleus(&kept, self.settings.top_p).max(self.settings.min_p);
        kept.retain(|(_, weight)| *weight >= least);
        self.draw_last(kept, None, index)
    }

    /// Draws among those that passed the filters before XTC and mirostat, of a `whole` of weights where it is not theirs.
    pub(super) fn draw_last(&self, mut kept: Vec<(u32, f32)>, whole: Option<f64>, index: u32) -> Result<(u32, f32)> {
        let settings = &self.settings;
        if let Some(xtc) = self.extra.xtc.filter(|xtc| uniform(settings.seed ^ BESIDE, index) < xtc.probability) {
            exclude_top(&mut kept, xtc);
        }
        let u = uniform(settings.seed, index);
        match self.extra.mirostat {
            None => Ok((draw(&kept, u)?, self.surprise)),
            Some(mirostat) => surprising(kept, whole, mirostat, self.surprise, u),
        }
    }
}

pub(super) fn none() -> Error {
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

/// The change of an id, in a list by id.
fn change_of(changes: &mut Vec<Change>, id: u32) -> &mut Change {
    let at = changes.partition_point(|change| change.id < id);
    if changes.get(at).is_none_or(|change| change.id != id) {
        changes.insert(at, Change::none(id));
    }
    &mut changes[at]
}

/// Logits after changes.
fn changed(logits: &[f32], changes: &[Change]) -> Vec<f32> {
    let mut logits = logits.to_vec();
    for change in changes {
        if let Some(logit) = logits.get_mut(change.id as usize) {
            *logit = change.of(*logit);
        }
    }
    logits
}

/// The `k`-th largest of `logits`, or less than all of them when `k` is 0 or more than there are.
pub(super) fn kth_largest(logits: &[f32], k: u32) -> f32 {
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
    let whole = sum_of(kept);
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
    let whole = sum_of(kept);
    // All that weigh less than this weigh less than `1 - top_p` of the whole together: few are left to sort.
    let too_light = (1.0 - f64::from(top_p)) * whole / kept.len() as f64;
    let order: Vec<f32> =
        kept.iter().map(|(_, weight)| *weight).filter(|weight| f64::from(*weight) >= too_light).collect();
    let order = descending(order);
    reaching(&order, f64::from(top_p) * whole).or(order.last().copied()).unwrap_or(0.0)
}

pub(super) fn descending(mut order: Vec<f32>) -> Vec<f32> {
    order.sort_unstable_by(|a, b| b.total_cmp(a));
    order
}

/// The weight at which the sum of weights reaches `goal`, if it does.
pub(super) fn reaching(order: &[f32], goal: f64) -> Option<f32> {
    let mut sum = 0.0;
    order.iter().copied().find(|weight| {
        sum += f64::from(*weight);
        sum >= goal
    })
}

pub(super) fn sum_of(kept: &[(u32, f32)]) -> f64 {
    kept.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

/// Of those whose probability is at least the threshold, keeps only the least likely.
fn exclude_top(kept: &mut Vec<(u32, f32)>, xtc: Xtc) {
    let whole = sum_of(kept);
    let likely = |weight: f32| f64::from(weight) >= f64::from(xtc.threshold) * whole;
    let least = kept.iter().map(|(_, weight)| *weight).filter(|weight| likely(*weight)).fold(f32::INFINITY, f32::min);
    kept.retain(|(_, weight)| *weight <= least || !likely(*weight));
}

/// Draws among those whose surprise is at most the bound (the likeliest always). Gives the id and where the bound moves.
fn surprising(
    mut kept: Vec<(u32, f32)>,
    whole: Option<f64>,
    mirostat: Mirostat,
    bound: f32,
    u: f32,
) -> Result<(u32, f32)> {
    let whole = whole.unwrap_or_else(|| sum_of(&kept));
    let bits = |weight: f32| -(f64::from(weight) / whole).log2();
    let likeliest = kept.iter().map(|(_, weight)| *weight).fold(0.0, f32::max);
    kept.retain(|(_, weight)| *weight >= likeliest || bits(*weight) <= f64::from(bound));
    let id = draw(&kept, u)?;
    // The surprise among those that were left, as the paper's algorithm 1 of version 2 renormalises them.
    let weight = kept.iter().find(|(other, _)| *other == id).map_or(1.0, |(_, weight)| f64::from(*weight));
    let surprise = -(weight / sum_of(&kept)).log2() as f32;
    Ok((id, bound - mirostat.eta * (surprise - mirostat.tau)))
}

/// The first id at which the cumulative sum of weights passes `u` of the whole.
fn draw(kept: &[(u32, f32)], u: f32) -> Result<u32> {
    let whole = sum_of(kept);
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
