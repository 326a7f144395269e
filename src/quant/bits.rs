//! Small numbers out of packed bytes, as most block formats have them.

use half::f16;

use super::widen;

/// `N` numbers of `width` bits: the bytes are taken in runs of `span`, and of each run first the lowest bits of every
/// byte, then the next ones. With a span of 1 the numbers of a byte follow each other.
pub(super) fn unpack<const N: usize>(bytes: &[u8], width: u32, span: usize) -> [u8; N] {
    let mask = u8::MAX.unbounded_shr(u8::BITS.saturating_sub(width));
    let shifts = || (0..u8::BITS).step_by(width as usize);
    let mut numbers = [0; N];
    for (bytes, numbers) in bytes.chunks(span).zip(numbers.chunks_mut(span.saturating_mul(shifts().len()))) {
        for (shift, numbers) in shifts().zip(numbers.chunks_mut(span)) {
            for (number, byte) in numbers.iter_mut().zip(bytes) {
                *number = byte.unbounded_shr(shift) & mask;
            }
        }
    }
    numbers
}

/// A float of 16 bits, widened.
pub(super) fn half(bytes: [u8; 2]) -> f32 {
    widen(f16::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::unpack;

    #[test]
    fn runs_give_their_low_bits_first() {
        assert_eq!(unpack::<8>(&[0x21, 0x43, 0x65, 0x87], 4, 2), [1, 3, 2, 4, 5, 7, 6, 8]);
        assert_eq!(unpack::<8>(&[0b11_10_01_00, 0b00_01_10_11], 2, 1), [0, 1, 2, 3, 3, 2, 1, 0]);
        assert_eq!(unpack::<8>(&[0b1010_0110], 1, 1), [0, 1, 1, 0, 0, 1, 0, 1]);
    }
}
