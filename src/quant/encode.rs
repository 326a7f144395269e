//! Floats to blocks, for quantising while loading and for keys and values: ggml's reference encoders
//! (`ggml-quants.c`, `quantize_row_*_ref`), step by step, so that the blocks are theirs.

use half::f16;

use super::FormatId;

/// Encodes whole blocks: `weights.len()` is a multiple of the format's block.
pub type Encode = fn(weights: &[f32], out: &mut Vec<u8>);

/// The formats that floats can be encoded to.
pub const ENCODERS: &[(FormatId, Encode)] = &[
    (FormatId::Q8_0, q8_0),
    (FormatId::Q4_0, q4_0),
    (FormatId::Q4_1, q4_1),
    (FormatId::Q5_0, q5_0),
    (FormatId::Q5_1, q5_1),
    (FormatId::Q4K, q4_k),
    (FormatId::Q5K, q5_k),
    (FormatId::Q6K, q6_k),
];

impl FormatId {
    /// The encoder, where there is one.
    pub fn encoder(self) -> Option<Encode> {
        ENCODERS.iter().find(|(format, _)| *format == self).map(|(_, encode)| *encode)
    }
}

/// `1 / d`, and 0 for 0.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The weight of the largest magnitude, the first of equals, with its sign.
fn extreme(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0, |largest: f32, weight| if weight.abs() > largest.abs() { *weight } else { largest })
}

fn range(weights: &[f32]) -> (f32, f32) {
    weights.iter().fold((f32::MAX, f32::MIN), |(low, high), weight| (low.min(*weight), high.max(*weight)))
}

/// The codes of a group of signed bytes, and their scale.
pub(crate) fn bytes(weights: &[f32]) -> (f16, impl Iterator<Item = i8>) {
    let largest = weights.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
    let d = largest / 127.0;
    let id = inverse(d);
    (f16::from_f32(d), weights.iter().map(move |weight| (weight * id).round() as i8))
}

/// The codes of a group of nibbles, 8 for zero, and their scale.
pub(crate) fn nibbles(weights: &[f32]) -> (f16, impl Iterator<Item = u8>) {
    let d = extreme(weights) / -8.0;
    let id = inverse(d);
    (f16::from_f32(d), weights.iter().map(move |weight| ((weight * id + 8.5) as u8).min(15)))
}

/// Two codes to a byte: those of the first half of a group are the low nibbles.
fn halves(codes: &[u8], out: &mut Vec<u8>) {
    let (low, high) = codes.split_at(codes.len() / 2);
    out.extend(low.iter().zip(high).map(|(low, high)| (low & 15) | (high & 15) << 4));
}

fn q8_0(weights: &[f32], out: &mut Vec<u8>) {
    for weights in weights.as_chunks::<32>().0 {
        let (d, codes) = bytes(weights);
        out.extend(d.to_le_bytes());
        out.extend(codes.map(i8::cast_unsigned));
    }
}

fn q4_0(weights: &[f32], out: &mut Vec<u8>) {
    for weights in weights.as_chunks::<32>().0 {
        let (d, codes) = nibbles(weights);
        out.extend(d.to_le_bytes());
        halves(&codes.collect::<Vec<_>>(), out);
    }
}

/// Scale and minimum as half floats, and codes from 0 to `top`.
fn above_minimum(weights: &[f32], top: f32, out: &mut Vec<u8>) -> Vec<u8> {
    let (low, high) = range(weights);
    let d = (high - low) / top;
    let id = inverse(d);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(f16::from_f32(low).to_le_bytes());
    weights.iter().map(|weight| ((weight - low) * id + 0.5).min(top) as u8).collect()
}

/// The fifth bits of 32 codes.
fn fifth_bits(codes: &[u8], out: &mut Vec<u8>) {
    for codes in codes.chunks(8) {
        out.push(codes.iter().rev().fold(0, |bits: u8, code| bits << 1 | code >> 4 & 1));
    }
}

fn q4_1(weights: &[f32], out: &mut Vec<u8>) {
    for weights in weights.as_chunks::<32>().0 {
        let codes = above_minimum(weights, 15.0, out);
        halves(&codes, out);
    }
}

fn q5_0(weights: &[f32], out: &mut Vec<u8>) {
    for weights in weights.as_chunks::<32>().0 {
        let d = extreme(weights) / -16.0;
        let id = inverse(d);
        let codes: Vec<u8> = weights.iter().map(|weight| ((weight * id + 16.5) as u8).min(31)).collect();
        out.extend(f16::from_f32(d).to_le_bytes());
        fifth_bits(&codes, out);
        halves(&codes, out);
    }
}

fn q5_1(weights: &[f32], out: &mut Vec<u8>) {
    for weights in weights.as_chunks::<32>().0 {
        let codes = above_minimum(weights, 31.0, out);
        fifth_bits(&codes, out);
        halves(&codes, out);
    }
}

fn nearest(value: f32) -> f32 {
    value.round_ties_even()
}

/// Scale and minimum (its magnitude) of codes from 0 to `top` that approach 32 weights best, by trying scales around the
/// obvious one (`make_qkx2_quants`).
fn scale_and_minimum(weights: &[f32; 32], top: f32, first: f32, steps: usize) -> (f32, f32) {
    let square: f32 = weights.iter().map(|weight| weight * weight).sum();
    let average = (square / 32.0).sqrt();
    let importance = weights.map(|weight| average + weight.abs());
    let (low, high) = range(weights);
    let low = low.min(0.0);
    if high == low {
        return (0.0, -low);
    }
    let all = || weights.iter().zip(importance);
    let sum_w: f32 = importance.iter().sum();
    let sum_x: f32 = all().map(|(x, w)| w * x).sum();
    let code = |x: f32, minimum: f32, inverse: f32| nearest(inverse * (x - minimum)).clamp(0.0, top);
    let inverse = top / (high - low);
    // Codes are those over the best minimum so far, which is how the reference looks for the next.
    let (mut best_scale, mut best_minimum) = (1.0 / inverse, low);
    let off = |scale: f32, minimum: f32, over: f32, inverse: f32| -> f32 {
        all()
            .map(|(x, w)| {
                let off = scale * code(*x, over, inverse) + minimum - x;
                w * (off * off)
            })
            .sum()
    };
    let mut best = off(best_scale, low, low, inverse);
    for step in 0..=steps {
        let inverse = (first + 0.1 * step as f32 + top) / (high - best_minimum);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0f32, 0.0f32, 0.0f32);
        for (x, w) in all() {
            let l = code(*x, best_minimum, inverse);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if minimum > 0.0 {
                (scale, minimum) = (sum_xl / sum_l2, 0.0);
            }
            let error = off(scale, minimum, best_minimum, inverse);
            if error < best {
                (best, best_scale, best_minimum) = (error, scale, minimum);
            }
        }
    }
    (best_scale, -best_minimum)
}

/// What Q4_K and Q5_K share: the head of a block, and the codes of its weights.
fn with_minima(weights: &[f32; 256], top: f32, first: f32, steps: usize, out: &mut Vec<u8>) -> Vec<u8> {
    let groups: Vec<(f32, f32)> =
        weights.as_chunks::<32>().0.iter().map(|group| scale_and_minimum(group, top, first, steps)).collect();
    let largest = groups.iter().fold((0.0f32, 0.0f32), |(s, m), group| (s.max(group.0), m.max(group.1)));
    let six_bits = |value: f32, largest: f32| {
        let inverse = if largest > 0.0 { 63.0 / largest } else { 0.0 };
        nearest(inverse * value).clamp(0.0, 63.0) as u8
    };
    let coded: Vec<(u8, u8)> = groups.iter().map(|(s, m)| (six_bits(*s, largest.0), six_bits(*m, largest.1))).collect();
    let (d, m) = (f16::from_f32(largest.0 / 63.0), f16::from_f32(largest.1 / 63.0));
    out.extend(d.to_le_bytes());
    out.extend(m.to_le_bytes());
    let (low, high) = coded.split_at(4);
    out.extend(low.iter().zip(high).map(|(low, high)| low.0 & 63 | high.0 >> 4 << 6));
    out.extend(low.iter().zip(high).map(|(low, high)| low.1 & 63 | high.1 >> 4 << 6));
    out.extend(high.iter().map(|(s, m)| s & 15 | (m & 15) << 4));
    let group = |(weights, (s, minimum)): (&[f32; 32], &(u8, u8))| {
        let (scale, minimum) = (d.to_f32() * f32::from(*s), m.to_f32() * f32::from(*minimum));
        weights.map(|x| if scale == 0.0 { 0 } else { nearest((x + minimum) / scale).clamp(0.0, top) as u8 })
    };
    weights.as_chunks::<32>().0.iter().zip(&coded).flat_map(group).collect()
}

fn q4_k(weights: &[f32], out: &mut Vec<u8>) {
    for weights in weights.as_chunks::<256>().0 {
        let codes = with_minima(weights, 15.0, -1.0, 20, out);
        codes.chunks(64).for_each(|codes| halves(codes, out));
    }
}

fn q5_k(weights: &[f32], out: &mut Vec<u8>) {
    for weights in weights.as_chunks::<256>().0 {
        let codes = with_minima(weights, 31.0, -0.5, 15, out);
        let groups = codes.as_chunks::<32>().0;
        // Bit j of byte i is the fifth bit of weight i of group j.
        let bits = |i: usize| {
            let fifth = groups.iter().rev().filter_map(|group| group.get(i));
            fifth.fold(0u8, |bits, code| bits << 1 | code >> 4 & 1)
        };
        out.extend((0..32).map(bits));
        codes.chunks(64).for_each(|codes| halves(codes, out));
    }
}

/// The scale of codes from -32 to 31 that approach 16 weights best, by trying scales around the obvious one
/// (`make_qx_quants`).
fn scale(weights: &[f32; 16]) -> f32 {
    const TOP: f32 = 32.0;
    let extreme = extreme(weights);
    if extreme.abs() < 1e-15 {
        return 0.0;
    }
    let sums = |inverse: f32| {
        weights.iter().fold((0.0f32, 0.0f32), |(lx, l2), x| {
            let l = nearest(inverse * x).clamp(-TOP, TOP - 1.0);
            let w = x * x;
            (lx + w * x * l, l2 + w * l * l)
        })
    };
    let (lx, l2) = sums(-TOP / extreme);
    let mut scale = if l2 > 0.0 { lx / l2 } else { 0.0 };
    let mut best = scale * lx;
    for step in (-9i8..=9).filter(|step| *step != 0) {
        let (lx, l2) = sums(-(TOP + 0.1 * f32::from(step)) / extreme);
        if l2 > 0.0 && lx * lx > best * l2 {
            scale = lx / l2;
            best = scale * lx;
        }
    }
    scale
}

fn q6_k(weights: &[f32], out: &mut Vec<u8>) {
    for weights in weights.as_chunks::<256>().0 {
        let groups = weights.as_chunks::<16>().0;
        let scales: Vec<f32> = groups.iter().map(scale).collect();
        let largest = extreme(&scales);
        let inverse = if largest.abs() < 1e-15 { 0.0 } else { -128.0 / largest };
        let d = f16::from_f32(if inverse == 0.0 { 0.0 } else { 1.0 / inverse });
        let scales: Vec<i8> = scales.iter().map(|scale| nearest(inverse * scale).min(127.0) as i8).collect();
        let group = |(weights, scale): (&[f32; 16], &i8)| {
            let scale = d.to_f32() * f32::from(*scale);
            weights.map(|x| if scale == 0.0 { 32 } else { (nearest(x / scale).clamp(-32.0, 31.0) + 32.0) as u8 })
        };
        let codes: Vec<u8> = groups.iter().zip(&scales).flat_map(group).collect();
        codes.chunks(128).for_each(|codes| halves(codes, out));
        for codes in codes.chunks(128) {
            let bits = |i: usize| {
                let high = codes.chunks(32).rev().filter_map(|part| part.get(i));
                high.fold(0u8, |bits, code| bits << 2 | code >> 4)
            };
            out.extend((0..32).map(bits));
        }
        out.extend(scales.iter().map(|scale| scale.cast_unsigned()));
        out.extend(d.to_le_bytes());
    }
}
