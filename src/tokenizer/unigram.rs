//! Unigram (Kudo, arXiv 1804.10959) from the vocabulary of a GGUF file: the SentencePiece models of XLM-RoBERTa's class,
//! which the format calls "t5".

use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;

use super::added::AddedTokens;
use super::gguf::{BEGIN, END, SCORES, TOKENS, Tokens, around, broken, id_of, tokens};
use super::pipeline::{PairForm, Pipeline, Step, from_crate};
use super::{charsmap, malformed};
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::Metadata;

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const UNKNOWN: (&[&str], &str) = (&["tokenizer.ggml.unknown_token_id"], "<unk>");
/// What is done to white space, with the one value that is computed.
const TRUE: &[&str] = &["tokenizer.ggml.add_space_prefix", "tokenizer.ggml.remove_extra_whitespaces"];

pub(super) fn read(metadata: &Metadata) -> Result<Pipeline> {
    for key in TRUE {
        if metadata.boolean(key)? == Some(false) {
            return Err(Error::new(ErrorKind::UnsupportedFormat, "false is not supported").at(*key));
        }
    }
    let Tokens { vocab, added } = tokens(metadata, str::to_owned)?;
    let unknown = id_of(metadata, &vocab, UNKNOWN)?;
    let scores = metadata.numbers(SCORES)?.ok_or_else(|| broken(SCORES, "is missing"))?;
    let mut texts = vec![String::new(); vocab.len()];
    for (text, id) in vocab {
        if let Some(slot) = usize::try_from(id).ok().and_then(|id| texts.get_mut(id)) {
            *slot = text;
        }
    }
    if scores.len() != texts.len() {
        return Err(broken(SCORES, format!("does not have {} entries, as {TOKENS} has", texts.len())));
    }
    if let Some(score) = scores.iter().find(|score| !score.is_finite()) {
        return Err(broken(SCORES, format!("{score} is no score")));
    }
    let vocab = texts.into_iter().zip(scores.iter().copied().map(f64::from)).collect();
    let model = Unigram::from(vocab, usize::try_from(unknown).ok(), false).map_err(from_crate)?;
    let mut normalizers = Vec::new();
    if let Some(bytes) = metadata.integers(CHARSMAP)?.filter(|bytes| !bytes.is_empty()) {
        let bytes: Option<Vec<u8>> = bytes
            .iter()
            .map(|byte| (i64::from(*byte as i8) == *byte || u8::try_from(*byte).is_ok()).then_some(*byte as u8))
            .collect();
        let bytes = bytes.ok_or_else(|| broken(CHARSMAP, "holds numbers that are no bytes"))?;
        charsmap::check(&bytes).at(|| CHARSMAP.to_owned())?;
        let map = Precompiled::from(&bytes).map_err(|error| malformed(error.to_string()).at(CHARSMAP))?;
        normalizers.push(map.into());
    }
    let metaspace = || Metaspace::new('▁', PrependScheme::Always, true);
    let prefix = around(metadata, BEGIN, false, None)?;
    let suffix = around(metadata, END, true, None)?;
    let plain = |ids: &[u32]| ids.iter().map(|id| (*id, 0)).collect::<Vec<_>>();
    // RoBERTa's form: the end token stands twice between the texts.
    let pair = PairForm {
        before: plain(&prefix),
        first: 0,
        between: plain(&[suffix.as_slice(), suffix.as_slice()].concat()),
        second: 0,
        after: plain(&suffix),
    };
    Ok(Pipeline {
        added: AddedTokens::new(added)?,
        normalizers,
        steps: vec![Step::Other(Box::new(WhitespaceSplit.into())), Step::Other(Box::new(metaspace().into()))],
        model: model.into(),
        decoder: Some(metaspace().into()),
        prefix,
        suffix,
        pair: Some(pair),
    })
}
