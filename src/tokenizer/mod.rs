//! Text to ids and back, on the `tokenizers` crate: from `tokenizer.json` or from the vocabulary of a GGUF file.
//!
//! The crate supplies normalizers, models, decoders and post-processors. What stands between them is ours, because the
//! crate's own way has two gaps: its split regexes end silently at a backtrack limit (wrong ids, no error), and it
//! takes every added token in the text for one, whoever wrote it. See `split.rs` and `added.rs`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

mod added;
mod charsmap;
mod file;
mod gguf;
mod json;
mod marked;
mod patterns;
mod pipeline;
mod split;
mod spm;
pub(crate) mod stop;
mod stream;
mod unigram;
mod wordpiece;
mod words;

pub use json::check_depth;
pub use marked::MarkedText;
pub use stream::StreamDecoder;
pub use words::Words;

use std::rc::Rc;

use tokenizers::Decoder;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Dialect, Metadata};
use added::Trust;
use pipeline::Pipeline;

/// Ids at or above this are refused: a vocabulary is a table, and a table is allocated up to its highest id.
/// The largest published vocabularies have 262,144 entries.
const MAX_IDS: u32 = 2_000_000;

/// Text to ids and back. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Rc<Inner>,
}

/// Two texts as a model takes them in at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// All ids, special ones included.
    pub ids: Vec<u32>,
    /// For each id the text to which it belongs, 0 or 1, in models that are told.
    pub segments: Vec<u32>,
}

struct Inner {
    pipeline: Pipeline,
    /// Ids that end a reply, ascending.
    stop_ids: Vec<u32>,
    /// Highest id + 1.
    vocab_size: usize,
}

impl Tokenizer {
    /// Reads the tokenizer that comes with the model.
    ///
    /// Fails with `NotFound` when there is none, `UnsupportedFormat` for a kind that is not supported (named),
    /// `MalformedTokenizer` or `MalformedGguf` for one that breaks its format, `LimitExceeded` past a limit.
    pub fn from_metadata(metadata: &Metadata) -> Result<Tokenizer> {
        let pipeline = match metadata.dialect {
            Dialect::Hub => file::read(metadata)?,
            Dialect::Gguf => gguf::read(metadata)?,
        };
        let vocab_size = pipeline.check_ids(MAX_IDS)?;
        let stop_ids = stop::stop_ids(metadata, &pipeline)?;
        Ok(Tokenizer { inner: Rc::new(Inner { pipeline, stop_ids, vocab_size }) })
    }

    /// The ids of `text`.
    ///
    /// `add_special` adds what the model wants around a text (begin and end tokens). With `parse_special`, special
    /// tokens written in the text become their ids; without, they are text like any other (added tokens that are not
    /// special are recognised in both cases, as the reference libraries do).
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        let trust = if parse_special { Trust::All } else { Trust::NotSpecial };
        self.inner.pipeline.encode(text, add_special, &trust)
    }

    /// What the model wants before a text.
    pub fn prefix(&self) -> &[u32] {
        &self.inner.pipeline.prefix
    }

    /// What the model wants around a text, put around its ids.
    pub fn around(&self, ids: &[u32]) -> Vec<u32> {
        let Pipeline { prefix, suffix, .. } = &self.inner.pipeline;
        [prefix.as_slice(), ids, suffix.as_slice()].concat()
    }

    /// The ids of two texts as one, with what the model wants around and between them.
    ///
    /// Fails with `UnsupportedFormat` where the tokenizer does not say how two texts are put together.
    pub fn around_pair(&self, first: &[u32], second: &[u32]) -> Result<Pair> {
        let form = self.inner.pipeline.pair.as_ref().ok_or_else(|| {
            let words = "this model's tokenizer does not say how two texts are put together";
            Error::new(ErrorKind::UnsupportedFormat, words)
        })?;
        let texts = [(first, form.first), (second, form.second)];
        let [first, second] = texts.map(|(ids, segment)| ids.iter().map(move |id| (*id, segment)));
        let before = form.before.iter().copied().chain(first);
        let after = form.between.iter().copied().chain(second).chain(form.after.iter().copied());
        let (ids, segments) = before.chain(after).unzip();
        Ok(Pair { ids, segments })
    }

    /// The ids of a rendered template. An added token, special or not, is recognised only where the template wrote
    /// every byte of it. The text is tokenized as a whole, so that a text without added tokens outside the trusted
    /// ranges gets the ids that the reference gives it.
    pub fn encode_marked(&self, text: &MarkedText, add_special: bool) -> Result<Vec<u32>> {
        self.inner.pipeline.encode(text.text(), add_special, &Trust::Ranges(text.trusted()))
    }

    /// The text of `ids`, with special tokens left out if asked for. Broken UTF-8 becomes U+FFFD.
    ///
    /// Fails with `InvalidArgument` at an id that no token has.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let pipeline = &self.inner.pipeline;
        let mut tokens = Vec::with_capacity(ids.len());
        for &id in ids {
            match pipeline.token(id) {
                Some(_) if skip_special && pipeline.is_special(id) => {}
                Some(token) => tokens.push(token),
                None => {
                    return Err(Error::new(
                        ErrorKind::InvalidArgument,
                        format!("no token has the id {id} (the vocabulary ends at {})", self.inner.vocab_size),
                    ));
                }
            }
        }
        match &pipeline.decoder {
            _ if tokens.is_empty() => Ok(String::new()),
            None => Ok(tokens.join(" ")),
            Some(decoder) => decoder.decode(tokens).map_err(|error| malformed(format!("the decoder failed: {error}"))),
        }
    }

    /// A decoder for ids that arrive one by one; see [`StreamDecoder`].
    pub fn stream(&self, skip_special: bool) -> StreamDecoder {
        StreamDecoder::new(self.clone(), skip_special, Vec::new())
    }

    /// The same without special tokens, but those of `kept`.
    pub fn stream_keeping(&self, kept: Vec<u32>) -> StreamDecoder {
        StreamDecoder::new(self.clone(), true, kept)
    }

    /// The ids after which a reply is over, ascending.
    pub fn stop_ids(&self) -> &[u32] {
        &self.inner.stop_ids
    }

    /// Highest id + 1. A model's matrix may have more rows than that, never fewer.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// The token of an id, as its vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.pipeline.token(id)
    }

    /// The id of a token, as its vocabulary writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.pipeline.id(token)
    }

    /// Whether the id is a special token, which is not part of a reply's text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.pipeline.is_special(id)
    }

    /// All added tokens that `encode_marked` recognises in trusted ranges only: text, and whether it is special.
    pub fn guarded_tokens(&self) -> impl Iterator<Item = (&str, bool)> {
        self.inner.pipeline.added.guarded()
    }
}

/// An error about the tokenizer's file.
fn malformed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::MalformedTokenizer, message)
}
