//! The steps of encoding: added tokens, normalizers, pre-tokenizers, model, and what is put around a text.

use tokenizers::pattern::{Invert, Pattern};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    DecoderWrapper, Encoding, Model, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential,
    OffsetType, PostProcessor, PostProcessorWrapper, PreTokenizedString, PreTokenizer, PreTokenizerWrapper,
    SplitDelimiterBehavior, Token,
};

use super::added::{Added, AddedTokens, Trust};
use super::malformed;
use super::split::Splitter;
use super::spm::Spm;
use crate::error::{Error, ErrorKind, Result};

/// A normalizer may make a text longer (decomposition: at most 18 times), but not endlessly.
const MAX_GROWTH: usize = 32;

/// An error that can travel through the crate, which wants errors that can cross threads.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    message: String,
}

impl Fault {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Fault {
        Fault { kind, message: message.into() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::new(fault.kind, fault.message)
    }
}

/// An error that came through the crate: ours, or one of the crate's own about the tokenizer.
pub(super) fn from_crate(error: tokenizers::Error) -> Error {
    match error.downcast::<Fault>() {
        Ok(fault) => (*fault).into(),
        Err(error) => malformed(error.to_string()),
    }
}

/// One step of pre-tokenization.
pub(super) enum Step {
    /// Cut at the matches of a pattern.
    Split { splitter: Splitter, behavior: SplitDelimiterBehavior, invert: bool },
    /// A space before every piece that does not begin with one.
    Prefix,
    /// Bytes to the letters that stand for them.
    Bytes(ByteLevel),
    /// Another step of the crate's.
    Other(Box<PreTokenizerWrapper>),
}

impl Step {
    /// Bytes to letters, and nothing else.
    pub(super) fn bytes() -> Step {
        Step::Bytes(ByteLevel::new(false, true, false))
    }

    /// Cuts at every match; matches and gaps are pieces.
    pub(super) fn isolate(pattern: &str) -> std::result::Result<Step, Fault> {
        let splitter = Splitter::new(pattern)?;
        Ok(Step::Split { splitter, behavior: SplitDelimiterBehavior::Isolated, invert: false })
    }

    fn apply(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        match self {
            Step::Split { splitter, behavior, invert: false } => {
                text.split(|_, piece| piece.split(splitter, *behavior))
            }
            Step::Split { splitter, behavior, invert: true } => {
                text.split(|_, piece| piece.split(Invert(splitter), *behavior))
            }
            Step::Prefix => text.normalize(|piece| {
                if !piece.get().starts_with(' ') {
                    piece.prepend(" ");
                }
                Ok(())
            }),
            Step::Bytes(bytes) => bytes.pre_tokenize(text),
            Step::Other(step) => step.pre_tokenize(text),
        }
    }
}

/// What makes tokens of a piece of text.
pub(super) enum TokenModel {
    /// One of the crate's.
    Library(ModelWrapper),
    /// A vocabulary with scores.
    Scores(Spm),
}

impl<M: Into<ModelWrapper>> From<M> for TokenModel {
    fn from(model: M) -> TokenModel {
        TokenModel::Library(model.into())
    }
}

impl TokenModel {
    fn tokenize(&self, piece: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            TokenModel::Library(model) => model.tokenize(piece),
            TokenModel::Scores(spm) => Ok(spm.tokenize(piece)?),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            TokenModel::Library(model) => model.id_to_token(id),
            TokenModel::Scores(spm) => spm.id_to_token(id),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            TokenModel::Library(model) => model.token_to_id(token),
            TokenModel::Scores(spm) => spm.token_to_id(token),
        }
    }

    /// The ids of all tokens, in any order.
    fn ids(&self) -> Vec<u32> {
        match self {
            TokenModel::Library(model) => model.get_vocab().into_values().collect(),
            TokenModel::Scores(spm) => (0..).take(spm.len()).collect(),
        }
    }
}

/// A tokenizer, taken apart.
pub(super) struct Pipeline {
    pub(super) added: AddedTokens,
    pub(super) normalizers: Vec<NormalizerWrapper>,
    pub(super) steps: Vec<Step>,
    pub(super) model: TokenModel,
    pub(super) decoder: Option<DecoderWrapper>,
    /// Ids put before a text.
    pub(super) prefix: Vec<u32>,
    /// Ids put after a text.
    pub(super) suffix: Vec<u32>,
    /// How two texts are put together, where the tokenizer knows.
    pub(super) pair: Option<PairForm>,
}

/// What is put around two texts: ids, each with its segment, and the segments of the texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PairForm {
    pub(super) before: Vec<(u32, u32)>,
    pub(super) first: u32,
    pub(super) between: Vec<(u32, u32)>,
    pub(super) second: u32,
    pub(super) after: Vec<(u32, u32)>,
}

impl Pipeline {
    pub(super) fn encode(&self, text: &str, add_special: bool, trust: &Trust) -> Result<Vec<u32>> {
        let body = self.encode_body(text, trust).map_err(from_crate)?;
        if !add_special {
            return Ok(body);
        }
        Ok(self.prefix.iter().chain(&body).chain(&self.suffix).copied().collect())
    }

    fn encode_body(&self, text: &str, trust: &Trust) -> tokenizers::Result<Vec<u32>> {
        let mut text = PreTokenizedString::from(text);
        text.split(|_, piece| Ok(self.added.split_raw(piece, trust)))?;
        text.split(|_, mut piece| {
            normalize(&self.normalizers, &mut piece)?;
            Ok(self.added.split_normalized(piece, trust))
        })?;
        let direct = direct_splitters(&self.steps);
        if direct.is_none() {
            for step in &self.steps {
                step.apply(&mut text)?;
            }
        }
        let mut ids = Vec::new();
        for (piece, _, tokens) in text.get_splits(OffsetReferential::Original, OffsetType::None) {
            match (tokens, &direct) {
                (Some(tokens), _) => ids.extend(tokens.iter().map(|token| token.id)),
                (None, Some(splitters)) => self.encode_direct(piece, splitters, &mut ids)?,
                (None, None) => ids.extend(self.tokenize(piece)?.iter().map(|token| token.id)),
            }
        }
        Ok(ids)
    }

    /// What the steps of a byte-level tokenizer do, without the crate's map from every byte to its origin, which takes
    /// sixteen times the text's memory and most of the time.
    fn encode_direct(&self, text: &str, splitters: &[&Splitter], ids: &mut Vec<u32>) -> tokenizers::Result<()> {
        let mut pieces = vec![text];
        for splitter in splitters {
            let mut cut = Vec::with_capacity(pieces.len());
            for piece in pieces {
                let found = splitter.find_matches(piece)?;
                cut.extend(found.into_iter().filter_map(|((start, end), _)| piece.get(start..end)));
            }
            pieces = cut;
        }
        let mut letters = String::new();
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            letters.clear();
            letters.extend(piece.bytes().map(byte_letter));
            ids.extend(self.tokenize(&letters)?.iter().map(|token| token.id));
        }
        Ok(())
    }

    /// The model's tokens of one piece. They must cover it: the crate drops characters that a vocabulary lacks without
    /// a word. And none may be an added token spelled out as plain text, which some models (Unigram) would make of it:
    /// the piece is then cut inside the word.
    fn tokenize(&self, piece: &str) -> tokenizers::Result<Vec<Token>> {
        let mut tokens = Vec::new();
        let mut waiting = vec![piece];
        while let Some(part) = waiting.pop() {
            let found = self.model.tokenize(part)?;
            if found.last().map_or(0, |token| token.offsets.1) != part.len() {
                let message = format!("the vocabulary has no tokens for all of {part:?}");
                return Err(Fault::new(ErrorKind::MalformedTokenizer, message).into());
            }
            let mut cuts = Vec::new();
            for token in &found {
                let (start, end) = token.offsets;
                let spelled = part.get(start..end).unwrap_or_default();
                if self.added.is_forged(token.id, spelled) {
                    cuts.push(start.saturating_add(spelled.chars().next().map_or(0, char::len_utf8)));
                }
            }
            if cuts.is_empty() {
                tokens.extend(found);
                continue;
            }
            let mut end = part.len();
            for cut in cuts.into_iter().rev() {
                waiting.extend(part.get(cut..end));
                end = cut;
            }
            waiting.extend(part.get(..end));
        }
        Ok(tokens)
    }

    /// The token of an id, as the decoder wants it.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        match self.added.by_id(id) {
            Some(added) => Some(added.normal.clone()),
            None => self.model.id_to_token(id),
        }
    }

    /// The id of a token.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.added.by_content(token).map(|added| added.id).or_else(|| self.model.token_to_id(token))
    }

    /// Whether the id is a special token.
    pub(super) fn is_special(&self, id: u32) -> bool {
        self.added.by_id(id).is_some_and(|added| added.special)
    }

    /// The highest id + 1. Fails past `limit`, on two tokens with one id, and on ids around a text that no token has.
    pub(super) fn check_ids(&self, limit: u32) -> Result<usize> {
        let mut ids = self.model.ids();
        ids.sort_unstable();
        if let Some(pair) = ids.array_windows::<2>().find(|[a, b]| a == b) {
            return Err(malformed(format!("two tokens of the vocabulary have the id {}", pair[0])));
        }
        let highest = ids.last().copied().into_iter().chain(self.added.iter().map(|added| added.id)).max();
        match highest {
            None => Err(malformed("the vocabulary is empty")),
            Some(id) if id >= limit => Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("a token has the id {id}, ids up to {} are allowed", limit.saturating_sub(1)),
            )),
            Some(id) => match self.around_ids().find(|&id| self.token(id).is_none()) {
                Some(id) => Err(malformed(format!("id {id} is put around every text, but no token has it"))),
                None => Ok(usize::try_from(id).unwrap_or(usize::MAX).saturating_add(1)),
            },
        }
    }
}

impl Pipeline {
    /// Ids around a text or a pair of texts.
    fn around_ids(&self) -> impl Iterator<Item = u32> {
        let pair = self.pair.iter().flat_map(|pair| pair.before.iter().chain(&pair.between).chain(&pair.after));
        self.prefix.iter().chain(&self.suffix).copied().chain(pair.map(|(id, _)| *id))
    }
}

/// The splitters of steps that only cut at matches and then turn bytes to letters, as most byte-level tokenizers do.
fn direct_splitters(steps: &[Step]) -> Option<Vec<&Splitter>> {
    let (Step::Bytes(_), splits) = steps.split_last()? else { return None };
    splits
        .iter()
        .map(|step| match step {
            Step::Split { splitter, behavior: SplitDelimiterBehavior::Isolated, invert: false } => Some(splitter),
            _ => None,
        })
        .collect()
}

/// The letter that stands for a byte: printable Latin-1 stands for itself, the rest is moved up to U+0100 and on, in
/// order.
pub(super) fn byte_letter(byte: u8) -> char {
    let code = u32::from(byte);
    let moved = match code {
        0x00..=0x20 => code.saturating_add(0x100),
        0x7f..=0xa0 => code.saturating_add(0x100 + 0x21 - 0x7f),
        0xad => 0x143,
        _ => code,
    };
    char::from_u32(moved).unwrap_or_default()
}

/// Runs the normalizers in turn.
pub(super) fn normalize(normalizers: &[NormalizerWrapper], text: &mut NormalizedString) -> tokenizers::Result<()> {
    let limit = text.len_original().saturating_mul(MAX_GROWTH).saturating_add(4096);
    for normalizer in normalizers {
        normalizer.normalize(text)?;
        if text.len() > limit {
            let message = format!("the tokenizer's normalizers make a text more than {MAX_GROWTH} times as long");
            return Err(Fault::new(ErrorKind::LimitExceeded, message).into());
        }
    }
    Ok(())
}

/// What a post-processor puts before and after a text: it is shown a text of one made-up token.
pub(super) fn around(processor: &PostProcessorWrapper) -> Result<(Vec<u32>, Vec<u32>)> {
    const TEXT: u32 = u32::MAX;
    let shown = Encoding::from_tokens(vec![Token::new(TEXT, "x".to_owned(), (0, 1))], 0);
    let result = processor.process(shown, None, true).map_err(from_crate)?;
    let mut parts = result.get_ids().split(|&id| id == TEXT);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(before), Some(after), None) => Ok((before.to_vec(), after.to_vec())),
        _ => Err(malformed("the post-processor does not keep the text exactly once")),
    }
}

/// How a post-processor puts two texts together: it is shown texts of one made-up token each.
pub(super) fn around_pair(processor: &PostProcessorWrapper) -> Result<PairForm> {
    const TEXTS: [u32; 2] = [u32::MAX - 1, u32::MAX];
    let shown = |id| Encoding::from_tokens(vec![Token::new(id, "x".to_owned(), (0, 1))], 0);
    let result = processor.process(shown(TEXTS[0]), Some(shown(TEXTS[1])), true).map_err(from_crate)?;
    let tokens: Vec<(u32, u32)> = result.get_ids().iter().copied().zip(result.get_type_ids().iter().copied()).collect();
    let place = |text: u32| {
        let mut places = tokens.iter().enumerate().filter(|(_, (id, _))| *id == text);
        places.next().filter(|_| places.next().is_none()).map(|(place, (_, segment))| (place, *segment))
    };
    let parts = || {
        let ((one, first), (two, second)) = (place(TEXTS[0])?, place(TEXTS[1])?);
        let (before, rest) = tokens.split_at_checked(one)?;
        let (between, after) = rest.split_at_checked(two.checked_sub(one)?)?;
        let [between, after] = [between.get(1..)?, after.get(1..)?].map(<[_]>::to_vec);
        Some(PairForm { before: before.to_vec(), first, between, second, after })
    };
    parts().ok_or_else(|| malformed("the post-processor does not keep two texts in their order, each once"))
}

/// The table of added tokens, each with its normalized form.
pub(super) fn with_normal_forms(mut tokens: Vec<Added>, normalizers: &[NormalizerWrapper]) -> Result<AddedTokens> {
    for token in tokens.iter_mut().filter(|token| token.normalized) {
        let mut text = NormalizedString::from(token.content.as_str());
        normalize(normalizers, &mut text).map_err(from_crate)?;
        token.normal = text.get().to_owned();
    }
    Ok(AddedTokens::new(tokens)?)
}
