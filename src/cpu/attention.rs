//! Causal attention with grouped queries over paged keys and values.

use headwater_cpu_kernels::elementwise;

use super::kv::Kv;
use crate::graph::{Attention, Step};

/// Queries `(tokens, heads * head_dim)`; keys `(tokens, kv_heads * head_dim)`; values `(tokens, kv_heads * value_dim)`;
/// a score a head that stands for no value.
pub(super) struct Inputs<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub sinks: Option<&'a [f32]>,
}

/// Writes keys and values of the step's rows, then mixes: `(tokens, heads * value_dim)`.
pub(super) fn attention(kv: &mut Kv, spec: &Attention, step: &Step<'_>, inputs: &Inputs<'_>) -> Vec<f32> {
    let (key_width, value_width) = (spec.kv_heads * spec.head_dim, spec.kv_heads * spec.value_dim);
    for (index, row) in step.rows.iter().enumerate() {
        let key = &inputs.k[index * key_width..][..key_width];
        let value = if spec.latent { &[] } else { &inputs.v[index * value_width..][..value_width] };
        kv.write(spec.layer, &step.pages[row.sequence as usize], row.position as usize, key, value);
    }
    let (wide, made) = (spec.heads * spec.head_dim, spec.heads * spec.value_dim);
    let mut out = vec![0.0; step.rows.len() * made];
    for (sequence, pages) in step.pages.iter().enumerate() {
        let of_sequence = |index: &usize| step.rows[*index].sequence as usize == sequence;
        let rows: Vec<usize> = (0..step.rows.len()).filter(of_sequence).collect();
        // Positions ascend within a sequence.
        let Some(last) = rows.last() else { continue };
        let len = step.rows[*last].position as usize + 1;
        let (keys, values) = kv.gather(spec.layer, pages, len);
        let values = if spec.latent { &keys } else { &values };
        for row in rows {
            let position = step.rows[row].position as usize;
            let seen = spec.seen(position, len);
            let view = View {
                keys: &keys[seen.start * key_width..seen.end * key_width],
                values: &values[seen.start * values.len() / len..seen.end * values.len() / len],
                scale: spec.scale_at(position),
                sinks: inputs.sinks,
            };
            mix(spec, &inputs.q[row * wide..][..wide], &view, &mut out[row * made..][..made]);
        }
    }
    out
}

/// What one row sees.
struct View<'a> {
    keys: &'a [f32],
    /// As many rows as `keys`, `value_dim` elements of each head first.
    values: &'a [f32],
    scale: f32,
    sinks: Option<&'a [f32]>,
}

/// One row: `out[h] = softmax(scale * q[h] k^T) v` for every head.
fn mix(spec: &Attention, q: &[f32], view: &View<'_>, out: &mut [f32]) {
    let Attention { head_dim, value_dim, kv_heads, .. } = *spec;
    let group = spec.heads / kv_heads;
    let key_width = kv_heads * head_dim;
    let mut scores = vec![0.0; view.keys.len() / key_width];
    let value_width = view.values.len() / scores.len();
    for (head, (q, out)) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(value_dim)).enumerate() {
        let (key_start, value_start) = (head / group * head_dim, head / group * value_dim);
        elementwise::scores(q, view.keys, (key_width, key_start), view.scale, &mut scores);
        if let Some(cap) = spec.softcap {
            scores.iter_mut().for_each(|score| *score = cap * (*score / cap).tanh());
        }
        elementwise::softmax(&mut scores, view.sinks.map(|sinks| sinks[head]));
        elementwise::mix(&scores, view.values, (value_width, value_start), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{KvFormat, KvWidths, Row, Temperature, WeightId};

    const HEADS: usize = 4;
    const KV_HEADS: usize = 2;
    const HEAD_DIM: usize = 3;
    const TOKENS: usize = 40;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed * 53 + 11) % 101) as f32 / 25.0 - 2.0).collect()
    }

    /// By the definition, in f64, every position looked at.
    fn expected(spec: &Attention, [q, k, v, sinks]: [&[f32]; 4], row: usize, head: usize) -> Vec<f64> {
        let element = |x: &[f32], width: usize, row: usize, i: usize| f64::from(x[row * width + i]);
        let kv_head = head / (HEADS / KV_HEADS);
        let value_dim = spec.value_dim;
        let sees = |seen: &usize| {
            let apart = row.abs_diff(*seen);
            let before = *seen <= row || !spec.causal;
            let chunk = spec.chunk.is_none_or(|chunk| row / chunk == seen / chunk);
            before && chunk && spec.window.is_none_or(|window| apart < window)
        };
        let mut scale = f64::from(spec.scale);
        if let Some(temperature) = spec.temperature {
            let steps = ((row + 1) as f64 / f64::from(temperature.floor)).floor();
            scale *= 1.0 + f64::from(temperature.scale) * (1.0 + steps).ln();
        }
        let mut sum = spec.sinks.map_or(0.0, |_| f64::from(sinks[head]).exp());
        let mut out = vec![0.0; value_dim];
        for seen in (0..TOKENS).filter(sees) {
            let product = |i| {
                element(q, HEADS * HEAD_DIM, row, head * HEAD_DIM + i)
                    * element(k, KV_HEADS * HEAD_DIM, seen, kv_head * HEAD_DIM + i)
            };
            let mut score = scale * (0..HEAD_DIM).map(product).sum::<f64>();
            if let Some(cap) = spec.softcap.map(f64::from) {
                score = cap * (score / cap).tanh();
            }
            sum += score.exp();
            for (i, out) in out.iter_mut().enumerate() {
                *out += score.exp() * element(v, KV_HEADS * value_dim, seen, kv_head * value_dim + i);
            }
        }
        out.iter().map(|out| out / sum).collect()
    }

    #[test]
    fn attention_is_what_its_definition_says() {
        let plain = Attention::new(0, (HEADS, KV_HEADS), HEAD_DIM, 0.5);
        let specs = [
            Attention { window: Some(1), ..plain.clone() },
            Attention { window: Some(7), ..plain.clone() },
            Attention { softcap: Some(1.5), ..plain.clone() },
            Attention { window: Some(TOKENS), softcap: Some(20.0), ..plain.clone() },
            Attention { causal: false, ..plain.clone() },
            Attention { causal: false, window: Some(5), ..plain.clone() },
            Attention { chunk: Some(16), ..plain.clone() },
            Attention { chunk: Some(16), window: Some(9), ..plain.clone() },
            Attention { value_dim: 2, ..plain.clone() },
            Attention { sinks: Some(WeightId(0)), ..plain.clone() },
            Attention { temperature: Some(Temperature { floor: 8.0, scale: 0.3 }), ..plain.clone() },
            plain,
        ];
        let rows: Vec<Row> =
            (0..TOKENS as u32).map(|position| Row { token: 0, position, sequence: 0, segment: 0 }).collect();
        let step = Step { rows: &rows, pages: &[vec![1, 0]], states: &[], outputs: &[] };
        let q = numbers(TOKENS * HEADS * HEAD_DIM, 0);
        let k = numbers(TOKENS * KV_HEADS * HEAD_DIM, 1);
        let sinks = numbers(HEADS, 3);
        for spec in specs {
            let v = numbers(TOKENS * KV_HEADS * spec.value_dim, 2);
            let widths = KvWidths { heads: KV_HEADS, key_dim: HEAD_DIM, value_dim: spec.value_dim };
            let mut kv = Kv::new(&[widths], KvFormat::F32, 2).unwrap();
            let inputs = Inputs { q: &q, k: &k, v: &v, sinks: spec.sinks.map(|_| sinks.as_slice()) };
            let found = attention(&mut kv, &spec, &step, &inputs);
            for (index, found) in found.chunks_exact(spec.value_dim).enumerate() {
                let expected = expected(&spec, [&q, &k, &v, &sinks], index / HEADS, index % HEADS);
                for (found, expected) in found.iter().zip(expected) {
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{spec:?}, row and head {index}");
                }
            }
        }
    }

    #[test]
    fn latent_values_are_the_beginning_of_the_keys() {
        let latent = Attention { value_dim: 2, latent: true, ..Attention::new(0, (HEADS, 1), HEAD_DIM, 0.5) };
        let beside = Attention { latent: false, ..latent.clone() };
        let rows: Vec<Row> =
            (0..TOKENS as u32).map(|position| Row { token: 0, position, sequence: 0, segment: 0 }).collect();
        let step = Step { rows: &rows, pages: &[vec![1, 0]], states: &[], outputs: &[] };
        let (q, k) = (numbers(TOKENS * HEADS * HEAD_DIM, 0), numbers(TOKENS * HEAD_DIM, 1));
        let v: Vec<f32> = k.chunks_exact(HEAD_DIM).flat_map(|key| &key[..2]).copied().collect();
        let run = |spec: &Attention, v: &[f32], values| {
            let mut kv =
                Kv::new(&[KvWidths { heads: 1, key_dim: HEAD_DIM, value_dim: values }], KvFormat::F32, 2).unwrap();
            attention(&mut kv, spec, &step, &Inputs { q: &q, k: &k, v, sinks: None })
        };
        assert_eq!(run(&latent, &k, 0), run(&beside, &v, 2));
    }
}
