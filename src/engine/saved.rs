//! Keys and values of a prompt as bytes, so that a conversation goes on later without computing them again.
//!
//! ```text
//! "HWKV" | version u32 | number of tokens u32 | scale of the adapter f64, 0 without one | key | the tokens, u32 each | hash of all before
//! then for each page: its positions' bytes, layer by layer, keys before values | hash of the hash before and these bytes
//! ```
//!
//! Numbers are little-endian, hashes SHA-256. Keys and values say nothing by themselves of what they belong to, so the key does,
//! a hash too: of the model, the adapter, the format and the kind of backend. Under another key they are computed anew. Nothing
//! is given to a sequence before its hash was compared. Pages pass one at a time, in both directions.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::adapters::{AdapterChoice, ScaledAdapter};
use super::info::Runtime;
use super::loaded::Loaded;
use super::session::Session;
use crate::cache::{Pages, Sequence};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterUse, PAGE_TOKENS};
use crate::source::Source;

const MAGIC: [u8; 4] = *b"HWKV";
/// Of the layout above, and of how backends keep keys and values.
const VERSION: u32 = 1;
/// Magic, version, number, scale and key.
const START: usize = 20 + HASH;
const HASH: usize = 32;
/// Tokens of a file, at most.
const MAX_TOKENS: usize = 1 << 22;

/// What came of restoring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Tokens whose keys and values are there now.
    pub tokens: usize,
    /// Why it is none of them, or not all: they are computed with the next reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

type Hash = [u8; HASH];

fn hash(parts: &[&[u8]]) -> Hash {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

/// What keys and values are bound to. `adapter` is the hash of the one that was used.
fn key(loaded: &Loaded, adapter: &str, scale: f64) -> Hash {
    let runtime = loaded.info.backend.as_ref();
    let kv_format = runtime.map_or("", |runtime| &runtime.kv_format);
    // Nothing where they are floats, as they always were.
    let rounded = runtime.and_then(Runtime::activations).unwrap_or_default();
    // A graphics card's pages are the same in a browser and without one.
    let keeper = if loaded.inline { "cpu" } else { "gpu" }.to_owned() + rounded;
    let rotations = format!("{:?}", loaded.base.plan.graph.ropes);
    let parts =
        [&loaded.identity.model, &loaded.weights_sample, rotations.as_str(), kv_format, keeper.as_str(), adapter];
    let sizes = [PAGE_TOKENS as u64, loaded.backend.position_bytes() as u64, scale.to_bits()].map(u64::to_le_bytes);
    hash(&[parts.join("\n").as_bytes(), sizes.as_flattened()])
}

/// Writes what is kept of the beginning of `ids` to `sink`, in pieces. Gives how many of them.
pub(super) async fn save(
    loaded: &Loaded,
    session: &Session,
    ids: &[u32],
    choice: Option<&AdapterChoice>,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<usize> {
    let adapter = loaded.adapters.chosen(choice)?;
    // A state stands at one position only, and says nothing of the pages before it.
    let pages = if loaded.backend.n_states() > 0 { Vec::new() } else { session.common.pages.kept(adapter, ids) };
    let held: usize = pages.iter().map(|(_, tokens)| tokens).sum();
    let count = u32::try_from(held).map_err(|_| too_many(held))?;
    let (name, scale) = choice.filter(|_| adapter.is_some()).map_or(("", 0.0), AdapterChoice::parts);
    let used = if scale == 0.0 { String::new() } else { loaded.adapters.hash(name)? };
    let numbers = [MAGIC, VERSION.to_le_bytes(), count.to_le_bytes()];
    let ids = ids.iter().take(held).flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
    let start = [numbers.as_flattened(), &scale.to_le_bytes(), &key(loaded, &used, scale), &ids].concat();
    let mut before = hash(&[&start]);
    sink(&[start.as_slice(), &before].concat())?;
    for (page, tokens) in pages {
        loaded.alive()?;
        let mut bytes = loaded.backend.read_page(page, tokens).await?;
        before = hash(&[&before, &bytes]);
        bytes.extend_from_slice(&before);
        sink(&bytes)?;
        (loaded.environment.yield_now)().await;
    }
    Ok(held)
}

/// Brings saved keys and values back, where they are this model's; what has no room or is not its own is left.
///
/// Fails with `IntegrityMismatch` or `SizeMismatch` where bytes are damaged or missing, with `UnsupportedFormat` for what is of
/// another version or nothing of the kind; nothing is kept then.
pub(super) async fn restore(loaded: &Loaded, session: &mut Session, source: &dyn Source) -> Result<Restored> {
    let mut reader = Reader { source, at: 0, before: [0; HASH] };
    let (ids, scale, found) = reader.start().await?;
    let Some(adapter) = owner(loaded, scale, &found)?.filter(|_| loaded.backend.n_states() == 0) else {
        let note = "the keys and values are another model's, adapter's or format's";
        return Ok(Restored { tokens: 0, note: Some(note.to_owned()) });
    };
    if !ids.is_empty() {
        loaded.check_ids(&ids)?;
    }
    let pages = &mut session.common.pages;
    let (mut sequence, _) = Sequence::open(pages, adapter, &[])?;
    let filled = fill(loaded, pages, &mut sequence, &ids, &mut reader).await;
    let tokens = sequence.tokens().len();
    sequence.close(pages, if filled.is_ok() { usize::MAX } else { 0 })?;
    filled?;
    let note = (tokens < ids.len()).then(|| "there is no room for all keys and values".to_owned());
    Ok(Restored { tokens, note })
}

/// What a key was made with, of all that is loaded: an adapter or none.
fn owner(loaded: &Loaded, scale: f64, found: &[u8]) -> Result<Option<Option<AdapterUse>>> {
    if scale == 0.0 {
        return Ok((key(loaded, "", scale) == found).then_some(None));
    }
    let own = loaded.adapters.list().into_iter().find(|info| key(loaded, &info.hash, scale) == found);
    let choice = own.map(|info| AdapterChoice::Scaled(ScaledAdapter { name: info.name, scale: Some(scale) }));
    choice.map(|choice| loaded.adapters.chosen(Some(&choice))).transpose()
}

/// Fills a sequence with saved pages, as far as there is room.
async fn fill(
    loaded: &Loaded,
    pages: &mut Pages,
    sequence: &mut Sequence,
    ids: &[u32],
    reader: &mut Reader<'_>,
) -> Result<()> {
    for ids in ids.chunks(PAGE_TOKENS) {
        loaded.alive()?;
        let end = sequence.tokens().len().saturating_add(ids.len());
        if end > loaded.context || sequence.reserve(pages, end).is_err() {
            return Ok(());
        }
        let bytes = reader.take(ids.len().saturating_mul(loaded.backend.position_bytes())).await?;
        reader.check(&[&reader.before.clone(), &bytes]).await?;
        let page = sequence.pages().last().copied().unwrap_or_default();
        loaded.backend.write_page(page, ids.len(), &bytes)?;
        sequence.append(ids);
        (loaded.environment.yield_now)().await;
    }
    Ok(())
}

/// Reads on through a file.
struct Reader<'a> {
    source: &'a dyn Source,
    at: u64,
    /// The latest hash.
    before: Hash,
}

impl Reader<'_> {
    async fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        let bytes = self.source.read(self.at, len).await?;
        self.at = self.at.saturating_add(len as u64);
        Ok(bytes)
    }

    /// Fails unless the hash that follows is that of these parts.
    async fn check(&mut self, parts: &[&[u8]]) -> Result<()> {
        self.before = hash(parts);
        match self.take(HASH).await? == self.before {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::IntegrityMismatch, "these bytes are damaged").at(self.source.name())),
        }
    }

    /// The tokens, the adapter's scale and the key.
    async fn start(&mut self) -> Result<(Vec<u32>, f64, Vec<u8>)> {
        let start = self.take(START).await?;
        let words = start.as_chunks::<4>().0;
        let word = |at: usize| words.get(at).map_or(0, |word| u32::from_le_bytes(*word));
        if words.first() != Some(&MAGIC) || word(1) != VERSION {
            let words = format!("no keys and values that were saved in version {VERSION}");
            return Err(Error::new(ErrorKind::UnsupportedFormat, words).at(self.source.name()));
        }
        let count = word(2) as usize;
        if count > MAX_TOKENS {
            return Err(too_many(count));
        }
        let bytes = self.take(count.saturating_mul(4)).await?;
        self.check(&[&start, &bytes]).await?;
        let scale = f64::from_bits(u64::from(word(3)) | u64::from(word(4)) << 32);
        let ids = bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        Ok((ids, scale, start.get(20..).unwrap_or_default().to_vec()))
    }
}

fn too_many(count: usize) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("{count} saved tokens, at most {MAX_TOKENS} are allowed"))
}
