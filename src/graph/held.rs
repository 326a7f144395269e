//! Logits that stay where they were made: what is done to single ones before an id is chosen of them, and what is told of them
//! where that takes less than reading all.

/// What becomes of the logit of one id before ids are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The id.
    pub id: u32,
    /// Added first.
    pub bias: f32,
    /// Then divides what is positive and multiplies what is not.
    pub divisor: f32,
    /// Then subtracted.
    pub less: f32,
}

impl Change {
    /// None yet, of an id.
    pub fn none(id: u32) -> Self {
        Self { id, bias: 0.0, divisor: 1.0, less: 0.0 }
    }

    /// The logit after it.
    pub fn of(&self, logit: f32) -> f32 {
        let logit = logit + self.bias;
        (if logit > 0.0 { logit / self.divisor } else { logit * self.divisor }) - self.less
    }
}

/// What is asked of held logits.
#[derive(Clone, Copy, Debug)]
pub struct TopAsk<'a> {
    /// Divides the logits in the sum of exponentials; not 0.
    pub temperature: f32,
    /// Ids that take part, see [`Backend::choose`](super::Backend::choose).
    pub mask: Option<&'a [u32]>,
    /// Ids whose logits are told besides, masked or not.
    pub named: &'a [u32],
}

/// The largest of held logits, and what all of them that take part come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Top {
    /// Ids and logits, by id: all that are larger than `bound`.
    pub largest: Vec<(u32, f32)>,
    /// No other logit is larger.
    pub bound: f32,
    /// How many take part.
    pub count: u32,
    /// The largest.
    pub max: f32,
    /// Sum of `exp((logit - max) / temperature)`.
    pub sum: f32,
    /// Their mean.
    pub mean: f32,
    /// Their variance.
    pub variance: f32,
    /// The logits of the ids that were named.
    pub named: Vec<f32>,
}

/// How many ids [`Top::largest`] has at most.
pub const MAX_TOP: usize = 256;

impl Top {
    /// Whether the `count` largest are told. They are not where too many are equal.
    pub fn has(&self, count: usize) -> bool {
        self.largest.len() >= count || self.bound == f32::NEG_INFINITY
    }

    /// By definition, of all logits. Nothing where none takes part.
    pub fn of(logits: &[f32], ask: &TopAsk<'_>) -> Option<Self> {
        let allowed = |id: u32| {
            ask.mask.is_none_or(|mask| mask.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1))
        };
        let mut largest: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).filter(|(id, _)| allowed(*id)).collect();
        let max = largest.iter().map(|(_, logit)| *logit).reduce(f32::max)?;
        let count = largest.len() as f64;
        let mean_of =
            |part: &dyn Fn(f64) -> f64| largest.iter().map(|(_, logit)| part(f64::from(*logit))).sum::<f64>() / count;
        let mean = mean_of(&|logit| logit);
        let variance = mean_of(&|logit| (logit - mean).powi(2));
        let sum = mean_of(&|logit| ((logit - f64::from(max)) / f64::from(ask.temperature)).exp()) * count;
        let (count, mut bound) = (largest.len() as u32, f32::NEG_INFINITY);
        if largest.len() > MAX_TOP {
            bound = largest.select_nth_unstable_by(MAX_TOP, |a, b| b.1.total_cmp(&a.1)).1.1;
            largest.retain(|(_, logit)| *logit > bound);
            largest.sort_unstable_by_key(|(id, _)| *id);
        }
        let named = ask.named.iter().map(|id| logits.get(*id as usize).copied().unwrap_or(f32::NEG_INFINITY)).collect();
        Some(Self { largest, bound, count, max, sum: sum as f32, mean: mean as f32, variance: variance as f32, named })
    }
}

/// How an id is chosen of held logits.
#[derive(Clone, Copy, Debug)]
pub struct HeldChoice<'a> {
    /// Penalties of it are not looked at: they go by a history, and come as changes.
    pub sampler: &'a super::SamplerSettings,
    /// Changes of logits; each id once.
    pub changes: &'a [Change],
    /// Ids that take part are those whose bits are set, the lowest first, 32 a word; all without.
    pub mask: Option<&'a [u32]>,
    /// Whether to tell of the logits as they were before: all take part, the temperature is 1, and the id chosen is named.
    pub tells: bool,
}
