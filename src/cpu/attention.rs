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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{KvFormat, Row};

    const HEADS: usize = 4;
    const KV_HEADS: usize = 2;
    const HEAD_DIM: usize = 3;
    const TOKENS: usize = 40;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed * 53 + 11) % 101) as f32 / 25.0 - 2.0).collect()
    }

    /// By the definition, in f64, every position looked at.
    fn expected(spec: &Attention, q: &[f32], k: &[f32], v: &[f32], row: usize, head: usize) -> Vec<f64> {
        let element = |x: &[f32], heads: usize, row: usize, head: usize, i: usize| {
            f64::from(x[(row * heads + head) * HEAD_DIM + i])
        };
        let kv_head = head / (HEADS / KV_HEADS);
        let mut sum = 0.0;
        let mut out = [0.0; HEAD_DIM];
        for seen in (0..=row).filter(|seen| spec.window.is_none_or(|window| row - seen < window)) {
            let product = |i| element(q, HEADS, row, head, i) * element(k, KV_HEADS, seen, kv_head, i);
            let mut score = f64::from(spec.scale) * (0..HEAD_DIM).map(product).sum::<f64>();
            if let Some(cap) = spec.softcap.map(f64::from) {
                score = cap * (score / cap).tanh();
            }
            sum += score.exp();
            for (i, out) in out.iter_mut().enumerate() {
                *out += score.exp() * element(v, KV_HEADS, seen, kv_head, i);
            }
        }
        out.iter().map(|out| out / sum).collect()
    }

    #[test]
    fn attention_is_what_its_definition_says() {
        let plain = Attention {
            layer: 0,
            heads: HEADS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            scale: 0.5,
            window: None,
            softcap: None,
        };
        let specs = [
            Attention { window: Some(1), ..plain.clone() },
            Attention { window: Some(7), ..plain.clone() },
            Attention { softcap: Some(1.5), ..plain.clone() },
            Attention { window: Some(TOKENS), softcap: Some(20.0), ..plain.clone() },
            plain,
        ];
        let rows: Vec<Row> = (0..TOKENS as u32).map(|position| Row { token: 0, position, sequence: 0 }).collect();
        let step = Step { rows: &rows, pages: &[vec![1, 0]], outputs: &[] };
        let (q, narrow) = (numbers(TOKENS * HEADS * HEAD_DIM, 0), TOKENS * KV_HEADS * HEAD_DIM);
        let (k, v) = (numbers(narrow, 1), numbers(narrow, 2));
        for spec in specs {
            let mut kv = Kv::new(&[KV_HEADS * HEAD_DIM], KvFormat::F32, 2).unwrap();
            let found = attention(&mut kv, &spec, &step, &Inputs { q: &q, k: &k, v: &v });
            for (index, found) in found.chunks_exact(HEAD_DIM).enumerate() {
                let expected = expected(&spec, &q, &k, &v, index / HEADS, index % HEADS);
                for (found, expected) in found.iter().zip(expected) {
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{spec:?}, row and head {index}");
                }
            }
        }
    }
}
