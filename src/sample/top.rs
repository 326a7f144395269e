//! Choosing by the largest logits alone, where it is certain that all logits would lead to the same id.
//!
//! What is not among the largest is known to be no larger than a bound, and by a sum over everything. Filters are
//! thresholds: where the threshold lies above the bound, everything that passes is there, and the draw is the same sum over the
//! same numbers. Sums of a device are rounded otherwise than ours, so thresholds that follow from them are taken at both
//! ends of their error; where an id lies between, nothing is certain.

use super::choose::{Chooser, descending, kth_largest, none, reaching};
use super::constraint::Mask;
use crate::error::Result;
use crate::graph::{Change, Top};

/// Largest relative error of a device's sums: exponentials of 2^-18 and sums of some thousand terms in 24 bits.
const ERROR: f64 = 1e-4;

/// Those whose logits are known, as they are compared, by id; and what is known of all.
struct Known {
    logits: Vec<(u32, f32)>,
    max: f32,
    bound: f32,
    count: f64,
    /// Sum of all weights, the largest being 1: at least and at most.
    whole: [f64; 2],
    /// Standard deviation of all logits, at least and at most.
    deviation: [f64; 2],
}

impl Chooser {
    /// The id that [`Chooser::choose`] would choose, where that can be told; it does not count as generated. `top` is of the
    /// ids that `mask` allows and at the temperature of the settings, and names the ids of `changes` in their order.
    pub fn choose_of(&mut self, top: &Top, changes: &[Change], mask: Option<&Mask>, index: u32) -> Result<Option<u32>> {
        let known = self.known(top, changes, mask);
        let Some(kept) = self.kept(&known) else { return Ok(None) };
        let chosen = match kept {
            Kept::Nothing => return Err(none()),
            Kept::Passed(kept) => self.draw_of(kept, index)?,
            Kept::Filtered(kept, whole) => self.draw_last(kept, whole, index)?,
        };
        self.surprise = chosen.1;
        Ok(Some(chosen.0))
    }

    fn known(&self, top: &Top, changes: &[Change], mask: Option<&Mask>) -> Known {
        let mut logits = top.largest.clone();
        let mut before = Vec::new();
        for (change, logit) in
            changes.iter().zip(&top.named).filter(|(change, _)| mask.is_none_or(|mask| mask.allows(change.id)))
        {
            let after = change.of(*logit);
            let at = logits.partition_point(|(id, _)| *id < change.id);
            match logits.get_mut(at).filter(|(id, _)| *id == change.id) {
                Some(known) => known.1 = after,
                None => logits.insert(at, (change.id, after)),
            }
            before.push((*logit, after));
        }
        let max = logits.iter().map(|(_, logit)| *logit).fold(f32::NEG_INFINITY, f32::max);
        let temperature = f64::from(self.settings.temperature);
        let weight = |logit: f32| ((f64::from(logit) - f64::from(max)) / temperature).exp();
        let told = f64::from(top.sum) * weight(top.max);
        let moved: f64 = before.iter().map(|(before, after)| weight(*after) - weight(*before)).sum();
        let (count, mean) = (f64::from(top.count), f64::from(top.mean));
        let more = |part: &dyn Fn(f64) -> f64| -> f64 {
            before.iter().map(|(before, after)| part(f64::from(*after)) - part(f64::from(*before))).sum()
        };
        let squares = f64::from(top.variance) + mean * mean;
        let new_mean = mean + more(&|logit| logit) / count;
        let variance = squares + more(&|logit| logit * logit) / count - new_mean * new_mean;
        let end = |sign: f64| (variance + sign * ERROR * squares).max(0.0).sqrt();
        Known {
            logits,
            max,
            bound: top.bound,
            count,
            whole: [-1.0, 1.0].map(|sign| told * (1.0 + sign * ERROR) + moved),
            deviation: [end(-1.0), end(1.0)],
        }
    }

    /// What passes the filters, if that is certain.
    fn kept(&self, known: &Known) -> Option<Kept> {
        let Known { logits, max, bound, .. } = known;
        if logits.is_empty() && *bound == f32::NEG_INFINITY {
            return Some(Kept::Nothing);
        }
        if max <= bound {
            return None;
        }
        let all: Vec<f32> = logits.iter().map(|(_, logit)| *logit).collect();
        let top_k = self.settings.top_k;
        let kth = match top_k as usize {
            _ if f64::from(top_k) >= known.count => f32::NEG_INFINITY,
            k if k > all.len() => return None,
            _ => kth_largest(&all, top_k),
        };
        if kth > f32::NEG_INFINITY && kth <= *bound {
            return None;
        }
        let sigma = self.near_the_top(known)?;
        let least = kth.max(sigma);
        let passed = || logits.iter().copied().filter(|(_, logit)| *logit >= least);
        if least > *bound || *bound == f32::NEG_INFINITY {
            return Some(Kept::Passed(self.weights(passed(), *max)));
        }
        // All others take part in what follows, and only their sum is known; of a part of them not even that.
        let [least_whole, _] = known.whole;
        if self.extra.typical_p < 1.0 || sigma > f32::NEG_INFINITY || least_whole.is_nan() || least_whole <= 0.0 {
            return None;
        }
        let weights = self.weights(passed(), *max);
        let edge = self.weight(*bound, *max);
        let order: Vec<f32> = weights.iter().map(|(_, weight)| *weight).filter(|weight| *weight > edge).collect();
        let order = descending(order);
        if self.extra.mirostat.is_some() {
            let [low, high] = known.whole.map(|whole| (whole * (-f64::from(self.surprise)).exp2()) as f32);
            let open = order.iter().any(|weight| *weight >= low * (1.0 - 1e-6) && *weight <= high * (1.0 + 1e-6));
            let kept = || weights.iter().copied().filter(|(_, weight)| *weight > edge).collect();
            let whole = known.whole.iter().sum::<f64>() / 2.0;
            return (!open && low > edge).then(|| Kept::Filtered(kept(), Some(whole)));
        }
        let mut least = self.settings.min_p;
        if self.settings.top_p < 1.0 {
            let [low, high] = known.whole.map(|whole| reaching(&order, f64::from(self.settings.top_p) * whole));
            if low.is_none() || low != high {
                return None;
            }
            least = least.max(low?);
        }
        (least > edge)
            .then(|| Kept::Filtered(weights.into_iter().filter(|(_, weight)| *weight >= least).collect(), None))
    }

    /// The threshold of top-n-sigma, where no id that is known lies within its error.
    fn near_the_top(&self, known: &Known) -> Option<f32> {
        let n = f64::from(self.extra.top_n_sigma);
        if n == 0.0 {
            return Some(f32::NEG_INFINITY);
        }
        let [high, low] = known.deviation.map(|deviation| f64::from(known.max) - n * deviation);
        let between = |logit: f32| (low..=high).contains(&f64::from(logit));
        (!known.logits.iter().any(|(_, logit)| between(*logit) && *logit != known.max)).then_some(low as f32)
    }
}

/// What is left to draw from.
enum Kept {
    /// No id takes part.
    Nothing,
    /// What passed top-k and top-n-sigma.
    Passed(Vec<(u32, f32)>),
    /// What passed everything before XTC and mirostat, of a whole where it is not theirs.
    Filtered(Vec<(u32, f32)>, Option<f64>),
}

#[cfg(test)]
#[path = "top_tests.rs"]
mod tests;
