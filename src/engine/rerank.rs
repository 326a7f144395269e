//! Reranking: how well documents answer a query, judged by a model that reads both at once.

use serde::{Deserialize, Serialize};

use super::adapters::AdapterChoice;
use super::embed::MAX_TEXTS;
use super::json::{self, invalid};
use super::loaded::Loaded;
use super::pack::{self, Read, Text, Wanted, Work};
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::AdapterUse;

/// A request for a ranking.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RerankRequest {
    /// What is asked.
    pub query: String,
    /// What may answer it.
    pub documents: Vec<String>,
    /// Only so many of the best; all when absent.
    pub top_k: Option<f64>,
    /// Whether a pair that is too long loses the end of its longer text; without, it is an error.
    #[serde(default)]
    pub truncate: bool,
    /// A resident adapter to judge with.
    pub adapter: Option<AdapterChoice>,
}

impl RerankRequest {
    /// A request with every option absent.
    pub fn new(query: String, documents: Vec<String>) -> Self {
        Self { query, documents, top_k: None, truncate: false, adapter: None }
    }

    /// Reads a request of the package's interface. `InvalidArgument` names what is unknown or wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        json::options(text, &[])
    }

    /// How many of the best are wanted.
    pub(super) fn count(&self) -> Result<usize> {
        let documents = self.documents.len();
        if !(1..=MAX_TEXTS).contains(&documents) {
            return Err(invalid(format!("{documents} documents are outside 1 ..= {MAX_TEXTS}")).at("documents"));
        }
        match self.top_k {
            None => Ok(documents),
            Some(count) if count >= 1.0 && count.fract() == 0.0 => Ok((count as usize).min(documents)),
            Some(count) => Err(invalid(format!("{count} is not a whole number from 1 on")).at("topK")),
        }
    }
}

/// What a model thinks of one document.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// Which document.
    pub index: usize,
    /// How well it answers: from 0 to 1, unless the model's authors want the logit as it is.
    pub score: f32,
    /// What the model's head gave.
    pub logit: f32,
}

/// A ranking, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// The best documents.
    pub results: Vec<Ranked>,
    /// Ids of all pairs together.
    pub prompt_tokens: usize,
}

/// The ids of every pair as the model is to see it.
pub(super) fn encode(loaded: &Loaded, request: &RerankRequest) -> Result<Vec<Text>> {
    let tokenizer = &loaded.tokenizer;
    let room = loaded.context.saturating_sub(tokenizer.around_pair(&[], &[])?.ids.len());
    let query = tokenizer.encode(&request.query, false, false)?;
    let pair = |(index, document): (usize, &String)| {
        let document = tokenizer.encode(document, false, false)?;
        let (mut first, mut second) = (query.as_slice(), document.as_slice());
        let total = first.len().saturating_add(second.len());
        if total > room && !request.truncate {
            let words = format!(
                "query and document have {total} tokens and the context has room for {room}; `truncate` takes their beginnings"
            );
            return Err(Error::new(ErrorKind::ContextFull, words).at(format!("documents: item {index}")));
        }
        (first, second) = longest_first(first, second, room);
        let pair = tokenizer.around_pair(first, second)?;
        Ok(Text { ids: pair.ids, segments: pair.segments, wanted: Wanted::First, ..Text::default() })
    };
    request.documents.iter().enumerate().map(pair).collect()
}

/// Takes from the end of the longer text until both have room, as the reference does.
fn longest_first<'a>(first: &'a [u32], second: &'a [u32], room: usize) -> (&'a [u32], &'a [u32]) {
    let half = room / 2;
    let (mut one, mut two) = (first.len(), second.len());
    if one.saturating_add(two) > room {
        (one, two) = match (one <= half, two <= half) {
            (true, _) => (one, room.saturating_sub(one)),
            (_, true) => (room.saturating_sub(two), two),
            // An odd place goes to the longer one.
            _ if one > two => (room.saturating_sub(half), half),
            _ => (half, room.saturating_sub(half)),
        };
    }
    (first.get(..one).unwrap_or(first), second.get(..two).unwrap_or(second))
}

/// Runs the pairs and ranks them.
pub(super) async fn run(
    loaded: &Loaded,
    session: &mut Session,
    texts: &[Text],
    count: usize,
    adapter: Option<AdapterUse>,
    aborted: &dyn Fn() -> bool,
) -> Result<Ranking> {
    let mut logits = vec![0f32; texts.len()];
    let mut take = |text: usize, row: &[f32]| {
        if let (Some(logit), Some(first)) = (logits.get_mut(text), row.first()) {
            *logit = *first;
        }
    };
    let work = Work { read: Read::End, most_outputs: usize::MAX, adapter, aborted };
    pack::run(loaded, session, texts, work, &mut take).await?;
    let score = |logit: f32| if loaded.raw_scores { logit } else { 1.0 / (1.0 + (-logit).exp()) };
    let ranked = |(index, logit): (usize, &f32)| Ranked { index, score: score(*logit), logit: *logit };
    let mut results: Vec<Ranked> = logits.iter().enumerate().map(ranked).collect();
    // The order of the documents among equals: the sort is stable.
    results.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    results.truncate(count);
    Ok(Ranking { results, prompt_tokens: texts.iter().map(|text| text.ids.len()).sum() })
}

#[cfg(test)]
mod tests {
    use super::{RerankRequest, longest_first};
    use crate::error::ErrorKind;

    #[test]
    fn the_longer_text_loses_its_end_first() {
        let ids: Vec<u32> = (0..100).collect();
        let lens = |one: usize, two: usize, room: usize| {
            let (first, second) = longest_first(&ids[..one], &ids[..two], room);
            (first.len(), second.len())
        };
        assert_eq!(lens(10, 20, 30), (10, 20));
        assert_eq!(lens(10, 90, 30), (10, 20));
        assert_eq!(lens(90, 10, 30), (20, 10));
        assert_eq!(lens(90, 80, 30), (15, 15));
        assert_eq!((lens(90, 80, 31), lens(80, 90, 31), lens(80, 80, 31)), ((16, 15), (15, 16), (15, 16)));
        assert_eq!(lens(15, 16, 30), (15, 15));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (json, place, words) in [
            (r#"{"query": "x", "documents": []}"#, "documents", "0 documents are outside"),
            (r#"{"query": "x", "documents": ["y"], "topK": 0}"#, "topK", "0 is not a whole number"),
            (r#"{"query": "x", "documents": "y"}"#, "documents", "sequence"),
            (r#"{"query": "x", "documents": ["y"], "colour": 1}"#, "colour", "colour"),
            (r#"{"documents": ["y"]}"#, "", "query"),
        ] {
            let error = RerankRequest::from_json(json).and_then(|request| request.count()).expect_err(json);
            assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, place), "{json}");
            assert!(error.message().contains(words), "{json}: {error}");
        }
        let request = RerankRequest::from_json(r#"{"query": "x", "documents": ["y", "z"], "topK": 7}"#).expect("valid");
        assert_eq!(request.count().expect("valid"), 2);
    }
}
