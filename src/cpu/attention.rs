//! Causal attention with grouped queries over paged keys and values.

use super::kv::Kv;
use super::ops::dot;
use crate::graph::{Attention, Step};

/// Queries `(tokens, heads * head_dim)`; keys and values `(tokens, kv_heads * head_dim)`.
pub(super) struct Inputs<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
}

/// Writes keys and values of the step's rows, then mixes: `(tokens, heads * head_dim)`.
pub(super) fn attention(kv: &mut Kv, spec: &Attention, step: &Step<'_>, inputs: &Inputs<'_>) -> Vec<f32> {
    let (wide, narrow) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
    let keys_and_values = inputs.k.chunks_exact(narrow).zip(inputs.v.chunks_exact(narrow));
    for (row, (k, v)) in step.rows.iter().zip(keys_and_values) {
        kv.write(spec.layer, &step.pages[row.sequence as usize], row.position as usize, k, v);
    }
    let mut out = vec![0.0; step.rows.len() * wide];
    for (sequence, pages) in step.pages.iter().enumerate() {
        let of_sequence = |index: &usize| step.rows[*index].sequence as usize == sequence;
        let rows: Vec<usize> = (0..step.rows.len()).filter(of_sequence).collect();
        // The last row of a sequence sees the most.
        let Some(last) = rows.last() else { continue };
        let (keys, values) = kv.gather(spec.layer, pages, step.rows[*last].position as usize + 1);
        for row in rows {
            let end = step.rows[row].position as usize + 1;
            let start = end.saturating_sub(spec.window.unwrap_or(end));
            let seen = start * narrow..end * narrow;
            let (q, out) = (&inputs.q[row * wide..][..wide], &mut out[row * wide..][..wide]);
            mix(spec, q, &keys[seen.clone()], &values[seen], out);
        }
    }
    out
}

/// One row: `out[h] = softmax(scale * q[h] k^T) v` for every head.
fn mix(spec: &Attention, q: &[f32], keys: &[f32], values: &[f32], out: &mut [f32]) {
    let Attention { head_dim, kv_heads, scale, .. } = *spec;
    let (narrow, group) = (kv_heads * head_dim, spec.heads / kv_heads);
    let mut scores = vec![0.0; keys.len() / narrow];
    for (head, (q, out)) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).enumerate() {
        let start = head / group * head_dim;
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(narrow)) {
            *score = scale * dot(q, &key[start..start + head_dim]);
            if let Some(cap) = spec.softcap {
                *score = cap * (*score / cap).tanh();
            }
        }
        softmax(&mut scores);
        for (score, value) in scores.iter().zip(values.chunks_exact(narrow)) {
            for (out, value) in out.iter_mut().zip(&value[start..start + head_dim]) {
                *out += score * value;
            }
        }
    }
}

/// `exp(s - max(s)) / sum`, in place.
fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f64;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += f64::from(*score);
    }
    let factor = (1.0 / sum) as f32;
    for score in scores {
        *score *= factor;
    }
}
