//! Rows of activations as integers of 16 bits in groups of 32.
//!
//! SIMD128's dot product, as SSE2's, takes 16-bit integers: 8 bits, as ggml has them, would save nothing and cost digits.

use wide::{f32x4, i16x8};

use crate::LANES;

/// Elements that share a scale.
pub(crate) const GROUP: usize = 32;
/// Elements whose sum is kept, for formats with addends.
pub(crate) const SUMMED: usize = 16;

const LARGEST: f32 = 32767.0;

/// Tokens that are multiplied together.
pub(crate) struct Panel<'a> {
    /// One token: 8 of its elements each. Several: a pair of elements of each of [`LANES`] tokens.
    pub(crate) codes: &'a [i16x8],
    /// Of each group, for every token of the panel.
    pub(crate) scales: &'a [f32x4],
    /// Of each [`SUMMED`] elements, for every token of the panel.
    pub(crate) sums: &'a [f32x4],
}

/// Rows `(tokens, cols)`, `x[i] = scale * code[i]`.
pub struct Activations {
    pub(crate) tokens: usize,
    pub(crate) cols: usize,
    codes: Vec<i16x8>,
    scales: Vec<f32x4>,
    sums: Vec<f32x4>,
}

impl Activations {
    /// Rounds rows of `cols` elements, whole groups of 32. What is no finite number makes its group no numbers.
    pub fn new(x: &[f32], cols: usize) -> Self {
        debug_assert_eq!(cols % GROUP, 0);
        let tokens = x.len() / cols;
        let panels = tokens.div_ceil(LANES);
        let mut made = Self {
            tokens,
            cols,
            codes: vec![i16x8::default(); if tokens == 1 { cols / 8 } else { panels * cols / 2 }],
            scales: vec![f32x4::ZERO; panels * cols / GROUP],
            sums: vec![f32x4::ZERO; panels * cols / SUMMED],
        };
        for (token, x) in x.chunks_exact(cols).enumerate() {
            for (group, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
                made.write(token, group, x);
            }
        }
        made
    }

    /// Whether there is a single token, whose elements lie one after another.
    pub(crate) fn is_one(&self) -> bool {
        self.tokens == 1
    }

    fn write(&mut self, token: usize, group: usize, x: &[f32; GROUP]) {
        let (scale, codes) = round(x);
        let (panel, lane) = (token / LANES, token % LANES);
        let at = panel * (self.cols / GROUP) + group;
        let sums = codes.as_chunks::<SUMMED>().0.iter().map(|codes| {
            let sum: i32 = codes.iter().map(|code| i32::from(*code)).sum();
            sum as f32 * scale
        });
        let is_one = self.is_one();
        let to = self.sums[2 * at..][..2].iter_mut();
        if is_one {
            self.scales[at] = f32x4::splat(scale);
            to.zip(sums).for_each(|(to, sum)| *to = f32x4::splat(sum));
            for (to, codes) in self.codes[group * (GROUP / 8)..].iter_mut().zip(codes.as_chunks::<8>().0) {
                *to = i16x8::new(*codes);
            }
        } else {
            self.scales[at].as_mut_array()[lane] = scale;
            to.zip(sums).for_each(|(to, sum)| to.as_mut_array()[lane] = sum);
            for (to, pair) in self.codes[at * (GROUP / 2)..].iter_mut().zip(codes.as_chunks::<2>().0) {
                to.as_mut_array()[2 * lane..][..2].copy_from_slice(pair);
            }
        }
    }

    pub(crate) fn n_panels(&self) -> usize {
        self.tokens.div_ceil(LANES)
    }

    pub(crate) fn panel(&self, index: usize) -> Panel<'_> {
        fn part<T>(all: &[T], index: usize, len: usize) -> &[T] {
            &all[index * len..][..len]
        }
        let codes = if self.is_one() { self.cols / 8 } else { self.cols / 2 };
        Panel {
            codes: part(&self.codes, index, codes),
            scales: part(&self.scales, index, self.cols / GROUP),
            sums: part(&self.sums, index, self.cols / SUMMED),
        }
    }
}

fn round(x: &[f32; GROUP]) -> (f32, [i16; GROUP]) {
    // A product with 0 is 0 but for what is no finite number.
    let (mut largest, mut finite) = (f32x4::ZERO, f32x4::ZERO);
    for x in x.as_chunks::<4>().0 {
        let x = f32x4::new(*x);
        largest = largest.fast_max(x.abs());
        finite += x * f32x4::ZERO;
    }
    let largest = largest.to_array().into_iter().fold(0.0, f32::max);
    let scale = largest / LARGEST;
    let inverse = if scale > f32::MIN_POSITIVE { LARGEST / largest } else { 0.0 };
    let mut codes = [0; GROUP];
    for (x, codes) in x.as_chunks::<4>().0.iter().zip(codes.as_chunks_mut::<4>().0) {
        *codes = (f32x4::new(*x) * f32x4::splat(inverse)).fast_round_int().to_array().map(|code| code as i16);
    }
    (scale + finite.reduce_add(), codes)
}
