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
mod tests {
    use super::*;

    const LOGITS: [f32; 8] = [1.0, 3.0, -2.0, 3.0, 0.5, 2.5, -1.0, 2.0];

    fn none() -> History {
        History::new(LOGITS.len(), &[]).unwrap()
    }

    fn settings() -> SamplerSettings {
        SamplerSettings { temperature: 0.8, ..SamplerSettings::default() }
    }

    /// Probabilities by the definition of each filter, written without thresholds or sorting tricks.
    fn expected(logits: &[f32], settings: &SamplerSettings) -> Vec<f64> {
        let mut weights: Vec<f64> = logits.iter().map(|l| f64::from(*l / settings.temperature).exp()).collect();
        let normalise = |weights: &mut Vec<f64>| {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        };
        let larger = |weights: &[f64], than: f64| weights.iter().filter(|weight| **weight > than).count();
        let before = weights.clone();
        if settings.top_k > 0 {
            for weight in &mut weights {
                if larger(&before, *weight) >= settings.top_k as usize {
                    *weight = 0.0;
                }
            }
        }
        normalise(&mut weights);
        let before = weights.clone();
        for weight in &mut weights {
            let mass: f64 = before.iter().filter(|other| **other > *weight).sum();
            if mass >= f64::from(settings.top_p) && mass > 0.0 {
                *weight = 0.0;
            }
        }
        normalise(&mut weights);
        let max = weights.iter().copied().fold(0.0, f64::max);
        for weight in &mut weights {
            if *weight < f64::from(settings.min_p) * max {
                *weight = 0.0;
            }
        }
        normalise(&mut weights);
        weights
    }

    #[test]
    fn draws_follow_the_distribution_of_every_filter() {
        let cases = [
            ("temperature", settings()),
            ("hot", SamplerSettings { temperature: 3.0, ..settings() }),
            ("top_k with equals at the threshold", SamplerSettings { top_k: 1, ..settings() }),
            ("top_k", SamplerSettings { top_k: 3, ..settings() }),
            ("top_p", SamplerSettings { top_p: 0.7, ..settings() }),
            ("top_p of nothing", SamplerSettings { top_p: 0.0, ..settings() }),
            ("min_p", SamplerSettings { min_p: 0.2, ..settings() }),
            ("all", SamplerSettings { top_k: 5, top_p: 0.95, min_p: 0.1, ..settings() }),
        ];
        const DRAWS: u32 = 40_000;
        let mut failures = vec![];
        for (name, settings) in cases {
            let expected = expected(&LOGITS, &settings);
            let mut counts = [0u32; LOGITS.len()];
            for draw in 0..DRAWS {
                // Seeds and indices both vary, since both feed the randomness.
                let settings = SamplerSettings { seed: draw / 16, ..settings.clone() };
                counts[choose(&LOGITS, &none(), &settings, draw % 16).unwrap() as usize] += 1;
            }
            let mut chi_square = 0.0;
            let mut freedom = 0.0f64;
            for (count, probability) in counts.iter().zip(&expected) {
                let mean = probability * f64::from(DRAWS);
                if mean == 0.0 {
                    assert_eq!(*count, 0, "{name}: an id that was filtered out");
                    continue;
                }
                chi_square += (f64::from(*count) - mean).powi(2) / mean;
                freedom += 1.0;
            }
            // Four standard deviations above the mean of chi-square.
            let bound = (freedom - 1.0) + 4.0 * (2.0 * (freedom - 1.0)).sqrt();
            if chi_square > bound {
                failures.push(format!("{name}: chi-square {chi_square:.2}, bound {bound:.2}, {counts:?}"));
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
    }

    #[test]
    fn greedy_takes_the_lower_id_among_equals() {
        assert_eq!(choose(&LOGITS, &none(), &SamplerSettings::default(), 0).unwrap(), 1);
    }

    #[test]
    fn penalties_come_before_all_else() {
        let mut history = History::new(LOGITS.len(), &[1, 2]).unwrap();
        history.push(3);
        history.push(3);
        let settings = SamplerSettings {
            repetition_penalty: 2.0,
            frequency_penalty: 0.25,
            presence_penalty: 0.125,
            ..SamplerSettings::default()
        };
        let penalised = penalised(&LOGITS, &history, &settings);
        assert_eq!(&penalised[..4], &[1.0, 1.5, -4.0, 1.5 - 0.5 - 0.125]);
        assert_eq!(&penalised[4..], &LOGITS[4..]);
        assert_eq!(choose(&LOGITS, &history, &settings, 0).unwrap(), 5);
    }

    #[test]
    fn the_same_seed_and_index_give_the_same_id_and_others_do_not() {
        let ids = |seed| -> Vec<u32> {
            let settings = SamplerSettings { seed, ..settings() };
            (0..32).map(|index| choose(&LOGITS, &none(), &settings, index).unwrap()).collect()
        };
        assert_eq!(ids(5), ids(5));
        assert_ne!(ids(5), ids(6));
    }

    #[test]
    fn tiny_temperatures_are_greedy_and_do_not_overflow() {
        let settings = SamplerSettings { temperature: 1e-38, ..settings() };
        let logits = [-1e30, 2e30, 1e30];
        let history = History::new(3, &[]).unwrap();
        assert!((0..100).all(|index| choose(&logits, &history, &settings, index).unwrap() == 1));
    }

    #[test]
    fn logits_that_are_not_numbers_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let logits = [0.0, bad];
            let error = choose(&logits, &History::new(2, &[]).unwrap(), &settings(), 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadLogits);
            assert!(error.message().contains("id 1"), "{error}");
        }
    }

    #[test]
    fn uniform_numbers_lie_in_the_unit_interval_and_fill_it() {
        let mut buckets = [0u32; 64];
        for seed in 0..64 {
            for index in 0..1000 {
                let u = uniform(seed, index);
                assert!((0.0..1.0).contains(&u));
                buckets[(u * 64.0) as usize] += 1;
            }
        }
        let chi_square: f64 = buckets.iter().map(|count| (f64::from(*count) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi_square < 63.0 + 4.0 * (2.0f64 * 63.0).sqrt(), "{chi_square}");
        // Fixed numbers, so that the kernel can be held to the same ones.
        assert_eq!(
            [uniform(0, 0), uniform(1, 0), uniform(1, 1)].map(|u| (u * 16_777_216.0) as u32),
            [3_194_371, 15_280_721, 2_625_959]
        );
    }
}
