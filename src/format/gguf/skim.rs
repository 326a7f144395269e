//! The header of a file that is far away and only looked at, without its long lists.
//!
//! A vocabulary is megabytes, and a list of texts tells its number of items, not its bytes. So its end is looked for: a list
//! of texts shows itself anywhere in it (lengths that lead to lengths), and nothing else of a header does. What stands
//! behind the list is at least four bytes for each of its tokens (their types), so steps of that width cannot pass over it into the next
//! list. Where a file is made otherwise than converters make it, this gives up, and the header is read whole. Nothing rests
//! on what is found so: a load reads the whole header.

use super::super::limits::GGUF_KEY_BYTES;
use super::reader::{Reader, Step, Stop};
use super::{MAGIC, header, malformed};
use crate::error::Result;
use crate::source::Source;

/// Longer lists are passed over.
const MANY_ITEMS: u64 = 4096;
/// What is read at once to walk, and to see where one is.
const WALK_BYTES: u64 = 16 << 10;
const PROBE_BYTES: u64 = 2 << 10;
/// Texts of vocabularies are short.
const ITEM_BYTES: u64 = 1024;
/// So many lengths that lead to lengths are no accident.
const CHAIN: usize = 16;
/// Steps to pass over a list: eight take one of short texts.
const STEPS: usize = 32;
/// Longer headers are read whole.
const MOST_BYTES: u64 = 1 << 20;
/// What keys begin with that stand behind a list.
const KEYS: &[&str] = &["tokenizer.", "general.", "split.", "quantize."];

/// Bytes of a header without the items of its long lists, which then have none.
#[derive(Default)]
pub(super) struct Skimmed {
    pub(super) bytes: Vec<u8>,
    /// How many bytes were left out.
    pub(super) skipped: u64,
    /// The keys of the lists.
    pub(super) keys: Vec<String>,
}

/// What comes next in the file, by the first bytes of a pair.
enum Next {
    /// A pair of that many bytes.
    Pair(u64),
    /// A list: bytes before its items, items, and the bytes of each where they are all the same.
    List { key: String, head: u64, items: u64, item_bytes: Option<u64> },
}

/// Reads the pairs of a header, leaving long lists out; the table of tensors is still to be read behind [`Skimmed::bytes`].
/// `None` where the file is not made as expected.
pub(super) async fn skim(source: &dyn Source) -> Result<Option<Skimmed>> {
    let mut file = Window { source, from: 0, bytes: Vec::new() };
    let start = file.show(0, 24, WALK_BYTES).await?;
    let mut reader = Reader::new(&start, 24);
    let counts = reader.take((MAGIC.len() as u64).saturating_add(4)).and_then(|_| Ok((reader.u64()?, reader.u64()?)));
    let Ok((_, n_keys)) = counts else { return Ok(None) };
    let mut skimmed = Skimmed { bytes: start, skipped: 0, keys: Vec::new() };
    let mut at = 24_u64;
    for _ in 0..n_keys {
        let Some(next) = file.next(at).await? else { return Ok(None) };
        let (copied, end) = match next {
            Next::Pair(len) => (len, at.saturating_add(len)),
            Next::List { key, head, items, item_bytes } => {
                let first = at.saturating_add(head);
                let end = match item_bytes {
                    Some(bytes) => Some(first.saturating_add(items.saturating_mul(bytes))),
                    None => file.end_of_texts(first, items).await?,
                };
                let Some(end) = end.filter(|end| *end <= source.size_bytes()) else { return Ok(None) };
                skimmed.keys.push(key);
                skimmed.skipped = skimmed.skipped.saturating_add(end.saturating_sub(first));
                (head, end)
            }
        };
        let part = file.show(at, copied, WALK_BYTES).await?;
        skimmed.bytes.extend(&part);
        if end != at.saturating_add(copied) {
            // The number of items stands last.
            let count = skimmed.bytes.len().saturating_sub(8);
            skimmed.bytes.truncate(count);
            skimmed.bytes.extend([0; 8]);
        }
        at = end;
        if skimmed.bytes.len() as u64 > MOST_BYTES {
            return Ok(None);
        }
    }
    Ok(Some(skimmed))
}

/// A part of the file that was read last.
struct Window<'a> {
    source: &'a dyn Source,
    from: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// `len` bytes, fewer at the end of the file; so many are read at once where they have to be.
    async fn show(&mut self, at: u64, len: u64, read_bytes: u64) -> Result<Vec<u8>> {
        let size = self.source.size_bytes();
        let end = at.saturating_add(len).min(size);
        if at < self.from || end > self.from.saturating_add(self.bytes.len() as u64) {
            let most = len.max(read_bytes).min(size.saturating_sub(at)).min(MOST_BYTES);
            self.bytes = self.source.read(at, usize::try_from(most).unwrap_or_default()).await?;
            self.from = at;
        }
        let start = usize::try_from(at.saturating_sub(self.from)).unwrap_or(usize::MAX);
        let rest = self.bytes.get(start..).unwrap_or_default();
        let len = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
        Ok(rest.get(..len.min(rest.len())).unwrap_or_default().to_vec())
    }

    /// What stands at `at`.
    async fn next(&mut self, at: u64) -> Result<Option<Next>> {
        let mut len = PROBE_BYTES;
        loop {
            let bytes = self.show(at, len, WALK_BYTES).await?;
            match next(&bytes, self.source.size_bytes().saturating_sub(at)) {
                Ok(next) => return Ok(Some(next)),
                Err(Stop::Short { needed }) if needed > len && needed <= MOST_BYTES => {
                    len = needed.max(len.saturating_mul(2));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Where a list of texts ends that begins at `first`.
    async fn end_of_texts(&mut self, first: u64, items: u64) -> Result<Option<u64>> {
        let step = items.saturating_mul(4).saturating_sub(PROBE_BYTES);
        let mut inside = first;
        let mut steps = 0_usize;
        let mut outside = loop {
            let place = inside.saturating_add(step).min(self.source.size_bytes());
            if start_of_chain(&self.show(place, PROBE_BYTES, 0).await?).is_none() {
                break place;
            }
            (inside, steps) = (place, steps.saturating_add(1));
            if steps == STEPS {
                return Ok(None);
            }
        };
        while outside.saturating_sub(inside) > 2 * PROBE_BYTES {
            let middle = inside.midpoint(outside);
            match start_of_chain(&self.show(middle, PROBE_BYTES, 0).await?) {
                Some(_) => inside = middle,
                None => outside = middle,
            }
        }
        let bytes = self.show(inside, 4 * PROBE_BYTES, WALK_BYTES).await?;
        let Some(mut at) = start_of_chain(&bytes) else { return Ok(None) };
        while let Some((text, next)) = item(&bytes, at, 0) {
            let is_key = std::str::from_utf8(text).is_ok_and(|text| KEYS.iter().any(|key| text.starts_with(key)));
            if is_key {
                return Ok(Some(inside.saturating_add(at as u64)));
            }
            at = next;
        }
        Ok(None)
    }
}

/// A pair by its first bytes.
fn next(bytes: &[u8], file_left: u64) -> Step<Next> {
    let mut reader = Reader::new(bytes, file_left);
    let key = reader.text("a key", GGUF_KEY_BYTES)?.to_owned();
    let value_type = reader.u32()?;
    if value_type != header::ARRAY_TYPE {
        header::scalar(&mut reader, value_type)?;
        return Ok(Next::Pair(reader.position()));
    }
    let item_type = reader.u32()?;
    let items = reader.u64()?;
    let head = reader.position();
    let item_bytes = header::scalar_bytes(item_type);
    if items > MANY_ITEMS && item_type != header::ARRAY_TYPE {
        return Ok(Next::List { key, head, items, item_bytes });
    }
    match item_bytes {
        Some(bytes) => drop(reader.take(items.saturating_mul(bytes))?),
        None if items > MANY_ITEMS => return Err(malformed("long lists inside a list").into()),
        None => {
            for _ in 0..items {
                header::scalar(&mut reader, item_type)?;
            }
        }
    }
    Ok(Next::Pair(reader.position()))
}

/// The text at a place, of at least `least` bytes, and the place behind it.
fn item(bytes: &[u8], at: usize, least: u64) -> Option<(&[u8], usize)> {
    let start = at.checked_add(8)?;
    let len = u64::from_le_bytes(bytes.get(at..start)?.try_into().ok()?);
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    ((least..=ITEM_BYTES).contains(&len)).then_some((bytes.get(start..end)?, end))
}

/// Where in a window items of a list of texts begin to follow each other.
fn start_of_chain(bytes: &[u8]) -> Option<usize> {
    // An item begins at the latest behind one of the longest.
    (0..bytes.len().min(usize::try_from(ITEM_BYTES).unwrap_or(usize::MAX))).find(|start| {
        let mut at = *start;
        (0..CHAIN).all(|_| match item(bytes, at, 1) {
            Some((_, next)) => {
                at = next;
                true
            }
            None => false,
        })
    })
}
