//! What recurrent operations are told. Each keeps a state from position to position, in slots ([`super::StateSlots`]).

use super::{Activation, ValueId, WeightId};

/// A causal convolution of each channel over its last `taps` positions (Mamba, arXiv 2312.00752; LFM2, arXiv
/// 2511.23404), between two gates where there are such: `y[t, c] = after[t, c] * act(sum_j weight[c, j] * u[t - taps + 1
/// + j, c])` with `u = before * x`. What lies before position 0 counts as zero.
///
/// State: the last `taps - 1` rows of `u`, oldest first, `(taps - 1, width)`.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortConv {
    /// Index into [`Graph::state_widths`](super::Graph::state_widths).
    pub state: usize,
    /// Positions that a row sees, its own included.
    pub taps: usize,
    /// A [`WeightKind::Vector`](super::WeightKind::Vector) of `(width, taps)`.
    pub weight: WeightId,
    /// What the sum goes through.
    pub activation: Option<Activation>,
}

/// The factors around a [`ShortConv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gates {
    /// On what is convolved.
    pub before: ValueId,
    /// On the result.
    pub after: ValueId,
}

/// The gated delta rule (arXiv 2412.06464): a head remembers a matrix that maps keys to values, lets it fade, and
/// replaces what it says of a key by what it should say.
///
/// `qkv` is `(tokens, 2 * key_heads * key_dim + value_heads * value_dim)`: queries, keys, values. `beta` and `decay` are
/// `(tokens, value_heads)`. Value head `h` uses the query and key `h / (value_heads / key_heads)`, each divided by its
/// length (`sqrt(sum x^2 + 1e-6)`), the query by `sqrt(key_dim)` too. With `a = exp(-exp(a_log) * ln(1 + exp(decay +
/// dt)))` and `b = 1 / (1 + exp(-beta))` the head's state `S (key_dim, value_dim)` becomes `a S + k (b (v - a S^T k))^T`,
/// and the result is `S^T q`, `(tokens, value_heads * value_dim)`.
///
/// State: `(value_heads, key_dim, value_dim)`.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedDelta {
    /// Index into [`Graph::state_widths`](super::Graph::state_widths).
    pub state: usize,
    /// Heads of queries and keys; divides `value_heads`.
    pub key_heads: usize,
    /// Heads of values.
    pub value_heads: usize,
    /// Elements of one query or key.
    pub key_dim: usize,
    /// Elements of one value.
    pub value_dim: usize,
    /// A vector of `value_heads`.
    pub a_log: WeightId,
    /// A vector of `value_heads`.
    pub dt: WeightId,
}

impl GatedDelta {
    /// Columns of queries, keys and values together.
    pub fn qkv_width(&self) -> usize {
        let keys = self.key_heads.saturating_mul(self.key_dim);
        keys.saturating_mul(2).saturating_add(self.value_heads.saturating_mul(self.value_dim))
    }
}
