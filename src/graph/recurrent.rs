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
