//! What is done to the elements of rows between products: sums, norms, softmax, gates, mixtures of rows.

use wide::f32x4;

/// Sums that run side by side: enough to hide an addition's latency, and each sum stays short and so exact.
const SUMS: usize = 4;
const WIDTH: usize = 4 * SUMS;

/// `sum_i a[i] * b[i]`.
#[inline]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [f32x4::ZERO; SUMS];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<WIDTH>(), b.as_chunks::<WIDTH>());
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a.as_chunks::<4>().0).zip(b.as_chunks::<4>().0) {
            *sum += f32x4::new(*a) * f32x4::new(*b);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let [a, b, c, d] = ((sums[0] + sums[1]) + (sums[2] + sums[3])).to_array();
    (a + b) + (c + d) + rest
}

/// `y = x / sqrt(mean(x^2) + eps) * weight` of as many elements as `x` has; without a weight, by 1.
pub fn rms_norm(x: &mut [f32], weight: Option<&[f32]>, eps: f32) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    match weight {
        Some(weight) => x.iter_mut().zip(weight).for_each(|(x, weight)| *x = *x * scale * weight),
        None => x.iter_mut().for_each(|x| *x *= scale),
    }
}

/// `exp` of every element, in place.
#[inline(always)]
fn map(x: &mut [f32], work: impl Fn(f32x4) -> f32x4) {
    let (chunks, rest) = x.as_chunks_mut::<4>();
    for chunk in chunks {
        *chunk = work(f32x4::new(*chunk)).to_array();
    }
    for x in rest {
        *x = work(f32x4::splat(*x)).to_array()[0];
    }
}

/// `exp(s - max) / sum`, in place; the sink takes part in maximum and sum.
pub fn softmax(scores: &mut [f32], sink: Option<f32>) {
    let max = scores.iter().copied().chain(sink).fold(f32::NEG_INFINITY, f32::max);
    map(scores, |scores| (scores - f32x4::splat(max)).exp());
    let mut sum = sink.map_or(0.0, |sink| f64::from((sink - max).exp()));
    for score in scores.iter() {
        sum += f64::from(*score);
    }
    let factor = (1.0 / sum) as f32;
    scores.iter_mut().for_each(|score| *score *= factor);
}

/// `x / (1 + exp(-x))` of every element, in place.
pub fn silu(x: &mut [f32]) {
    map(x, |x| x / (f32x4::ONE + (-x).exp()));
}

/// `a * b`, into `a`.
pub fn multiply(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
}

/// `a + b`.
pub fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// Adds `factor * x` to `y`.
#[inline]
pub fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += factor * x);
}

/// `scale * q k^T` for the part at `start` of every row of `keys (scores, width)`.
pub fn scores(q: &[f32], keys: &[f32], (width, start): (usize, usize), scale: f32, scores: &mut [f32]) {
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(width)) {
        *score = scale * dot(q, &key[start..start + q.len()]);
    }
}

/// Adds the parts at `start` of the rows of `values (scores, width)`, each times its score.
pub fn mix(scores: &[f32], values: &[f32], (width, start): (usize, usize), out: &mut [f32]) {
    for (score, value) in scores.iter().zip(values.chunks_exact(width)) {
        add_scaled(out, *score, &value[start..start + out.len()]);
    }
}

/// Turns pairs `(step * i, step * i + apart)` of a head by angles of which cosine and sine are given.
pub fn rotate(head: &mut [f32], angles: &[(f32, f32)], (step, apart): (usize, usize)) {
    if step == 1 {
        let (a, b) = head.split_at_mut(apart);
        for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(angles) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
        return;
    }
    for (pair, (cos, sin)) in head.chunks_exact_mut(step).zip(angles) {
        let (a, b) = (pair[0], pair[apart]);
        (pair[0], pair[apart]) = (a * cos - b * sin, b * cos + a * sin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    #[test]
    fn dot_of_odd_lengths() {
        for len in [0, 1, 15, 16, 17, 100, 1000] {
            let (a, mut b) = (numbers(len), numbers(len));
            b.reverse();
            let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot(&a, &b)) - exact).abs() < 1e-5, "{len}");
        }
    }

    #[test]
    fn softmax_and_silu_are_what_their_definitions_say() {
        for len in [1, 3, 4, 7, 64] {
            let x: Vec<f32> = numbers(len).iter().map(|x| 30.0 * x).collect();
            for sink in [None, Some(3.5)] {
                let mut found = x.clone();
                softmax(&mut found, sink);
                let sum: f64 = x.iter().copied().chain(sink).map(|x| f64::from(x).exp()).sum();
                for (found, x) in found.iter().zip(&x) {
                    let expected = f64::from(*x).exp() / sum;
                    assert!((f64::from(*found) - expected).abs() <= 1e-6 * expected + 1e-12, "{x}: {found}");
                }
            }
            let mut found = x.clone();
            silu(&mut found);
            for (found, x) in found.iter().zip(&x) {
                let expected = f64::from(*x) / (1.0 + (-f64::from(*x)).exp());
                assert!((f64::from(*found) - expected).abs() <= 1e-6 * expected.abs() + 1e-12, "{x}: {found}");
            }
        }
        let mut extreme = [1000.0, -1000.0, 0.0, f32::NAN];
        silu(&mut extreme);
        assert_eq!(extreme[..3], [1000.0, 0.0, 0.0]);
        assert!(extreme[3].is_nan());
    }
}
