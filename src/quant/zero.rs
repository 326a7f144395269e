//! Groups with a zero point, as GPTQ and AWQ have them (arXiv 2210.17323, 2306.00978): `w = scale * (q - zero)`.
//!
//! A block is `scale: f16, zero: u8, q: [u8]`, of four bits (two to a byte, the low nibble first) or eight. Of groups of
//! 32 nibbles two are one block, `scales: [f16; 2], zeros: u8, q: [u8; 32]` with a nibble for each zero point, which makes
//! it as large as the files' own tensors. Of groups that are whole rows blocks of 32 repeat scale and zero point, which are
//! kept once a row. `src/format/packed` puts the blocks together.

use super::bits::half;
use super::{Format, Planes, Shared};

pub(super) const NIBBLES_32: Format = Format {
    name: "zero4_g32",
    gguf_type: None,
    block_weights: 64,
    block_bytes: 37,
    decode: decode_pairs,
    planes: Planes::split(5..37, 0).with_numbers(&[("BLOCK", 64.0), ("PAIR", 1.0)]),
    shader: wgsl!("quant/zero4.wgsl"),
};
pub(super) const NIBBLES_64: Format = nibbles::<64>("zero4_g64", &[("BLOCK", 64.0)]);
pub(super) const NIBBLES_128: Format = nibbles::<128>("zero4_g128", &[("BLOCK", 128.0)]);
pub(super) const BYTES_32: Format = bytes::<32>("zero8_g32", &[("BLOCK", 32.0)]);
pub(super) const BYTES_64: Format = bytes::<64>("zero8_g64", &[("BLOCK", 64.0)]);
pub(super) const BYTES_128: Format = bytes::<128>("zero8_g128", &[("BLOCK", 128.0)]);

pub(super) const NIBBLES_ROW: Format = rows(nibbles::<32>("zero4_row", ROWWISE));
pub(super) const BYTES_ROW: Format = rows(bytes::<32>("zero8_row", ROWWISE));

const ROWWISE: Numbers = &[("BLOCK", 32.0), ("ROWWISE", 1.0)];

/// The same where all blocks of a row have one scale and one zero point.
const fn rows(format: Format) -> Format {
    let Format { name, gguf_type, block_weights, block_bytes, decode, planes, shader } = format;
    let planes = planes.with_shared(Shared::ROW);
    Format { name, gguf_type, block_weights, block_bytes, decode, planes, shader }
}

/// Bytes of a scale and a zero point.
const HEAD: usize = 3;

type Numbers = &'static [(&'static str, f64)];

const fn nibbles<const GROUP: usize>(name: &'static str, numbers: Numbers) -> Format {
    let block_bytes = HEAD.saturating_add(GROUP / 2);
    Format {
        name,
        gguf_type: None,
        block_weights: GROUP,
        block_bytes,
        decode: decode_nibbles::<GROUP>,
        planes: Planes::split(HEAD..block_bytes, 0).with_numbers(numbers),
        shader: wgsl!("quant/zero4.wgsl"),
    }
}

const fn bytes<const GROUP: usize>(name: &'static str, numbers: Numbers) -> Format {
    let block_bytes = HEAD.saturating_add(GROUP);
    Format {
        name,
        gguf_type: None,
        block_weights: GROUP,
        block_bytes,
        decode: decode_bytes::<GROUP>,
        planes: Planes::split(HEAD..block_bytes, 0).with_numbers(numbers),
        shader: wgsl!("quant/zero8.wgsl"),
    }
}

fn group(scale: f32, zero: u8, q: &[u8], weights: &mut [f32]) {
    let zero = f32::from(zero);
    for ([low, high], q) in weights.as_chunks_mut::<2>().0.iter_mut().zip(q) {
        *low = scale * (f32::from(q & 15) - zero);
        *high = scale * (f32::from(q >> 4) - zero);
    }
}

fn decode_pairs(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.as_chunks::<37>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        let Some(([a0, a1, b0, b1, zeros], q)) = block.split_first_chunk::<5>() else { continue };
        let (first, second) = weights.split_at_mut(32);
        let (q_first, q_second) = q.split_at(16);
        group(half([*a0, *a1]), zeros & 15, q_first, first);
        group(half([*b0, *b1]), zeros >> 4, q_second, second);
    }
}

fn decode_nibbles<const GROUP: usize>(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.chunks_exact(HEAD.saturating_add(GROUP / 2)).zip(out.chunks_exact_mut(GROUP)) {
        let Some(([s0, s1, zero], q)) = block.split_first_chunk::<HEAD>() else { continue };
        group(half([*s0, *s1]), *zero, q, weights);
    }
}

fn decode_bytes<const GROUP: usize>(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.chunks_exact(HEAD.saturating_add(GROUP)).zip(out.chunks_exact_mut(GROUP)) {
        let Some(([s0, s1, zero], q)) = block.split_first_chunk::<HEAD>() else { continue };
        let (scale, zero) = (half([*s0, *s1]), f32::from(*zero));
        for (weight, q) in weights.iter_mut().zip(q) {
            *weight = scale * (f32::from(*q) - zero);
        }
    }
}
