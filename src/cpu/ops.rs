//! The mathematics of single operations on slices. Matrices are row by row, `(tokens, width)`.

use std::f64::consts::FRAC_2_SQRT_PI;

use headwater_cpu_kernels::elementwise::{self, dot};

use super::weights::Weights;
use crate::graph::{Activation, EmbedBy, Rope, RopePairs, Row, WeightId};

/// `y[t] = table[by(t)]`.
pub(super) fn embed(weights: &Weights, table: WeightId, by: EmbedBy, rows: &[Row], width: usize) -> Vec<f32> {
    let mut y = vec![0.0; rows.len() * width];
    for (row, y) in rows.iter().zip(y.chunks_exact_mut(width)) {
        let index = match by {
            EmbedBy::Token => row.token as usize,
            EmbedBy::Position { offset } => row.position as usize + offset,
            EmbedBy::Segment => row.segment as usize,
        };
        weights.row(table, index, y);
    }
    y
}

/// `y = x / sqrt(mean(x^2) + eps) * weight` for the first elements of every part of `part` elements, as many as the
/// weight has; for all of them without a weight.
pub(super) fn rms_norm(x: &[f32], weight: Option<&[f32]>, eps: f32, part: usize) -> Vec<f32> {
    let mut y = x.to_vec();
    let len = weight.map_or(part, <[f32]>::len);
    for part in y.chunks_exact_mut(part) {
        elementwise::rms_norm(&mut part[..len], weight, eps);
    }
    y
}

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias` for every row.
pub(super) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let mut y = x.to_vec();
    let count = weight.len() as f64;
    for row in y.chunks_exact_mut(weight.len()) {
        let mean = (row.iter().copied().map(f64::from).sum::<f64>() / count) as f32;
        row.iter_mut().for_each(|y| *y -= mean);
        let scale = 1.0 / (dot(row, row) / count as f32 + eps).sqrt();
        for ((y, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
            *y = *y * scale * weight + bias;
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
        (cos as f32 * rope.scale, sin as f32 * rope.scale)
    };
    rows.iter().flat_map(|row| rope.inv_freq.iter().map(move |frequency| angle(row.position, *frequency))).collect()
}

/// Rotates each of `heads` parts of every row by that row's `angles`, from element `first` on.
pub(super) fn rope(
    x: &[f32],
    pairs: RopePairs,
    angles: &[(f32, f32)],
    (tokens, heads): (usize, usize),
    first: usize,
) -> Vec<f32> {
    let mut y = x.to_vec();
    let n_pairs = angles.len() / tokens;
    let (head_dim, width) = (x.len() / tokens / heads, x.len() / tokens);
    let (step, apart) = match pairs {
        RopePairs::Halves => (1, n_pairs),
        RopePairs::Adjacent => (2, 1),
    };
    for (row, angles) in y.chunks_exact_mut(width).zip(angles.chunks_exact(n_pairs)) {
        for head in row.chunks_exact_mut(head_dim) {
            elementwise::rotate(&mut head[first..], angles, (step, apart));
        }
    }
    y
}

/// `activation(gate) * up`; a gate is for one element or for as many as there are more of them.
pub(super) fn glu(gate: &[f32], up: &[f32], activation: Activation) -> Vec<f32> {
    let each = up.len() / gate.len().max(1);
    let mut y = activate_all(activation, gate);
    if each > 1 {
        y = y.iter().flat_map(|gate| std::iter::repeat_n(*gate, each)).collect();
    }
    match activation {
        Activation::Clamped { limit, .. } => {
            y.iter_mut().zip(up).for_each(|(y, up)| *y *= up.clamp(-limit, limit) + 1.0);
        }
        Activation::Silu | Activation::GeluTanh | Activation::Gelu | Activation::Tanh | Activation::Sigmoid => {
            elementwise::multiply(&mut y, up);
        }
    }
    y
}

/// `activation` of every element.
pub(super) fn activate_all(activation: Activation, x: &[f32]) -> Vec<f32> {
    if activation == Activation::Silu {
        let mut y = x.to_vec();
        elementwise::silu(&mut y);
        return y;
    }
    x.iter().map(|x| activate(activation, *x)).collect()
}

/// See [`Activation`].
pub(super) fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => 0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)).tanh()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Clamped { limit, slope } => {
            let x = x.min(limit);
            x / (1.0 + (-slope * x).exp())
        }
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        Activation::Tanh => x.tanh(),
    }
}

/// The error function, in double precision by its series and its continued fraction (Abramowitz & Stegun 7.1.6 and 7.1.14).
fn erf(x: f32) -> f32 {
    let x = f64::from(x);
    let squared = x * x;
    if squared < 9.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..64 {
            term *= 2.0 * squared / f64::from(2 * n + 1);
            sum += term;
        }
        return (FRAC_2_SQRT_PI * (-squared).exp() * sum) as f32;
    }
    // From 3 on, 24 levels of the fraction give more digits than an f32 keeps.
    let fraction = (1..=24).rev().fold(x.abs(), |below, n| x.abs() + f64::from(n) / 2.0 / below);
    let rest = (-squared).exp() * FRAC_2_SQRT_PI / 2.0 / fraction;
    (1.0 - rest).copysign(x) as f32
}

/// Of the tanh form of GELU.
const SQRT_2_OVER_PI: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;

/// `x[t, c] + bias[c]`.
pub(super) fn add_bias(x: &[f32], bias: &[f32]) -> Vec<f32> {
    x.chunks_exact(bias.len()).flat_map(|row| row.iter().zip(bias).map(|(x, bias)| x + bias)).collect()
}

/// Parts `(rows, ...)` side by side.
pub(super) fn concat(parts: &[&[f32]], rows: usize) -> Vec<f32> {
    let row = |row: usize| parts.iter().flat_map(move |part| &part[row * (part.len() / rows)..][..part.len() / rows]);
    (0..rows).flat_map(row).copied().collect()
}

/// The chosen rows of a `(tokens, width)`.
pub(super) fn output_rows(x: &[f32], outputs: &[u32], width: usize) -> Vec<f32> {
    outputs.iter().flat_map(|row| &x[*row as usize * width..][..width]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_pairings_rotate_the_same_pairs_and_leave_the_rest() {
        let rope_of = |pairs| Rope { inv_freq: vec![1.0, 0.5], pairs, scale: 1.0 };
        let row = [Row { token: 0, position: 3, sequence: 0, segment: 0 }];
        let (halves, adjacent) = (rope_of(RopePairs::Halves), rope_of(RopePairs::Adjacent));
        // Two heads of five elements; pairs (a, b), (c, d); the fifth stays.
        let found = rope(
            &[1.0, 3.0, 2.0, 4.0, 9.0, 1.0, 3.0, 2.0, 4.0, 9.0],
            RopePairs::Halves,
            &angles(&halves, &row),
            (1, 2),
            0,
        );
        let other = rope(
            &[1.0, 2.0, 3.0, 4.0, 9.0, 1.0, 2.0, 3.0, 4.0, 9.0],
            RopePairs::Adjacent,
            &angles(&adjacent, &row),
            (1, 2),
            0,
        );
        for head in 0..2 {
            let (found, other) = (&found[head * 5..][..5], &other[head * 5..][..5]);
            assert_eq!([found[0], found[2], found[1], found[3], found[4]], *other);
            let (sin, cos) = 3f32.sin_cos();
            assert!((other[0] - (cos - 2.0 * sin)).abs() < 1e-6 && (other[1] - (2.0 * cos + sin)).abs() < 1e-6);
            assert_eq!(other[4], 9.0);
        }
        // The same pairs, one element further on.
        let moved = rope(&[9.0, 1.0, 2.0, 3.0, 4.0], RopePairs::Adjacent, &angles(&adjacent, &row), (1, 1), 1);
        assert_eq!((moved[0], &moved[1..]), (9.0, &other[..4]));
    }

    #[test]
    fn norm_of_parts() {
        let y = rms_norm(&[3.0, 4.0, 0.0, 0.0], Some(&[1.0, 2.0]), 0.0, 2);
        let scale = 1.0 / 12.5f32.sqrt();
        assert!((y[0] - 3.0 * scale).abs() < 1e-6 && (y[1] - 8.0 * scale).abs() < 1e-6);
        assert!(y[2].is_nan(), "0 / sqrt(0 + 0)");
        assert_eq!(rms_norm(&[0.0, 0.0], Some(&[1.0, 2.0]), 1e-6, 2), [0.0, 0.0]);
        assert_eq!(rms_norm(&[3.0, 4.0, 7.0], Some(&[1.0, 2.0]), 0.0, 3), [y[0], y[1], 7.0], "beyond the weight");
        assert_eq!(rms_norm(&[3.0, 4.0], None, 0.0, 2), [y[0], y[1] / 2.0]);
    }

    #[test]
    fn gates_of_large_numbers_stay_numbers() {
        let (gate, up) = ([0.0, 1000.0, -1000.0], [5.0, 2.0, 2.0]);
        for activation in [Activation::Silu, Activation::GeluTanh, Activation::Gelu] {
            assert_eq!(glu(&gate, &up, activation), [0.0, 2000.0, 0.0], "{activation:?}");
        }
        // torch.nn.functional.silu(1) and gelu(1, approximate="tanh").
        for (activation, expected) in [(Activation::Silu, 0.731_058_6), (Activation::GeluTanh, 0.841_192)] {
            assert!((glu(&[1.0], &[1.0], activation)[0] - expected).abs() < 1e-6f32, "{activation:?}");
        }
    }

    #[test]
    fn the_error_function_is_that_of_the_tables() {
        // Abramowitz & Stegun, table 7.1, rounded to ten places.
        let table = [
            (0.0, 0.0),
            (0.1, 0.112_462_916_0),
            (0.5, 0.520_499_877_8),
            (1.0, 0.842_700_792_9),
            (1.5, 0.966_105_146_5),
            (2.0, 0.995_322_265_0),
            (2.9, 0.999_958_902_1),
            (3.1, 0.999_988_351_3),
            (4.0, 0.999_999_984_6),
            (40.0, 1.0),
        ];
        for (x, expected) in table {
            for sign in [1.0, -1.0] {
                assert!((f64::from(erf(sign * x)) - f64::from(sign) * expected).abs() < 6e-8, "{x}");
            }
        }
        // torch.nn.functional.gelu(1) and gelu(-3); tanh(0.5).
        assert!((activate(Activation::Gelu, 1.0) - 0.841_344_8).abs() < 1e-7);
        assert!((activate(Activation::Gelu, -3.0) + 0.004_049_694).abs() < 1e-6);
        assert!((activate(Activation::Tanh, 0.5) - 0.462_117_16).abs() < 1e-7);
    }

    #[test]
    fn layer_norm_is_what_its_definition_says() {
        let y =
            layer_norm(&[1.0, 2.0, 3.0, 6.0, 5.0, 5.0, 5.0, 5.0], &[1.0, 2.0, 1.0, 1.0], &[0.0, 0.0, 0.0, 1.0], 0.5);
        // Mean 3, variance 3.5.
        let expected = [-1.0, -1.0, 0.0, 2.5, 0.0, 0.0, 0.0, 1.0];
        assert!(y.iter().zip(expected).all(|(y, expected)| (y - expected).abs() < 1e-6), "{y:?}");
    }

    #[test]
    fn a_bias_is_added_to_every_row() {
        assert_eq!(add_bias(&[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0]), [11.0, 22.0, 13.0, 24.0]);
    }
}
