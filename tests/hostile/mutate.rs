//! Damages files in ways that parsers mind: lengths, counts and offsets. The sequence is fixed by its seed.

/// A sequence of numbers that look random (the generator of Knuth's MMIX, its upper half).
pub(crate) struct Sequence(u64);

/// Numbers at which arithmetic goes wrong.
const EDGES: &[u64] =
    &[0, 1, 2, 7, 31, 64, 127, 255, 65_535, 1 << 31, 1 << 32, 1 << 61, 1 << 63, u64::MAX - 31, u64::MAX];

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    /// Changes `bytes` in one to four places.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let start = self.below(bytes.len().max(1));
            let end = (start + self.below(24)).min(bytes.len());
            match self.below(5) {
                0 => {
                    let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                    let width = 1 << self.below(4);
                    bytes.iter_mut().skip(start).zip(&edge[..width]).for_each(|(byte, edge)| *byte = *edge);
                }
                1 => drop(bytes.drain(start..end)),
                2 => {
                    let copy = bytes[start..end].to_vec();
                    let place = self.below(bytes.len() + 1);
                    bytes.splice(place..place, copy);
                }
                3 => bytes.truncate(end),
                _ => {
                    let bits = self.below(255) as u8 + 1;
                    bytes.iter_mut().skip(start).take(1).for_each(|byte| *byte ^= bits);
                }
            }
        }
    }
}
