//! The tokenizer of the demo model, filled up to any vocabulary: what it does not know are tokens that no text has.

use anyhow::{Context, Result, bail};

use super::gguf::{pair, text};
use crate::paths;

const DONOR: &str = "www/models/tiny-assistant/tiny-assistant-q4_0.gguf";
const ARRAY: u32 = 9;
const TEXT: u32 = 8;
/// `LLAMA_TOKEN_TYPE_UNUSED`.
const UNUSED: i32 = 5;

/// The `tokenizer.*` keys of a file with `vocab` tokens.
pub(super) fn keys(vocab: usize) -> Result<Vec<Vec<u8>>> {
    let path = paths::at(DONOR);
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut reader = Reader { bytes: &bytes, at: 0 };
    reader.take(4 + 4 + 8)?;
    let n_keys = reader.u64()?;
    let mut keys = vec![];
    for _ in 0..n_keys {
        let key = reader.text()?;
        let value_type = reader.u32()?;
        let start = reader.at;
        reader.skip(value_type)?;
        let value = &bytes[start..reader.at];
        match key.as_str() {
            "tokenizer.ggml.tokens" => {
                let filler = |index: usize| text(&format!("[PAD{index}]"));
                keys.push(pair(&key, ARRAY, &filled(value, vocab, filler)?));
            }
            "tokenizer.ggml.token_type" => {
                keys.push(pair(&key, ARRAY, &filled(value, vocab, |_| UNUSED.to_le_bytes().to_vec())?));
            }
            key if key.starts_with("tokenizer.") => keys.push(pair(key, value_type, value)),
            _ => {}
        }
    }
    Ok(keys)
}

/// An array with items of `filler` after its own, `count` in all.
fn filled(array: &[u8], count: usize, filler: impl Fn(usize) -> Vec<u8>) -> Result<Vec<u8>> {
    let mut reader = Reader { bytes: array, at: 0 };
    let (item_type, own) = (reader.u32()?, reader.u64()? as usize);
    if own > count {
        bail!("a vocabulary of {count} has no room for {own} tokens");
    }
    let mut filled = [&item_type.to_le_bytes()[..], &(count as u64).to_le_bytes(), &array[reader.at..]].concat();
    (own..count).for_each(|index| filled.extend(filler(index)));
    Ok(filled)
}

/// A cursor over a header of our own making.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let taken =
            self.at.checked_add(len).and_then(|end| self.bytes.get(self.at..end)).context("a header cut short")?;
        self.at += len;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into()?))
    }

    fn text(&mut self) -> Result<String> {
        let len = self.u64()? as usize;
        Ok(std::str::from_utf8(self.take(len)?)?.to_owned())
    }

    /// Passes a value of a type.
    fn skip(&mut self, value_type: u32) -> Result<()> {
        match value_type {
            0 | 1 | 7 => drop(self.take(1)?),
            2 | 3 => drop(self.take(2)?),
            4..=6 => drop(self.take(4)?),
            10..=12 => drop(self.take(8)?),
            TEXT => drop(self.text()?),
            ARRAY => {
                let (item_type, count) = (self.u32()?, self.u64()?);
                for _ in 0..count {
                    self.skip(item_type)?;
                }
            }
            other => bail!("a value of type {other}"),
        }
        Ok(())
    }
}
