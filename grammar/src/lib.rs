//! Which tokens may come next: a JSON Schema, a regular expression, a Lark or a GBNF grammar, compiled by llguidance for a
//! vocabulary.
//!
//! A crate of its own, because browsers load it as a module of its own, at the first request that needs it. It knows no
//! model and no option of the package; limits on what comes in are its caller's business, those on the work are here.
#![forbid(unsafe_code)]

mod gbnf;
#[cfg(target_arch = "wasm32")]
mod web;

use std::sync::Arc;

use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde::{Deserialize, Serialize};
use toktrie::{AnythingGoes, ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

/// Schemas whose compiled form is kept, at most.
const MAX_KEPT: usize = 8;
/// States of the lexer, at most; each is 1 to 2 kB. llguidance's own limit is five times that.
const MAX_LEXER_STATES: usize = 50_000;
/// Work on the lexer while a grammar is compiled, at most: about 50,000 of these take a millisecond.
const MAX_LEXER_FUEL: u64 = 1_000_000;
/// The tokens of a model.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    /// The bytes of all tokens, one after another.
    pub bytes: Vec<u8>,
    /// How many bytes each id has; 0 for ids that are no text.
    pub lengths: Vec<u32>,
    /// Ids that end a reply; at least one.
    pub ends: Vec<u32>,
}

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// JSON that is valid under this schema, as its text.
    Json(String),
    /// A match of this regular expression, from its first letter to its last.
    Regex(String),
    /// A sentence of this grammar, in llguidance's dialect of Lark.
    Lark(String),
    /// A sentence of this grammar, in llama.cpp's GBNF.
    Gbnf(String),
}

/// Why there is no mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// What was asked for is wrong, cannot be met, or is not supported.
    Unsupported,
    /// It takes more than a limit allows.
    Limit,
}

/// An error, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// What is wrong, and where as far as it is known.
    pub message: String,
}

impl Fault {
    fn of(message: &str) -> Self {
        // llguidance's own words for its limits; other errors have no types either.
        const LIMITS: [&str; 6] = ["fuel", "too complex", "too large", "too many", "limit", "TooComplex"];
        // What follows its first paragraph is the state of its parser.
        let message = message.split("\n<").next().unwrap_or_default().trim();
        let kind = match LIMITS.iter().any(|words| message.contains(words)) {
            true => FaultKind::Limit,
            false => FaultKind::Unsupported,
        };
        Self { kind, message: message.to_owned() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Compiles for one vocabulary, and keeps what it compiled last.
pub struct Grammars {
    factory: ParserFactory,
    kept: Vec<(Form, Matcher)>,
}

impl Grammars {
    /// Makes ready for a vocabulary.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, Fault> {
        let [first_end, ..] = vocabulary.ends[..] else {
            return Err(Fault::of("the vocabulary has no token that ends a reply"));
        };
        let mut rest = vocabulary.bytes.as_slice();
        let mut words = Vec::with_capacity(vocabulary.lengths.len());
        for (id, length) in vocabulary.lengths.iter().enumerate() {
            let (word, after) =
                rest.split_at_checked(*length as usize).ok_or_else(|| Fault::of("bytes are missing"))?;
            rest = after;
            words.push(match word.is_empty() {
                // Never part of a text; grammars name it by its id, and llguidance writes one that is forced like this.
                true => [&[TokTrie::SPECIAL_TOKEN_MARKER], format!("[{id}]").as_bytes()].concat(),
                false => word.to_vec(),
            });
        }
        let info = TokRxInfo::new(words.len().try_into().unwrap_or(u32::MAX), first_end);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&vocabulary.ends);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = llguidance::earley::SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| Fault::of(&error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            initial_lexer_fuel: MAX_LEXER_FUEL,
            max_lexer_states: MAX_LEXER_STATES,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self { factory, kept: Vec::new() })
    }

    /// What follows at the beginning of a text of this form.
    pub fn compile(&mut self, form: &Form) -> Result<Follower, Fault> {
        if let Some(at) = self.kept.iter().position(|(kept, _)| kept == form) {
            let used = self.kept.remove(at);
            let matcher = used.1.deep_clone();
            self.kept.push(used);
            return Ok(Follower(matcher));
        }
        let grammar = match form {
            Form::Json(schema) => GrammarWithLexer::from_json_schema(
                serde_json::from_str(schema).map_err(|error| Fault::of(&error.to_string()))?,
            ),
            Form::Regex(regex) => GrammarWithLexer::from_regex(regex),
            Form::Lark(lark) => GrammarWithLexer::from_lark(lark.clone()),
            Form::Gbnf(gbnf) => GrammarWithLexer::from_lark(gbnf::to_lark(gbnf)?),
        };
        let matcher = Matcher::new(self.factory.create_parser(TopLevelGrammar::from_grammar(grammar)));
        if let Some(error) = matcher.get_error() {
            return Err(Fault::of(&error));
        }
        if self.kept.len() >= MAX_KEPT {
            self.kept.remove(0);
        }
        self.kept.push((form.clone(), matcher.deep_clone()));
        Ok(Follower(matcher))
    }
}

/// Follows one text.
pub struct Follower(Matcher);

impl Follower {
    /// Another one at the same place.
    pub fn fork(&self) -> Self {
        Self(self.0.deep_clone())
    }

    /// The ids that may come next, a bit each, the lowest first; only those that end a reply once nothing can follow.
    pub fn mask(&mut self) -> Result<Vec<u32>, Fault> {
        let mask = self.0.compute_mask_or_eos().map_err(|error| Fault::of(&error.to_string()))?;
        Ok(mask.as_slice().to_vec())
    }

    /// Goes on by an id, which the mask must allow.
    pub fn accept(&mut self, id: u32) -> Result<(), Fault> {
        self.0.consume_token(id).map_err(|error| Fault::of(&error.to_string()))
    }

    /// Goes on by a text, cut into whatever tokens; false if it cannot come here, and then nothing else can be asked.
    pub fn accept_text(&mut self, text: &str) -> Result<bool, Fault> {
        let environment = self.0.tok_env().map_err(|error| Fault::of(&error.to_string()))?;
        let ids = environment.tok_trie().greedy_tokenize(text.as_bytes());
        let taken = self.0.try_consume_tokens(&ids).map_err(|error| Fault::of(&error.to_string()))?;
        Ok(taken == ids.len())
    }

    /// The bytes that must come next, whatever else does.
    pub fn forced(&mut self) -> Vec<u8> {
        self.0.compute_ff_bytes()
    }

    /// How many of these ids, a tokenizer's cut of forced bytes, can be taken as they are: at the end, text that follows
    /// might be cut otherwise.
    pub fn usable(&mut self, ids: &[u32]) -> Result<usize, Fault> {
        let valid = self.0.validate_tokens(ids).map_err(|error| Fault::of(&error.to_string()))?;
        let ids = ids.get(..valid).unwrap_or_default();
        let environment = self.0.tok_env().map_err(|error| Fault::of(&error.to_string()))?;
        let (chopped, _) = environment.tok_trie().chop_tokens(&mut AnythingGoes, ids);
        Ok(ids.len().saturating_sub(chopped))
    }

    /// Whether the text could end here.
    pub fn complete(&mut self) -> bool {
        self.0.is_stopped() && !self.0.is_error() || self.0.is_accepting().unwrap_or(false)
    }

    /// Whether the text must end here.
    pub fn ended(&self) -> bool {
        self.0.is_stopped()
    }
}

#[cfg(test)]
mod tests;
