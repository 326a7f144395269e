//! DRY, "don't repeat yourself": a penalty on ids that would go on with a repetition, growing with its length.
//!
//! After p-e-w's text-generation-webui #5677: an id that followed an earlier occurrence of the last `n` ids is penalised by
//! `multiplier * base^(n - allowedLength)` once `n` reaches `allowedLength`; a match ends at an id whose text has a sequence
//! breaker.

use std::collections::{BTreeMap, BTreeSet};

/// Longest match that counts: past it the penalty excludes the id anyhow.
const LONGEST: usize = 64;

/// Checked settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// How strong.
    pub multiplier: f32,
    /// By how much a penalty grows with each further id.
    pub base: f32,
    /// The longest repetition that costs nothing.
    pub allowed: usize,
    /// How many of the last ids are looked through.
    pub window: usize,
    /// Ids that no repetition goes across.
    pub breakers: BTreeSet<u32>,
}

impl Dry {
    /// What is taken from the logit of each id that would go on with a repetition.
    pub(super) fn penalties(&self, ids: &[u32]) -> BTreeMap<u32, f32> {
        let ids = ids.get(ids.len().saturating_sub(self.window)..).unwrap_or(ids);
        let mut longest: BTreeMap<u32, usize> = BTreeMap::new();
        for (next, id) in ids.iter().enumerate().skip(1) {
            let earlier = ids.get(..next).unwrap_or_default();
            let same = |pair: &(&u32, &u32)| pair.0 == pair.1 && !self.breakers.contains(pair.0);
            let length = earlier.iter().rev().zip(ids.iter().rev()).take(LONGEST).take_while(same).count();
            if length >= self.allowed.max(1) && !self.breakers.contains(id) {
                let longest = longest.entry(*id).or_default();
                *longest = length.max(*longest);
            }
        }
        let penalty = |length: usize| self.multiplier * self.base.powi((length - self.allowed) as i32);
        longest.into_iter().map(|(id, length)| (id, penalty(length).min(1e6))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dry(allowed: usize, breakers: &[u32]) -> Dry {
        Dry { multiplier: 0.5, base: 2.0, allowed, window: 100, breakers: breakers.iter().copied().collect() }
    }

    #[test]
    fn what_would_go_on_with_a_repetition_is_penalised_by_its_length() {
        // "1 2 3 4 ... 1 2 3": 4 would make four; "3 9" earlier: after 3 came 9 too, a match of one.
        let ids = [3, 9, 1, 2, 3, 4, 8, 1, 2, 3];
        assert_eq!(dry(1, &[]).penalties(&ids).into_iter().collect::<Vec<_>>(), [(4, 2.0), (9, 0.5)]);
        assert_eq!(dry(2, &[]).penalties(&ids).into_iter().collect::<Vec<_>>(), [(4, 1.0)]);
        assert_eq!(dry(4, &[]).penalties(&ids).len(), 0);
    }

    #[test]
    fn no_repetition_goes_across_a_breaker() {
        let ids = [1, 2, 3, 4, 8, 1, 2, 3];
        assert_eq!(dry(2, &[2]).penalties(&ids).len(), 0);
        assert_eq!(dry(1, &[2]).penalties(&ids).into_iter().collect::<Vec<_>>(), [(4, 0.5)]);
        assert_eq!(dry(1, &[4]).penalties(&ids).len(), 0, "a breaker itself costs nothing");
    }

    #[test]
    fn long_repetitions_stay_finite() {
        let ids: Vec<u32> = (0..2000).map(|i| i % 7).collect();
        let penalties = Dry { window: 2000, ..dry(2, &[]) }.penalties(&ids);
        assert!(penalties.values().all(|penalty| penalty.is_finite()) && penalties[&(2000 % 7)] > 1e5);
        assert_eq!(Dry { window: 3, ..dry(2, &[]) }.penalties(&[1, 2, 3, 1, 2]).len(), 0);
    }
}
