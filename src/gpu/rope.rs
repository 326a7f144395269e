//! Tables of cosines and sines for the rotary encodings.
//!
//! Sines of large angles are imprecise on many GPUs, and a table for every position is large. So two small ones: for
//! the positions 0 .. 64 and for the multiples of 64, joined in the shader by the formulas of a sum of angles.

use crate::graph::Rope;

/// Positions of the fine table; a constant of `shaders/rope_store.wgsl` too.
const FINE: usize = 64;

/// Pairs in the table of one encoding for `context` positions.
pub(super) fn table_pairs(rope: &Rope, context: usize) -> usize {
    rope.inv_freq.len() * (FINE + context.div_ceil(FINE))
}

/// `(cos, sin)` one after another: first `(64, pairs)`, then `(multiples of 64, pairs)`. In double precision.
pub(super) fn table(rope: &Rope, context: usize) -> Vec<f32> {
    let fine = (0..FINE).map(|position| position as f64);
    let coarse = (0..context.div_ceil(FINE)).map(|multiple| (multiple * FINE) as f64);
    fine.chain(coarse)
        .enumerate()
        // The scale belongs to the product of a fine and a coarse entry once.
        .map(|(row, position)| (position, if row < FINE { f64::from(rope.scale) } else { 1.0 }))
        .flat_map(|(position, scale)| rope.inv_freq.iter().map(move |freq| (position * f64::from(*freq), scale)))
        .flat_map(|(angle, scale)| [(scale * angle.cos()) as f32, (scale * angle.sin()) as f32])
        .collect()
}
