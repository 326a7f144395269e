//! The bytes of every token, for whoever looks at texts byte by byte before there are ids.

use tokenizers::{Decoder, DecoderWrapper};

use super::Tokenizer;
use super::stream::{Stage, fallback_byte, push_bytes, stages};
use crate::error::{Error, ErrorKind, Result};

/// A vocabulary as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The bytes of all tokens, one after another.
    pub bytes: Vec<u8>,
    /// How many bytes each id has; 0 for ids that are no part of a text: special tokens, and ids without a token.
    pub lengths: Vec<u32>,
    /// Ids that end a reply.
    pub ends: Vec<u32>,
}

impl Tokenizer {
    /// What each token adds to a text that has begun already.
    ///
    /// Fails with `UnsupportedFormat` for a tokenizer whose tokens have no bytes of their own.
    pub fn words(&self) -> Result<Words> {
        let stages = self.inner.pipeline.decoder.as_ref().map_or_else(Vec::new, stages);
        if stages.is_empty() || stages.iter().any(|stage| matches!(stage, Stage::Hold { .. })) {
            let words = "the tokens of this model's tokenizer have no bytes of their own";
            return Err(Error::new(ErrorKind::UnsupportedFormat, words));
        }
        let (mut bytes, mut lengths) = (Vec::new(), Vec::new());
        for id in 0..u32::try_from(self.vocab_size()).unwrap_or(u32::MAX) {
            let before = bytes.len();
            if let Some(token) = self.token(id).filter(|_| !self.is_special(id)) {
                push_word(&stages, token, &mut bytes)?;
            }
            lengths.push(u32::try_from(bytes.len().saturating_sub(before)).unwrap_or(u32::MAX));
        }
        Ok(Words { bytes, lengths, ends: self.stop_ids().to_vec() })
    }
}

fn push_word(stages: &[Stage], mut token: String, bytes: &mut Vec<u8>) -> Result<()> {
    for stage in stages {
        match stage {
            Stage::Each { decoder, .. } => token = beside_another(decoder, token)?,
            Stage::Bytes { .. } => {
                push_bytes(&token, bytes);
                return Ok(());
            }
            Stage::ByteRuns { .. } => {
                if let Some(byte) = fallback_byte(&token) {
                    bytes.push(byte);
                    return Ok(());
                }
            }
            // These look at a text's beginning, or were refused.
            Stage::StripStart { .. } | Stage::Hold { .. } => {}
        }
    }
    bytes.extend_from_slice(token.as_bytes());
    Ok(())
}

/// What a decoder makes of a token that is not the first.
fn beside_another(decoder: &DecoderWrapper, token: String) -> Result<String> {
    let both = decoder.decode_chain(vec![String::new(), token]).map_err(|error| super::malformed(error.to_string()))?;
    Ok(both.into_iter().next_back().unwrap_or_default())
}
