//! Logits to an id, in the order that [`SamplerSettings`] and [`Extra`] document. The GPU's kernel does the same for the
//! former.
//!
//! Every filter is a threshold, so equals stay or go together and nothing depends on the order of a sort:
//! `top_k` keeps what is at least the k-th largest logit; `top_p` keeps what is at least the probability at which the
//! sum of the largest reaches `top_p`; `min_p` keeps what is at least `min_p` times the largest probability. The draw
//! is the inverse of the cumulative distribution in the order of the ids.

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

    /// The id chosen from `logits (vocab)` as the generated token number `index` of the reply; it counts as generated from
    /// then on.
    ///
    /// Fails with `BadLogits` where a logit is no finite number.
    pub fn choose(&mut self, logits: &[f32], index: u32) -> Result<u32> {
        if let Some(id) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(Error::new(ErrorKind::BadLogits, format!("the logit of id {id} is {}", logits[id])));
        }
        let changed = self.changes().then(|| self.changed(logits));
        let id = self.pick(changed.as_deref().unwrap_or(logits), index)?;
        self.history.push(id);
        Ok(id)
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
            return first.map(|id| id as u32).ok_or_else(|| Error::new(ErrorKind::BadLogits, "there are no logits"));
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
mod tests {
    use super::super::dry::Dry;
    use super::*;

    const LOGITS: [f32; 8] = [1.0, 3.0, -2.0, 3.0, 0.5, 2.5, -1.0, 2.0];

    /// One draw of a reply without a prompt.
    fn choose(logits: &[f32], settings: &SamplerSettings, extra: &Extra, index: u32) -> Result<u32> {
        Chooser::new(logits.len(), &[], settings.clone(), extra.clone())?.choose(logits, index)
    }

    fn settings() -> SamplerSettings {
        SamplerSettings { temperature: 0.8, ..SamplerSettings::default() }
    }

    /// Probabilities by the definition of each filter, written without thresholds or sorting tricks.
    fn expected(logits: &[f32], settings: &SamplerSettings, extra: &Extra) -> Vec<f64> {
        let mut weights: Vec<f64> = logits.iter().map(|l| f64::from(*l / settings.temperature).exp()).collect();
        let normalise = |weights: &mut Vec<f64>| {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        };
        let larger = |weights: &[f64], than: f64| weights.iter().filter(|weight| **weight > than).count();
        let normal: Vec<f64> = logits.iter().map(|logit| f64::from(*logit)).collect();
        let mean = normal.iter().sum::<f64>() / normal.len() as f64;
        let deviation = (normal.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / normal.len() as f64).sqrt();
        let largest = normal.iter().copied().fold(f64::MIN, f64::max);
        let before = weights.clone();
        if settings.top_k > 0 {
            for weight in &mut weights {
                if larger(&before, *weight) >= settings.top_k as usize {
                    *weight = 0.0;
                }
            }
        }
        if extra.top_n_sigma > 0.0 {
            for (weight, logit) in weights.iter_mut().zip(&normal) {
                if (largest - logit) / deviation > f64::from(extra.top_n_sigma) {
                    *weight = 0.0;
                }
            }
        }
        normalise(&mut weights);
        if extra.typical_p < 1.0 {
            let entropy: f64 = weights.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
            let far = |p: f64| (-p.ln() - entropy).abs();
            let before = weights.clone();
            for weight in &mut weights {
                let nearer: f64 = before.iter().filter(|p| **p > 0.0 && far(**p) < far(*weight) - 1e-9).sum();
                if nearer >= f64::from(extra.typical_p) {
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
        let Some(xtc) = extra.xtc else { return weights };
        let likely = |p: f64| p >= f64::from(xtc.threshold);
        let kept = weights.iter().copied().filter(|p| likely(*p)).fold(1.0, f64::min);
        let mut without: Vec<f64> = weights.iter().map(|p| if likely(*p) && *p > kept { 0.0 } else { *p }).collect();
        normalise(&mut without);
        let share = f64::from(xtc.probability);
        weights.iter().zip(without).map(|(with, without)| with * (1.0 - share) + without * share).collect()
    }

    #[test]
    fn draws_follow_the_distribution_of_every_filter() {
        let none = Extra::default;
        let base = [
            ("temperature", settings()),
            ("hot", SamplerSettings { temperature: 3.0, ..settings() }),
            ("top_k with equals at the threshold", SamplerSettings { top_k: 1, ..settings() }),
            ("top_k", SamplerSettings { top_k: 3, ..settings() }),
            ("top_p", SamplerSettings { top_p: 0.7, ..settings() }),
            ("top_p of nothing", SamplerSettings { top_p: 0.0, ..settings() }),
            ("min_p", SamplerSettings { min_p: 0.2, ..settings() }),
            ("all", SamplerSettings { top_k: 5, top_p: 0.95, min_p: 0.1, ..settings() }),
        ];
        let all = SamplerSettings { top_k: 6, top_p: 0.95, min_p: 0.05, ..settings() };
        let xtc = |probability, threshold| Some(Xtc { probability, threshold });
        let further = [
            ("top_n_sigma", settings(), Extra { top_n_sigma: 0.7, ..none() }),
            ("typical", settings(), Extra { typical_p: 0.5, ..none() }),
            ("typical, nearly all", settings(), Extra { typical_p: 0.97, ..none() }),
            ("xtc, always", settings(), Extra { xtc: xtc(1.0, 0.1), ..none() }),
            ("xtc, sometimes", settings(), Extra { xtc: xtc(0.3, 0.2), ..none() }),
            ("xtc with one choice", settings(), Extra { xtc: xtc(1.0, 0.9), ..none() }),
            ("everything", all, Extra { top_n_sigma: 1.5, typical_p: 0.9, xtc: xtc(0.5, 0.15), ..none() }),
        ];
        let cases = base.map(|(name, settings)| (name, settings, none())).into_iter().chain(further);
        const DRAWS: u32 = 40_000;
        let mut failures = vec![];
        for (name, settings, extra) in cases {
            let expected = expected(&LOGITS, &settings, &extra);
            let mut counts = [0u32; LOGITS.len()];
            for draw in 0..DRAWS {
                // Seeds and indices both vary, since both feed the randomness.
                let settings = SamplerSettings { seed: draw / 16, ..settings.clone() };
                counts[choose(&LOGITS, &settings, &extra, draw % 16).unwrap() as usize] += 1;
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
        assert_eq!(choose(&LOGITS, &SamplerSettings::default(), &Extra::default(), 0).unwrap(), 1);
    }

    #[test]
    fn penalties_come_before_all_else() {
        let settings = SamplerSettings {
            repetition_penalty: 2.0,
            frequency_penalty: 0.25,
            presence_penalty: 0.125,
            ..SamplerSettings::default()
        };
        let mut chooser = Chooser::new(LOGITS.len(), &[1, 2], settings, Extra::default()).unwrap();
        chooser.history.push(3);
        chooser.history.push(3);
        let changed = chooser.changed(&LOGITS);
        assert_eq!(&changed[..4], &[1.0, 1.5, -4.0, 1.5 - 0.5 - 0.125]);
        assert_eq!(&changed[4..], &LOGITS[4..]);
        assert_eq!(chooser.choose(&LOGITS, 0).unwrap(), 5);
    }

    #[test]
    fn a_bias_comes_first_and_its_ids_must_be_in_the_vocabulary() {
        let extra = Extra { logit_bias: vec![(6, 100.0), (1, -100.0)], ..Extra::default() };
        let greedy = SamplerSettings { repetition_penalty: 2.0, ..SamplerSettings::default() };
        let mut chooser = Chooser::new(LOGITS.len(), &[6], greedy.clone(), extra.clone()).unwrap();
        assert_eq!((chooser.changed(&LOGITS)[6], chooser.changed(&LOGITS)[1]), (49.5, -97.0));
        assert_eq!(chooser.choose(&LOGITS, 0).unwrap(), 6);
        let error = Chooser::new(3, &[], greedy, extra).unwrap_err();
        assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "logitBias"));
    }

    #[test]
    fn dry_breaks_a_loop() {
        let dry = Dry { multiplier: 2.0, base: 2.0, allowed: 1, window: 100, breakers: Default::default() };
        let extra = Extra { dry: Some(dry), ..Extra::default() };
        let mut chooser = Chooser::new(LOGITS.len(), &[1, 3, 5, 1], SamplerSettings::default(), extra).unwrap();
        // After 1 came 3, which is as likely as 1 but is penalised; of the equals the lower id remains.
        let mut ids = vec![];
        for index in 0..4 {
            ids.push(chooser.choose(&LOGITS, index).unwrap());
        }
        assert_ne!(ids, [1, 1, 1, 1], "greedy would loop");
    }

    /// The mean surprise of what is drawn comes near the target, from above and from below.
    #[test]
    fn mirostat_keeps_the_surprise_near_the_target() {
        let logits: Vec<f32> = (0..256).map(|i| 6.0 - 0.05 * i as f32).collect();
        let whole: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        for tau in [2.0_f32, 3.0, 4.0] {
            let extra = Extra { mirostat: Some(Mirostat { tau, eta: 0.1 }), ..Extra::default() };
            let warm = SamplerSettings { temperature: 1.0, seed: 9, ..SamplerSettings::default() };
            let mut chooser = Chooser::new(logits.len(), &[], warm, extra).unwrap();
            let mut sum = 0.0;
            for index in 0..2000 {
                let id = chooser.choose(&logits, index).unwrap();
                sum += f64::from(chooser.surprise);
                assert!((id as usize) < logits.len());
            }
            // The bound settles where the surprise among what it leaves is the target on average.
            let bound = sum / 2000.0;
            let kept: Vec<f64> =
                logits.iter().map(|logit| f64::from(*logit).exp() / whole).filter(|p| -p.log2() <= bound).collect();
            let left: f64 = kept.iter().sum();
            let surprise: f64 = kept.iter().map(|p| -(p / left) * (p / left).log2()).sum();
            assert!((surprise - f64::from(tau)).abs() < 0.15, "{tau}: {surprise}");
        }
    }

    #[test]
    fn the_same_seed_and_index_give_the_same_id_and_others_do_not() {
        let ids = |seed| -> Vec<u32> {
            let settings = SamplerSettings { seed, ..settings() };
            (0..32).map(|index| choose(&LOGITS, &settings, &Extra::default(), index).unwrap()).collect()
        };
        assert_eq!(ids(5), ids(5));
        assert_ne!(ids(5), ids(6));
    }

    #[test]
    fn tiny_temperatures_are_greedy_and_do_not_overflow() {
        let settings = SamplerSettings { temperature: 1e-38, ..settings() };
        let logits = [-1e30, 2e30, 1e30];
        let chosen = |index| choose(&logits, &settings, &Extra::default(), index).unwrap();
        assert!((0..100).all(|index| chosen(index) == 1));
    }

    #[test]
    fn logits_that_are_not_numbers_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let logits = [0.0, bad];
            let error = choose(&logits, &settings(), &Extra::default(), 0).unwrap_err();
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
