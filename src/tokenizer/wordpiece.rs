//! WordPiece from the vocabulary of a GGUF file, as BERT's models have it there: the beginning of a word is marked, its
//! continuations are not, the other way round than in the models' own files.
//!
//! Texts are prepared as the models were trained (lower case without accents, or as they are; ideographs one by one).

use tokenizers::decoders::wordpiece::WordPiece as Decoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use super::added::AddedTokens;
use super::gguf::{TOKENS, Tokens, broken, id_of, tokens};
use super::pipeline::{PairForm, Pipeline, Step, from_crate};
use crate::error::Result;
use crate::format::Metadata;

/// Continues a word in the models' own vocabularies.
const CONTINUES: &str = "##";
/// Begins a word in GGUF files.
const BEGINS: char = '▁';
/// Longer words are unknown, as they were in training.
const MAX_WORD_CHARS: usize = 100;

const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";
/// The first key that is there names the token; else the text does.
const BEGIN: (&[&str], &str) = (&["tokenizer.ggml.cls_token_id", "tokenizer.ggml.bos_token_id"], "[CLS]");
/// The first is spelled so by everybody.
const END: (&[&str], &str) = (
    &["tokenizer.ggml.seperator_token_id", "tokenizer.ggml.separator_token_id", "tokenizer.ggml.eos_token_id"],
    "[SEP]",
);
const UNKNOWN: (&[&str], &str) = (&["tokenizer.ggml.unknown_token_id"], "[UNK]");

pub(super) fn read(metadata: &Metadata) -> Result<Pipeline> {
    let known = |token: &str| match token.strip_prefix(BEGINS) {
        Some(word) if !word.is_empty() => word.to_owned(),
        // The converter leaves what stands in brackets alone; a lone mark is a token of its own.
        _ if token.starts_with('[') && token.ends_with(']') => token.to_owned(),
        _ => format!("{CONTINUES}{token}"),
    };
    let Tokens { vocab, added } = tokens(metadata, known)?;
    let (begin, end) = (id_of(metadata, &vocab, BEGIN)?, id_of(metadata, &vocab, END)?);
    let unknown = id_of(metadata, &vocab, UNKNOWN)?;
    let unknown = vocab.iter().find(|(_, id)| **id == unknown).map(|(token, _)| token.clone());
    let unknown = unknown.ok_or_else(|| broken(TOKENS, "has no token for what is unknown"))?;
    let model = WordPiece::builder()
        .vocab(vocab)
        .unk_token(unknown)
        .continuing_subword_prefix(CONTINUES.to_owned())
        .max_input_chars_per_word(MAX_WORD_CHARS)
        .build()
        .map_err(from_crate)?;
    let lowercase = metadata.boolean(LOWERCASE)?.unwrap_or(true);
    Ok(Pipeline {
        added: AddedTokens::new(added)?,
        normalizers: vec![BertNormalizer::new(true, true, None, lowercase).into()],
        steps: vec![Step::Other(Box::new(BertPreTokenizer.into()))],
        model: model.into(),
        decoder: Some(Decoder::new(CONTINUES.to_owned(), true).into()),
        prefix: vec![begin],
        suffix: vec![end],
        pair: Some(PairForm {
            before: vec![(begin, 0)],
            first: 0,
            between: vec![(end, 0)],
            second: 1,
            after: vec![(end, 1)],
        }),
    })
}
