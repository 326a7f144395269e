//! The rewriting table that SentencePiece models carry: `[u32 bytes of the trie][trie: u32 ...][texts, each ended by a zero]`.
//!
//! The crate follows the trie without looking where it leads; what comes from a file is looked at here first.

use super::malformed;
use crate::error::Result;

/// One unit of the double array (Yata's darts-clone), as its users read it.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn is_value(self) -> bool {
        self.0 >> 31 == 1
    }

    fn value(self) -> usize {
        (self.0 & 0x7fff_ffff) as usize
    }

    fn has_leaf(self) -> bool {
        (self.0 >> 8) & 1 == 1
    }

    fn offset(self) -> u64 {
        u64::from(self.0 >> 10) << ((self.0 & (1 << 9)) >> 6)
    }
}

/// Fails with `MalformedTokenizer` where a walk through the trie could leave it, or a rewriting is none of the texts.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let outside = || malformed("the table of rewritings is cut short");
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or_else(outside)?;
    let size = usize::try_from(u32::from_le_bytes(*size)).map_err(|_| outside())?;
    let (trie, texts) = rest.split_at_checked(size).ok_or_else(outside)?;
    let (units, odd) = trie.as_chunks::<4>();
    if units.is_empty() || !odd.is_empty() {
        return Err(outside());
    }
    let texts = std::str::from_utf8(texts).map_err(|_| malformed("the rewritings are not UTF-8"))?;
    let at = |place: u64| {
        let unit = usize::try_from(place).ok().and_then(|place| units.get(place));
        unit.map(|raw| Unit(u32::from_le_bytes(*raw)))
    };
    for (place, raw) in (0u64..).zip(units) {
        let unit = Unit(u32::from_le_bytes(*raw));
        if unit.is_value() {
            continue;
        }
        // Whatever byte comes next: its unit lies among the 256 from here.
        let base = place ^ unit.offset();
        if at(base | 0xff).is_none() {
            return Err(malformed(format!("unit {place} of the rewritings leads outside")));
        }
        if unit.has_leaf() {
            let leaf = at(base).map_or(usize::MAX, Unit::value);
            if !texts.is_char_boundary(leaf) {
                return Err(malformed(format!("unit {place} of the rewritings names no text")));
            }
        }
    }
    Ok(())
}

/// [`check`] for the same in base64, as `tokenizer.json` has it; what is no base64 is left to its parser.
pub(super) fn check_base64(text: &str) -> Result<()> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte.wrapping_sub(b'A')),
        b'a'..=b'z' => Some(byte.wrapping_sub(b'a').wrapping_add(26)),
        b'0'..=b'9' => Some(byte.wrapping_sub(b'0').wrapping_add(52)),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len());
    let digits: Vec<u8> = text.bytes().filter_map(digit).collect();
    for four in digits.chunks(4) {
        let place = |index: usize| u32::from(four.get(index).copied().unwrap_or(0));
        let bits = place(0) << 18 | place(1) << 12 | place(2) << 6 | place(3);
        let [_, whole @ ..] = bits.to_be_bytes();
        bytes.extend(whole.iter().take(four.len().saturating_sub(1)));
    }
    check(&bytes)
}
