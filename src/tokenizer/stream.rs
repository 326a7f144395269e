//! Ids that arrive one by one, to text that never splits a character.
//!
//! The text so far plus `finish()` equals `decode()` of all ids, whatever they are, and no id is decoded twice. The
//! crate's decoders want all tokens at once, so each kind has a streaming form here; of a kind that has none, the text
//! comes at the end.

use tokenizers::{Decoder, DecoderWrapper};

use super::{Tokenizer, malformed};
use crate::error::{Error, Result};

/// Turns ids into pieces of text.
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// Special tokens that are not left out.
    kept: Vec<u32>,
    stages: Vec<Stage>,
    /// Without a decoder, tokens are joined by spaces.
    separator: &'static str,
    started: bool,
}

impl StreamDecoder {
    pub(super) fn new(tokenizer: Tokenizer, skip_special: bool, kept: Vec<u32>) -> StreamDecoder {
        let decoder = tokenizer.inner.pipeline.decoder.as_ref();
        let separator = if decoder.is_none() { " " } else { "" };
        let stages = decoder.map_or_else(Vec::new, stages);
        StreamDecoder { tokenizer, skip_special, kept, stages, separator, started: false }
    }

    /// The text that is certain with one more id; often empty, because a character may span ids.
    ///
    /// An id without a token adds nothing: a model's matrix often has more rows than its tokenizer has tokens.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let pipeline = &self.tokenizer.inner.pipeline;
        match pipeline.token(id) {
            Some(token) if !(self.skip_special && pipeline.is_special(id) && !self.kept.contains(&id)) => {
                self.run(vec![token], false)
            }
            _ => Ok(String::new()),
        }
    }

    /// What was held back. The decoder is as new afterwards.
    pub fn finish(&mut self) -> Result<String> {
        let rest = self.run(Vec::new(), true);
        *self = StreamDecoder::new(self.tokenizer.clone(), self.skip_special, std::mem::take(&mut self.kept));
        rest
    }

    fn run(&mut self, mut tokens: Vec<String>, last: bool) -> Result<String> {
        for stage in &mut self.stages {
            tokens = stage.push(tokens, last).map_err(|error| decoder_failed(&error))?;
        }
        let mut text = String::new();
        for token in tokens {
            if std::mem::replace(&mut self.started, true) {
                text.push_str(self.separator);
            }
            text.push_str(&token);
        }
        Ok(text)
    }
}

fn decoder_failed(error: &tokenizers::Error) -> Error {
    malformed(format!("the decoder failed: {error}"))
}

/// A decoder that takes tokens as they come.
pub(super) enum Stage {
    /// Looks at one token at a time, and at whether it is the first.
    Each { decoder: DecoderWrapper, started: bool },
    /// All tokens are bytes of one text.
    Bytes { pending: Vec<u8> },
    /// Runs of `<0xNN>` are bytes; a run that is not UTF-8 becomes one U+FFFD a byte, so it is held to its end.
    ByteRuns { run: Vec<u8> },
    /// Takes up to `left` times `content` off the front of the whole text.
    StripStart { content: char, left: usize },
    /// Everything else: at the end.
    Hold { decoder: DecoderWrapper, tokens: Vec<String> },
}

/// The stages of a decoder.
pub(super) fn stages(decoder: &DecoderWrapper) -> Vec<Stage> {
    let parts = match decoder {
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders(),
        single => std::slice::from_ref(single),
    };
    let mut stages = Vec::new();
    // After Fuse (or Bytes) the text is one token, which arrives in pieces.
    let mut fused = false;
    for part in parts {
        let stage = match part {
            DecoderWrapper::Fuse(_) => {
                fused = true;
                continue;
            }
            DecoderWrapper::Strip(strip) if fused && strip.stop == 0 => {
                Stage::StripStart { content: strip.content, left: strip.start }
            }
            DecoderWrapper::ByteLevel(_) if !fused => {
                fused = true;
                Stage::Bytes { pending: Vec::new() }
            }
            DecoderWrapper::ByteFallback(_) if !fused => Stage::ByteRuns { run: Vec::new() },
            DecoderWrapper::WordPiece(_)
            | DecoderWrapper::Metaspace(_)
            | DecoderWrapper::Replace(_)
            | DecoderWrapper::Strip(_)
                if !fused =>
            {
                Stage::Each { decoder: part.clone(), started: false }
            }
            _ => return vec![Stage::Hold { decoder: decoder.clone(), tokens: Vec::new() }],
        };
        stages.push(stage);
    }
    stages
}

impl Stage {
    fn push(&mut self, tokens: Vec<String>, last: bool) -> tokenizers::Result<Vec<String>> {
        match self {
            Stage::Each { decoder, started } => {
                let mut out = Vec::with_capacity(tokens.len());
                for token in tokens {
                    if std::mem::replace(started, true) {
                        // A token in front says that this one is not the first.
                        out.extend(decoder.decode_chain(vec![String::new(), token])?.pop());
                    } else {
                        out.extend(decoder.decode_chain(vec![token])?);
                    }
                }
                Ok(out)
            }
            Stage::Bytes { pending } => {
                tokens.iter().for_each(|token| push_bytes(token, pending));
                Ok(vec![take_text(pending, last)])
            }
            Stage::ByteRuns { run } => {
                let mut out = Vec::new();
                for token in tokens {
                    match fallback_byte(&token) {
                        Some(byte) => run.push(byte),
                        None => {
                            out.extend(end_run(run));
                            out.push(token);
                        }
                    }
                }
                if last {
                    out.extend(end_run(run));
                }
                Ok(out)
            }
            Stage::StripStart { content, left } => Ok(tokens
                .into_iter()
                .map(|token| {
                    let mut rest = token.as_str();
                    while *left > 0 && !rest.is_empty() {
                        match rest.strip_prefix(*content) {
                            Some(stripped) => {
                                rest = stripped;
                                *left = left.saturating_sub(1);
                            }
                            None => *left = 0,
                        }
                    }
                    rest.to_owned()
                })
                .collect()),
            Stage::Hold { decoder, tokens: held } => {
                held.extend(tokens);
                if last && !held.is_empty() { decoder.decode_chain(std::mem::take(held)) } else { Ok(Vec::new()) }
            }
        }
    }
}

/// The byte that a letter of the byte-level alphabet stands for; the reverse of `byte_letter`.
fn letter_byte(letter: char) -> Option<u8> {
    let code = u32::from(letter);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code.checked_sub(0x100)?).ok(),
        0x121..=0x142 => u8::try_from(code.checked_sub(0x121)?.checked_add(0x7f)?).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The bytes of a token; of one with any other letter, its own UTF-8.
pub(super) fn push_bytes(token: &str, bytes: &mut Vec<u8>) {
    let before = bytes.len();
    for letter in token.chars() {
        match letter_byte(letter) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(before);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// Takes the text that is certain: all but an unfinished character at the end, unless this is the end.
fn take_text(pending: &mut Vec<u8>, last: bool) -> String {
    let mut text = String::new();
    let mut rest = pending.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
            }
            Err(error) => {
                let (valid, broken) = rest.split_at_checked(error.valid_up_to()).unwrap_or((rest, &[]));
                text.push_str(&String::from_utf8_lossy(valid));
                match error.error_len() {
                    Some(len) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = broken.get(len..).unwrap_or_default();
                        continue;
                    }
                    None if last => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = &[];
                    }
                    None => rest = broken,
                }
            }
        }
        break;
    }
    *pending = rest.to_vec();
    text
}

/// The byte of a token such as `<0x0A>`.
pub(super) fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn end_run(run: &mut Vec<u8>) -> Option<String> {
    if run.is_empty() {
        return None;
    }
    let bytes = std::mem::take(run);
    let len = bytes.len();
    Some(String::from_utf8(bytes).unwrap_or_else(|_| "\u{fffd}".repeat(len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::pipeline::byte_letter;

    #[test]
    fn letters_and_bytes_are_each_others_reverse() {
        for byte in 0..=255 {
            assert_eq!(letter_byte(byte_letter(byte)), Some(byte));
        }
        let known = (0..0x1000).filter_map(char::from_u32).filter(|letter| letter_byte(*letter).is_some());
        assert_eq!(known.count(), 256);
    }
}
