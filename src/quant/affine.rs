//! MLX's affine groups: `GROUP` weights as `scale, bias: f16 or bf16, q: [u8]`; `w = scale * q + bias` with `q` of four
//! bits (two to a byte, the low nibble first) or eight (mlx `ops.cpp`, `affine_quantize`). In the files scales and biases
//! are tensors of their own; `src/format/packed` puts the blocks together.

use half::bf16;

use super::bits::half;
use super::{Format, Planes};

pub(super) const NIBBLES_32_F16: Format = nibbles::<32, false>("affine4_g32_f16", &[("GROUP", 32.0)]);
pub(super) const NIBBLES_64_F16: Format = nibbles::<64, false>("affine4_g64_f16", &[("GROUP", 64.0)]);
pub(super) const NIBBLES_128_F16: Format = nibbles::<128, false>("affine4_g128_f16", &[("GROUP", 128.0)]);
pub(super) const NIBBLES_32_BF16: Format = nibbles::<32, true>("affine4_g32_bf16", &[("GROUP", 32.0), BFLOAT]);
pub(super) const NIBBLES_64_BF16: Format = nibbles::<64, true>("affine4_g64_bf16", &[("GROUP", 64.0), BFLOAT]);
pub(super) const NIBBLES_128_BF16: Format = nibbles::<128, true>("affine4_g128_bf16", &[("GROUP", 128.0), BFLOAT]);
pub(super) const BYTES_32_F16: Format = bytes::<32, false>("affine8_g32_f16", &[("GROUP", 32.0)]);
pub(super) const BYTES_64_F16: Format = bytes::<64, false>("affine8_g64_f16", &[("GROUP", 64.0)]);
pub(super) const BYTES_128_F16: Format = bytes::<128, false>("affine8_g128_f16", &[("GROUP", 128.0)]);
pub(super) const BYTES_32_BF16: Format = bytes::<32, true>("affine8_g32_bf16", &[("GROUP", 32.0), BFLOAT]);
pub(super) const BYTES_64_BF16: Format = bytes::<64, true>("affine8_g64_bf16", &[("GROUP", 64.0), BFLOAT]);
pub(super) const BYTES_128_BF16: Format = bytes::<128, true>("affine8_g128_bf16", &[("GROUP", 128.0), BFLOAT]);

/// The shader reads scale and bias as bf16.
const BFLOAT: (&str, f64) = ("BFLOAT", 1.0);

/// Bytes of scale and bias.
const HEAD: usize = 4;

type Numbers = &'static [(&'static str, f64)];

const fn nibbles<const GROUP: usize, const BF16: bool>(name: &'static str, numbers: Numbers) -> Format {
    let block_bytes = HEAD.saturating_add(GROUP / 2);
    Format {
        name,
        gguf_type: None,
        block_weights: GROUP,
        block_bytes,
        decode: decode_nibbles::<GROUP, BF16>,
        planes: Planes::split(HEAD..block_bytes, 0).with_numbers(numbers),
        shader: wgsl!("quant/affine4.wgsl"),
    }
}

const fn bytes<const GROUP: usize, const BF16: bool>(name: &'static str, numbers: Numbers) -> Format {
    let block_bytes = HEAD.saturating_add(GROUP);
    Format {
        name,
        gguf_type: None,
        block_weights: GROUP,
        block_bytes,
        decode: decode_bytes::<GROUP, BF16>,
        planes: Planes::split(HEAD..block_bytes, 0).with_numbers(numbers),
        shader: wgsl!("quant/affine8.wgsl"),
    }
}

/// Scale and bias, and the numbers behind them.
fn parts<const BF16: bool>(block: &[u8]) -> Option<(f32, f32, &[u8])> {
    let ([s0, s1, b0, b1], q) = block.split_first_chunk::<HEAD>()?;
    let float = |raw: [u8; 2]| if BF16 { bf16::from_le_bytes(raw).to_f32() } else { half(raw) };
    Some((float([*s0, *s1]), float([*b0, *b1]), q))
}

fn decode_nibbles<const GROUP: usize, const BF16: bool>(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.chunks_exact(HEAD.saturating_add(GROUP / 2)).zip(out.chunks_exact_mut(GROUP)) {
        let Some((scale, bias, q)) = parts::<BF16>(block) else { continue };
        for ([low, high], q) in weights.as_chunks_mut::<2>().0.iter_mut().zip(q) {
            *low = scale * f32::from(q & 15) + bias;
            *high = scale * f32::from(q >> 4) + bias;
        }
    }
}

fn decode_bytes<const GROUP: usize, const BF16: bool>(bytes: &[u8], out: &mut [f32]) {
    for (block, weights) in bytes.chunks_exact(HEAD.saturating_add(GROUP)).zip(out.chunks_exact_mut(GROUP)) {
        let Some((scale, bias, q)) = parts::<BF16>(block) else { continue };
        for (weight, q) in weights.iter_mut().zip(q) {
            *weight = scale * f32::from(*q) + bias;
        }
    }
}
