//! The gated delta rule, row after row.

use headwater_cpu_kernels::elementwise::dot;

use super::state::States;
use super::weights::Weights;
use crate::graph::{GatedDelta, Step};

/// Added to the sum of squares of queries and keys.
const EPS: f32 = 1e-6;

/// See [`GatedDelta`].
pub(super) fn gated_delta(
    states: &mut States,
    weights: &Weights,
    spec: &GatedDelta,
    step: &Step<'_>,
    [qkv, beta, decay]: [&[f32]; 3],
) -> Vec<f32> {
    let GatedDelta { key_heads, value_heads, key_dim, value_dim, .. } = *spec;
    let (a_log, dt) = (weights.vector(spec.a_log), weights.vector(spec.dt));
    let (keys, width) = (key_heads * key_dim, value_heads * value_dim);
    let mut out = vec![0.0; step.rows.len() * width];
    states.each_sequence(spec.state, step, |state, rows| {
        for row in rows {
            let qkv = &qkv[row * spec.qkv_width()..][..spec.qkv_width()];
            for (head, state) in state.chunks_exact_mut(key_dim * value_dim).enumerate() {
                let key_at = head / (value_heads / key_heads) * key_dim;
                let (q, k) = (&qkv[key_at..][..key_dim], &qkv[keys + key_at..][..key_dim]);
                let (q_scale, k_scale) = (1.0 / (dot(q, q) + EPS).sqrt(), 1.0 / (dot(k, k) + EPS).sqrt());
                let q_scale = q_scale / (key_dim as f32).sqrt();
                let at = row * value_heads + head;
                let fading = (-a_log[head].exp() * softplus(decay[at] + dt[head])).exp();
                let beta = 1.0 / (1.0 + (-beta[at]).exp());
                // What the state says of the key, then what it should have said more.
                let mut delta = vec![0.0; value_dim];
                for (state, key) in state.chunks_exact_mut(value_dim).zip(k) {
                    for (state, delta) in state.iter_mut().zip(&mut delta) {
                        *state *= fading;
                        *delta += *state * key;
                    }
                }
                let values = &qkv[2 * keys + head * value_dim..][..value_dim];
                for (delta, value) in delta.iter_mut().zip(values) {
                    *delta = beta * (value - *delta * k_scale);
                }
                let out = &mut out[row * width + head * value_dim..][..value_dim];
                for (state, (query, key)) in state.chunks_exact_mut(value_dim).zip(q.iter().zip(k)) {
                    for ((state, delta), out) in state.iter_mut().zip(&delta).zip(out.iter_mut()) {
                        *state += key * k_scale * delta;
                        *out += *state * (query * q_scale);
                    }
                }
            }
        }
    });
    out
}

/// `ln(1 + exp(x))`, also of large numbers.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::softplus;

    #[test]
    fn softplus_of_large_numbers_stays_a_number() {
        // torch.nn.functional.softplus.
        for (x, expected) in [(0.5, 0.974_077), (1.0, 1.313_261_7), (-3.0, 0.048_587_35), (100.0, 100.0), (-100.0, 0.0)]
        {
            assert!((softplus(x) - expected).abs() < 1e-6f32, "{x}");
        }
    }
}
