//! The mathematics of single operations on slices. Matrices are row by row, `(tokens, width)`.

use super::weights::Weights;
use crate::graph::{Rope, RopePairs, Row, WeightId};

/// Sums that run side by side: enough for the registers of any SIMD, and each sum stays short and so exact.
const LANES: usize = 16;

/// `sum_i a[i] * b[i]`.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(a * b)).sum();
    (sums.iter().copied().map(f64::from).sum::<f64>() + rest) as f32
}

/// `y[t] = table[token[t]]`.
pub(super) fn embed(weights: &Weights, table: WeightId, rows: &[Row], width: usize) -> Vec<f32> {
    let mut y = vec![0.0; rows.len() * width];
    for (row, y) in rows.iter().zip(y.chunks_exact_mut(width)) {
        weights.row(table, row.token as usize, y);
    }
    y
}

/// `y[t, r] = sum_c weight[r, c] * x[t, c]` with `cols` columns.
pub(super) fn matmul(weights: &Weights, weight: WeightId, x: &[f32], cols: usize) -> Vec<f32> {
    let (tokens, rows) = (x.len() / cols, weights.n_rows(weight));
    let mut y = vec![0.0; tokens * rows];
    let mut decoded = vec![0.0; cols];
    for r in 0..rows {
        weights.row(weight, r, &mut decoded);
        for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(rows)) {
            y[r] = dot(&decoded, x);
        }
    }
    y
}

/// `y = x / sqrt(mean(x^2) + eps) * weight` for every part of the weight's length.
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut y = x.to_vec();
    for part in y.chunks_exact_mut(weight.len()) {
        let scale = 1.0 / (dot(part, part) / weight.len() as f32 + eps).sqrt();
        for (y, weight) in part.iter_mut().zip(weight) {
            *y = *y * scale * weight;
        }
    }
    y
}

/// Cosine and sine of every pair's angle: `(tokens, pairs)`.
///
/// The angle is rounded to f32 before its cosine is taken, as transformers does.
pub(super) fn angles(rope: &Rope, rows: &[Row]) -> Vec<(f32, f32)> {
    let angle = |position: u32, frequency: f32| {
        let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
        (cos as f32, sin as f32)
    };
    rows.iter().flat_map(|row| rope.inv_freq.iter().map(move |frequency| angle(row.position, *frequency))).collect()
}

/// Rotates each of `heads` parts of every row by that row's `angles`.
pub(super) fn rope(x: &[f32], pairs: RopePairs, angles: &[(f32, f32)], tokens: usize, heads: usize) -> Vec<f32> {
    let mut y = x.to_vec();
    let n_pairs = angles.len() / tokens;
    let (head_dim, width) = (x.len() / tokens / heads, x.len() / tokens);
    let (step, apart) = match pairs {
        RopePairs::Halves => (1, n_pairs),
        RopePairs::Adjacent => (2, 1),
    };
    for (row, angles) in y.chunks_exact_mut(width).zip(angles.chunks_exact(n_pairs)) {
        for head in row.chunks_exact_mut(head_dim) {
            for (i, (cos, sin)) in angles.iter().enumerate() {
                let (a, b) = (head[step * i], head[step * i + apart]);
                head[step * i] = a * cos - b * sin;
                head[step * i + apart] = b * cos + a * sin;
            }
        }
    }
    y
}

/// `silu(gate) * up`.
pub(super) fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect()
}

/// `a + b`.
pub(super) fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// The chosen rows of a `(tokens, width)`.
pub(super) fn output_rows(x: &[f32], outputs: &[u32], width: usize) -> Vec<f32> {
    outputs.iter().flat_map(|row| &x[*row as usize * width..][..width]).copied().collect()
}
