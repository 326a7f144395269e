//! Low-rank adapters (LoRA, arXiv 2106.09685) as backends see them: what is added to the products with some matrices.
//!
//! The graph stays as it is, and so do the weights: a backend that is told to use an adapter computes more at the
//! products that it changes.

use super::WeightId;
use crate::quant::FormatId;

/// An adapter that a backend holds; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdapterId(pub u64);

/// An adapter, and how much of it is applied: 0 nothing, 1 as it was trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterUse {
    /// Which.
    pub id: AdapterId,
    /// How much.
    pub scale: f32,
}

/// What an adapter does to every product with the matrix `W (rows, cols)`: `y = W x` becomes
/// `W x + scale * (factor * B (A x) + gain W x)`, with `gain` a number for each row.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// W; each one once in an adapter.
    pub weight: WeightId,
    /// Matrices one above another in W, each of which has an A and a B of its own.
    pub stacked: usize,
    /// Rows of A and columns of B, 1 or more.
    pub rank: usize,
    /// How `A (stacked * rank, cols)` and `B (rows, rank)` are kept; both exactly.
    pub formats: [FormatId; 2],
    /// See the formula.
    pub factor: f32,
    /// Whether there is a gain, as DoRA (arXiv 2402.09353) needs it.
    pub gain: bool,
}

/// The numbers of a [`Delta`].
#[derive(Clone, Copy, Debug)]
pub struct DeltaValues<'a> {
    /// `A (stacked * rank, cols)`.
    pub a: &'a [f32],
    /// `B (rows, rank)`.
    pub b: &'a [f32],
    /// `(rows)`, where the delta has a gain.
    pub gain: Option<&'a [f32]>,
}
