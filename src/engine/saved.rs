//! Keys and values of a prompt as bytes, so that a conversation goes on later without computing them again.
//!
//! ```text
//! "HWKV" | version u32 | length u32 | header: JSON of that length | SHA-256 of all before
//! then for each page: its positions' bytes, layer by layer, keys before values | SHA-256 of the hash before and these bytes
//! ```
//!
//! Numbers are little-endian. Keys and values say nothing by themselves of what they belong to, so the header does: another
//! model, format, adapter or kind of backend computes them anew. Nothing is given to a sequence before its hash was
//! compared. Pages pass one at a time, in both directions.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::adapters::AdapterChoice;
use super::identity::hash_text;
use super::loaded::Loaded;
use super::receipt::ReceiptAdapter;
use super::session::Session;
use crate::cache::Sequence;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterUse, PAGE_TOKENS};
use crate::source::Source;

const MAGIC: &[u8; 4] = b"HWKV";
/// Of the layout above, and of how backends keep keys and values.
const VERSION: u32 = 1;
/// Magic, version and length.
const START: usize = 12;
/// Bytes of a header, at most: ids of a million positions.
const MAX_HEADER: usize = 16 << 20;
const HASH: usize = 32;

/// What saved keys and values belong to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Header {
    /// Of the model, a sample of its weights, and how positions are turned into rotations.
    model: String,
    /// How keys and values are stored, and by whom.
    layout: String,
    /// What they were computed with beside the model.
    adapter: Option<ReceiptAdapter>,
    /// Bytes of one position.
    position_bytes: usize,
    /// The tokens whose keys and values follow.
    ids: Vec<u32>,
}

/// What came of restoring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Tokens whose keys and values are there now.
    pub tokens: usize,
    /// Why it is none of them, or not all: they are computed with the next reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The header for this model, this adapter and these ids.
fn header(loaded: &Loaded, adapter: Option<ReceiptAdapter>, ids: Vec<u32>) -> Header {
    let kv_format = loaded.info.backend.as_ref().map_or("", |runtime| &runtime.kv_format);
    // A graphics card's pages are the same in a browser and without one.
    let keeper = if loaded.inline { "cpu" } else { "gpu" };
    let rotations = format!("{:?}", loaded.base.plan.graph.ropes);
    Header {
        model: hash_text(&format!("{} {} {rotations}", loaded.identity.model, loaded.weights_sample)),
        layout: format!("{keeper} {kv_format} {PAGE_TOKENS}"),
        adapter,
        position_bytes: loaded.backend.position_bytes(),
        ids,
    }
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
    let held = pages.iter().map(|(_, tokens)| tokens).sum();
    let named = choice.filter(|_| adapter.is_some()).map(|choice| ReceiptAdapter::of(loaded, choice)).transpose()?;
    let header = header(loaded, named, ids.get(..held).unwrap_or(ids).to_vec());
    let header = serde_json::to_vec(&header).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    let length = u32::try_from(header.len()).map_err(|_| limit(header.len()))?;
    let start = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &length.to_le_bytes(), &header].concat();
    let mut hash = Sha256::digest(&start);
    sink(&[start.as_slice(), &hash].concat())?;
    for (page, tokens) in pages {
        loaded.alive()?;
        let mut bytes = loaded.backend.read_page(page, tokens).await?;
        hash = link(&hash, &bytes);
        bytes.extend_from_slice(&hash);
        sink(&bytes)?;
        (loaded.environment.yield_now)().await;
    }
    Ok(held)
}

fn link(before: &[u8], bytes: &[u8]) -> sha2::digest::Output<Sha256> {
    Sha256::new().chain_update(before).chain_update(bytes).finalize()
}

/// Brings saved keys and values back, where they are this model's; what has no room or is not its own is left.
///
/// Fails with `IntegrityMismatch` or `SizeMismatch` where bytes are damaged or missing, with `UnsupportedFormat` for what is of
/// another version or nothing of the kind; nothing is kept then.
pub(super) async fn restore(loaded: &Loaded, session: &mut Session, source: &dyn Source) -> Result<Restored> {
    let reader = Reader { source, at: 0 };
    let (found, reader, hash) = reader.header().await?;
    let own = header(loaded, found.adapter.clone(), found.ids.clone());
    let differs = [
        ("another model's", found.model != own.model),
        ("stored in another way", found.layout != own.layout || found.position_bytes != own.position_bytes),
        ("of a model with state", loaded.backend.n_states() > 0),
    ];
    let none = |note: &str| Ok(Restored { tokens: 0, note: Some(format!("keys and values are {note}")) });
    if let Some((note, _)) = differs.iter().find(|(_, differs)| *differs) {
        return none(note);
    }
    loaded.check_ids_below_vocab(&found.ids)?;
    let Some(adapter) = adapter(loaded, found.adapter.as_ref())? else {
        return none("of an adapter that is not loaded");
    };
    let pages = &mut session.common.pages;
    let (mut sequence, _) = Sequence::open(pages, adapter, &[])?;
    let filled = fill(loaded, pages, &mut sequence, &found.ids, (reader, hash)).await;
    let keep = if filled.is_ok() { usize::MAX } else { 0 };
    let tokens = sequence.tokens().len();
    sequence.close(pages, keep)?;
    let note = filled?.then(|| "there is no room for all keys and values".to_owned());
    Ok(Restored { tokens, note })
}

/// Fills a sequence with saved pages. Gives whether some had no room.
async fn fill(
    loaded: &Loaded,
    pages: &mut crate::cache::Pages,
    sequence: &mut Sequence,
    ids: &[u32],
    (mut reader, mut hash): (Reader<'_>, Vec<u8>),
) -> Result<bool> {
    for (index, ids) in ids.chunks(PAGE_TOKENS).enumerate() {
        loaded.alive()?;
        let end = sequence.tokens().len().saturating_add(ids.len());
        if end > loaded.context || sequence.reserve(pages, end).is_err() {
            return Ok(true);
        }
        let bytes = reader.take(ids.len().saturating_mul(loaded.backend.position_bytes())).await?;
        hash = link(&hash, &bytes).to_vec();
        if reader.take(HASH).await? != hash {
            return Err(
                Error::new(ErrorKind::IntegrityMismatch, format!("page {index} is damaged")).at(reader.source.name())
            );
        }
        let page = sequence.pages().last().copied().unwrap_or_default();
        loaded.backend.write_page(page, ids.len(), &bytes)?;
        sequence.append(ids);
        (loaded.environment.yield_now)().await;
    }
    Ok(false)
}

/// The adapter that saved keys and values were computed with, if that very one is loaded.
fn adapter(loaded: &Loaded, saved: Option<&ReceiptAdapter>) -> Result<Option<Option<AdapterUse>>> {
    let Some(saved) = saved else { return Ok(Some(None)) };
    match ReceiptAdapter::of(loaded, &saved.choice()) {
        Ok(own) if own == *saved => loaded.adapters.chosen(Some(&saved.choice())).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads on through a file.
struct Reader<'a> {
    source: &'a dyn Source,
    at: u64,
}

impl<'a> Reader<'a> {
    async fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        let bytes = self.source.read(self.at, len).await?;
        self.at = self.at.saturating_add(len as u64);
        Ok(bytes)
    }

    /// The header, what follows it, and its hash.
    async fn header(mut self) -> Result<(Header, Reader<'a>, Vec<u8>)> {
        let other = |words: String| Error::new(ErrorKind::UnsupportedFormat, words).at(self.source.name().to_owned());
        let mut start = self.take(START).await?;
        let word = |at: usize| {
            let bytes = start.get(at..).and_then(|bytes| bytes.first_chunk::<4>()).copied().unwrap_or_default();
            u32::from_le_bytes(bytes)
        };
        if !start.starts_with(MAGIC) {
            return Err(other("these are no saved keys and values".into()));
        }
        let (version, length) = (word(4), word(8) as usize);
        if version != VERSION {
            return Err(other(format!("keys and values were saved in version {version}; this is {VERSION}")));
        }
        if length > MAX_HEADER {
            return Err(limit(length));
        }
        let header = self.take(length).await?;
        start.extend_from_slice(&header);
        let hash = self.take(HASH).await?;
        if Sha256::digest(&start).as_slice() != hash {
            return Err(Error::new(ErrorKind::IntegrityMismatch, "the header is damaged").at(self.source.name()));
        }
        let header = serde_json::from_slice(&header).map_err(|error| other(error.to_string()))?;
        Ok((header, self, hash))
    }
}

fn limit(length: usize) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("a header of {length} bytes, at most {MAX_HEADER} are allowed"))
}
