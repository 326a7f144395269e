//! Blocks of random bits that decode to numbers of a chosen size, in the formats that a mixture has.

/// A number format of GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    Q4K,
    Q6K,
    Q8_0,
}

impl Format {
    /// The number of the type in GGUF files.
    pub(crate) fn gguf_type(self) -> u32 {
        match self {
            Format::F32 => 0,
            Format::Q4K => 12,
            Format::Q6K => 14,
            Format::Q8_0 => 8,
        }
    }

    /// Weights and bytes of a block.
    pub(crate) fn block(self) -> (u64, u64) {
        match self {
            Format::F32 => (1, 4),
            Format::Q4K => (256, 144),
            Format::Q6K => (256, 210),
            Format::Q8_0 => (32, 34),
        }
    }
}

/// Marsaglia's xorshift64*: fast, and the same on every machine.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Between -1 and 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// Fills `blocks`, whole blocks of a quantised format, with weights around 0 of about the deviation `spread`.
    pub(crate) fn blocks(&mut self, format: Format, spread: f32, blocks: &mut [u8]) {
        self.fill(blocks);
        for block in blocks.chunks_exact_mut(format.block().1 as usize) {
            match format {
                // d * scale * code - m * minimum: scales and minima are 0 to 63 and codes 0 to 15, so with m = 7.5 d the
                // mean is 0 and the deviation 255 d.
                Format::Q4K => {
                    let d = spread / 255.0;
                    block[..2].copy_from_slice(&half(d));
                    block[2..4].copy_from_slice(&half(7.5 * d));
                }
                // d * scale * (code - 32): scales are made 1 to 64, codes are 0 to 63: a deviation of 690 d.
                Format::Q6K => {
                    block[192..208].iter_mut().for_each(|scale| *scale = (*scale & 63) + 1);
                    block[208..210].copy_from_slice(&half(spread / 690.0));
                }
                // d * code, codes are -128 to 127: a deviation of 74 d.
                Format::Q8_0 => block[..2].copy_from_slice(&half(spread / 74.0)),
                Format::F32 => {}
            }
        }
    }
}

/// The bytes of the nearest half float of a positive number in the range of normal ones, or of zero.
fn half(number: f32) -> [u8; 2] {
    let bits = number.to_bits();
    let rounded = (bits + 0x0fff + (bits >> 13 & 1)) >> 13;
    // The exponent's bias is 15 instead of 127; what is too small for that is zero.
    (rounded.saturating_sub((127 - 15) << 10) as u16).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_to_the_nearest() {
        for (number, bits) in [(1.0, 0x3c00), (0.5, 0x3800), (1.0 / 3.0, 0x3555), (65504.0, 0x7bff), (6.2e-5, 0x0410)] {
            assert_eq!(half(number), u16::to_le_bytes(bits), "{number}");
        }
    }

    #[test]
    fn noise_has_the_size_that_was_asked_for() {
        let mut noise = Noise::new(3);
        let mean: f32 = (0..10_000).map(|_| noise.unit()).sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 0.05, "{mean}");
        // The layouts are those of ggml's block_q4_K and block_q6_K.
        let mut block = vec![0; 210];
        let (mut squares, mut count) = (0.0, 0.0);
        for _ in 0..100 {
            noise.blocks(Format::Q6K, 0.02, &mut block);
            let d = f32::from(u16::from_le_bytes([block[208], block[209]]) & 0x3ff) / 1024.0 + 1.0;
            let d = d * 2f32.powi(i32::from(u16::from_le_bytes([block[208], block[209]]) >> 10) - 15);
            for index in 0..128usize {
                let code = i32::from(block[index] & 15) | i32::from(block[128 + index % 32] & 3) << 4;
                let weight = d * f32::from(block[192 + index / 16]) * (code - 32) as f32;
                squares += weight * weight;
                count += 1.0;
            }
        }
        let found = (squares / count).sqrt();
        assert!((found / 0.02 - 1.0).abs() < 0.15, "{found}");
    }
}
