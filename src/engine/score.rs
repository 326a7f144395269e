//! Scoring: how likely a model finds given continuations, the requests that evaluation harnesses make.
//!
//! Windows of ids are ordered so that those with a common beginning come one after another; what they share, in whole
//! pages, is computed once, and the rest of them several to a step.

use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::adapters::AdapterChoice;
use super::chosen::{TokenLogprob, likeliest, top_logprobs};
use super::json::{self, invalid};
use super::loaded::{Loaded, TemplateInput};
use super::pack::{self, Read, Text, Wanted, Work};
use super::request::Prompt;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterUse, PAGE_TOKENS};

/// Items of one call, at most.
pub const MAX_ITEMS: usize = 65_536;
/// Bytes of logits that one step reads back.
const LOGITS_BYTES: usize = 16 << 20;

/// A text, or exactly these ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextOrIds {
    /// Special tokens written in it are text.
    Text(String),
    /// Taken as they are.
    Ids(Vec<u32>),
}

impl<'de> Deserialize<'de> for TextOrIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Text(text)),
            ids @ Value::Array(_) => {
                serde_json::from_value(ids).map(Self::Ids).map_err(|error| de::Error::custom(format!("ids: {error}")))
            }
            _ => Err(de::Error::custom("a text or an array of ids is needed")),
        }
    }
}

/// What is scored: a continuation after a context.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScoreItem {
    /// What comes before; not scored. When empty, what the tokenizer puts before a text takes its place. Messages are written
    /// as the chat template does, up to where the reply begins.
    #[serde(default)]
    pub context: Prompt,
    /// What is scored.
    pub continuation: TextOrIds,
}

/// A request for scores.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScoreRequest {
    /// What is scored.
    pub items: Vec<ScoreItem>,
    /// Whether texts begin as the tokenizer begins a text (`<bos>` and such); it does when absent.
    pub add_special: Option<bool>,
    /// Lets an item be longer than the context: it is read in windows as long as the context, each of which scores so many
    /// ids more than the one before. Without it such an item is an error.
    pub stride: Option<f64>,
    /// So many of the likeliest ids at each place are told, up to [`MAX_TOP_LOGPROBS`](super::MAX_TOP_LOGPROBS).
    pub top_logprobs: Option<f64>,
    /// A resident adapter to score with.
    pub adapter: Option<AdapterChoice>,
}

/// How likely a model finds a continuation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Score {
    /// Natural logarithm of the probability of the whole continuation.
    pub logprob: f64,
    /// Whether every id of it is the likeliest one at its place.
    pub is_greedy: bool,
    /// `exp(-logprob / ids)`.
    pub perplexity: f64,
    /// The ids of the continuation.
    pub tokens: Vec<u32>,
    /// The logarithm of the probability of each of them.
    pub token_logprobs: Vec<f64>,
    /// The likeliest ids at the place of each, the likeliest first, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top_logprobs: Vec<Vec<TokenLogprob>>,
}

impl ScoreRequest {
    /// A request with every option absent.
    pub fn new(items: Vec<ScoreItem>) -> Self {
        Self { items, add_special: None, stride: None, top_logprobs: None, adapter: None }
    }

    /// Reads a request of the package's interface. `InvalidArgument` names what is unknown or wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        json::options(text, &[])
    }

    /// Ids that a window scores, at most.
    fn stride(&self, context: usize) -> Result<Option<usize>> {
        match self.stride {
            None => Ok(None),
            Some(stride) if (1.0..=context as f64).contains(&stride) && stride.fract() == 0.0 => {
                Ok(Some(stride as usize))
            }
            Some(stride) => Err(invalid(format!("{stride} is not a whole number from 1 to {context}")).at("stride")),
        }
    }
}

/// How many alternatives are told at each place.
pub(super) fn alternatives(request: &ScoreRequest) -> Result<usize> {
    request.top_logprobs.map_or(Ok(0), top_logprobs)
}

/// Ids of an item of which those in `scored` are scored, each from the ones before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    item: usize,
    ids: Vec<u32>,
    scored: Range<usize>,
}

/// Checks a request and turns it into windows.
pub(super) fn windows(loaded: &Loaded, request: &ScoreRequest) -> Result<Vec<Window>> {
    let count = request.items.len();
    if !(1..=MAX_ITEMS).contains(&count) {
        return Err(invalid(format!("{count} items are outside 1 ..= {MAX_ITEMS}")).at("items"));
    }
    let stride = request.stride(loaded.context)?;
    let special = request.add_special.unwrap_or(true);
    let mut windows = Vec::with_capacity(count);
    for (item, asked) in request.items.iter().enumerate() {
        let place = || format!("items: item {item}");
        let (ids, first) = encode(loaded, asked, special).map_err(|error| error.at(place()))?;
        loaded.check_ids(&ids).map_err(|error| error.at(place()))?;
        // The last id is only predicted, so it takes no room.
        let rows = ids.len().saturating_sub(1);
        if rows > loaded.context && stride.is_none() {
            let words = format!(
                "context and continuation have {} tokens and the context has room for {}; `stride` scores them in windows",
                ids.len(),
                loaded.context
            );
            return Err(Error::new(ErrorKind::ContextFull, words).at(place()));
        }
        let cut = |range: Range<usize>, scored: usize| Window {
            item,
            ids: ids.get(range.clone()).unwrap_or_default().to_vec(),
            scored: range.len().saturating_sub(scored)..range.len(),
        };
        windows.extend(spans(ids.len(), first, loaded.context, stride.unwrap_or(1)).map(|(range, n)| cut(range, n)));
    }
    Ok(windows)
}

/// Where windows of at most `room` ids and one more lie in `len` ids, and how many of its last ids each scores: together
/// all from `first` on.
fn spans(len: usize, first: usize, room: usize, stride: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
    let mut scored = first;
    std::iter::from_fn(move || {
        let end = match scored {
            scored if scored >= len => return None,
            // The first window has nothing before it that another one had scored, so it scores all it can.
            scored if scored == first => len.min((room + 1).max(first + stride)),
            scored => len.min(scored + stride),
        };
        let span = (end.saturating_sub(room + 1)..end, end - scored);
        scored = end;
        Some(span)
    })
}

/// The ids of context and continuation, and where the continuation starts.
///
/// Both are encoded as one text, spaces at the end of the context as the beginning of the continuation, and the
/// continuation starts after as many ids as the context alone has (`_encode_pair` of lm-evaluation-harness).
fn encode(loaded: &Loaded, item: &ScoreItem, special: bool) -> Result<(Vec<u32>, usize)> {
    let tokenizer = &loaded.tokenizer;
    let plain = |text: &str| tokenizer.encode(text, false, false);
    let (context, continuation) = match (&item.context, &item.continuation) {
        (Prompt::Text(context), TextOrIds::Text(continuation)) => {
            let kept = context.trim_end_matches(' ');
            let moved = context.get(kept.len()..).unwrap_or_default();
            let whole = plain(&[kept, moved, continuation].concat())?;
            let mut context = plain(kept)?;
            let continuation = whole.get(context.len()..).unwrap_or_default().to_vec();
            context.splice(.., whole.iter().copied().take(context.len()));
            (begin(loaded, context, special), continuation)
        }
        (context, continuation) => {
            let context = match context {
                Prompt::Text(context) => begin(loaded, plain(context)?, special),
                Prompt::Ids(context) => context.clone(),
                messages => loaded.encode(messages, TemplateInput::default()).map_err(|error| error.at("context"))?,
            };
            match continuation {
                TextOrIds::Text(continuation) => (context, plain(continuation)?),
                TextOrIds::Ids(continuation) => (context, continuation.clone()),
            }
        }
    };
    if continuation.is_empty() {
        return Err(invalid("the continuation is empty").at("continuation"));
    }
    if context.is_empty() {
        let words =
            "there is nothing before the continuation, and this model puts no token before a text; give a context";
        return Err(invalid(words).at("context"));
    }
    Ok(([context.as_slice(), &continuation].concat(), context.len()))
}

/// What the tokenizer puts before a text, then `ids`.
fn begin(loaded: &Loaded, ids: Vec<u32>, special: bool) -> Vec<u32> {
    let prefix = if special { loaded.tokenizer.prefix() } else { &[] };
    [prefix, &ids].concat()
}

/// Scores all windows and adds up those of each of `items`.
pub(super) async fn run(
    loaded: &Loaded,
    session: &mut Session,
    (windows, items, alternatives): (&[Window], usize, usize),
    adapter: Option<AdapterUse>,
    aborted: &dyn Fn() -> bool,
) -> Result<Vec<Score>> {
    let row_bytes = loaded.info.vocab_size.saturating_mul(size_of::<f32>()).max(1);
    let work = Work { read: Read::End, most_outputs: LOGITS_BYTES.div_ceil(row_bytes), adapter, aborted };
    let mut order: Vec<usize> = (0..windows.len()).collect();
    order.sort_by(|a, b| windows.get(*a).map(|w| &w.ids).cmp(&windows.get(*b).map(|w| &w.ids)));
    let ordered: Vec<&Window> = order.iter().filter_map(|index| windows.get(*index)).collect();
    let mut found: Vec<Vec<(f64, bool)>> = vec![Vec::new(); windows.len()];
    let mut told: Vec<Vec<Vec<TokenLogprob>>> = vec![Vec::new(); windows.len()];
    let mut untold = None;

    let mut done = 0;
    while let Some(rest) = ordered.get(done..).filter(|rest| !rest.is_empty()) {
        // Models with state go on from states, not from pages.
        let (count, pages) = if loaded.backend.n_states() > 0 { (rest.len(), 0) } else { family(rest) };
        let family = rest.get(..count).unwrap_or(rest);
        let pause = async || {
            loaded.alive()?;
            if aborted() {
                return Err(Error::new(ErrorKind::Aborted, "ended by the caller's signal"));
            }
            (loaded.environment.yield_now)().await;
            Ok(())
        };
        let ids = family.first().map_or(&[][..], |window| &window.ids);
        let shared = session.share(loaded.backend.as_ref(), ids, pages, adapter, pause).await?;
        let text = |window: &&Window| Text {
            ids: window.ids.split_last().map(|(_, before)| before.to_vec()).unwrap_or_default(),
            shared: shared.clone(),
            wanted: Wanted::From(window.scored.start.saturating_sub(1)),
            ..Text::default()
        };
        let texts: Vec<Text> = family.iter().map(text).collect();
        let mut take = |text: usize, logits: &[f32]| {
            let places = order.get(done + text).and_then(|index| found.get_mut(*index).zip(told.get_mut(*index)));
            let Some((window, (found, told))) = family.get(text).zip(places) else { return };
            let Some(target) = window.ids.get(window.scored.start + found.len()) else { return };
            let odds = Odds::of(logits);
            found.push((odds.logprob(*target), odds.is_likeliest(*target)));
            if alternatives > 0 {
                match likeliest(&loaded.tokenizer, &odds, *target, alternatives) {
                    Ok(TokenLogprob { top, .. }) => told.push(top),
                    Err(error) => untold = Some(error),
                }
            }
        };
        pack::run(loaded, session, &texts, work, &mut take).await?;
        if let Some(error) = untold.take() {
            return Err(error);
        }
        done += count;
    }

    let mut scores = vec![Score { is_greedy: true, ..Score::default() }; items];
    for ((window, found), told) in windows.iter().zip(&found).zip(told) {
        let Some(score) = scores.get_mut(window.item) else { continue };
        score.tokens.extend(window.ids.get(window.scored.clone()).unwrap_or_default());
        score.token_logprobs.extend(found.iter().map(|(logprob, _)| logprob));
        score.top_logprobs.extend(told);
        score.is_greedy &= found.iter().all(|(_, greedy)| *greedy);
    }
    for score in &mut scores {
        score.logprob = score.token_logprobs.iter().sum();
        score.perplexity = (-score.logprob / score.token_logprobs.len().max(1) as f64).exp();
    }
    Ok(scores)
}

/// How many of these windows, which are in order, share their first pages, and how many pages: as many as the first one
/// has before what it scores.
fn family(windows: &[&Window]) -> (usize, usize) {
    let Some((first, others)) = windows.split_first() else { return (0, 0) };
    let before = |window: &Window| window.scored.start.saturating_sub(1);
    let pages = before(first) / PAGE_TOKENS;
    let len = pages * PAGE_TOKENS;
    let same = |other: &&&Window| before(other) >= len && other.ids.get(..len) == first.ids.get(..len);
    (1 + others.iter().take_while(same).count(), pages)
}

/// What turns the logits of one place into probabilities.
pub(super) struct Odds<'a> {
    logits: &'a [f32],
    largest: f32,
    /// Logarithm of the sum of all exponentials, the largest being 1.
    log_sum: f64,
}

impl<'a> Odds<'a> {
    pub(super) fn of(logits: &'a [f32]) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        Self { logits, largest, log_sum: sum.ln() }
    }

    pub(super) fn logits(&self) -> &'a [f32] {
        self.logits
    }

    pub(super) fn logit(&self, id: u32) -> f32 {
        self.logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY)
    }

    /// The logarithm of the probability of an id.
    pub(super) fn logprob(&self, id: u32) -> f64 {
        self.logprob_of(self.logit(id))
    }

    /// The logarithm of the probability of an id with this logit.
    pub(super) fn logprob_of(&self, logit: f32) -> f64 {
        f64::from(logit - self.largest) - self.log_sum
    }

    /// Whether no id is likelier.
    fn is_likeliest(&self, id: u32) -> bool {
        self.logit(id) == self.largest
    }
}

#[cfg(test)]
mod tests {
    use super::{Odds, Window, family, spans};
    use crate::graph::PAGE_TOKENS;

    #[test]
    fn spans_score_every_id_once_and_stay_inside_the_room() {
        for (len, first, room, stride) in
            [(2, 1, 8, 1), (9, 1, 8, 3), (10, 1, 8, 3), (40, 1, 8, 8), (40, 1, 8, 1), (40, 25, 8, 3), (9, 8, 8, 2)]
        {
            let mut next = first;
            for (range, scored) in spans(len, first, room, stride) {
                assert!(range.len() <= room + 1 && range.end <= len, "{range:?}");
                assert_eq!(range.end - scored, next, "of {len} from {first}");
                assert!(scored >= 1 && (scored < range.len() || range.start > 0), "something is before the first");
                next = range.end;
            }
            assert_eq!(next, len);
        }
        let all: Vec<_> = spans(21, 1, 8, 4).collect();
        assert_eq!(all, [(0..9, 8), (4..13, 4), (8..17, 4), (12..21, 4)]);
    }

    #[test]
    fn a_family_shares_whole_pages_before_what_is_scored() {
        let window = |ids: Vec<u32>, start: usize| Window { item: 0, scored: start..ids.len(), ids };
        let context: Vec<u32> = (0..2 * PAGE_TOKENS as u32 + 5).collect();
        let with = |tail: &[u32]| window([&context, tail].concat(), context.len());
        let (a, b) = (with(&[1, 2]), with(&[3]));
        let other = window(vec![9; 3 * PAGE_TOKENS], 2 * PAGE_TOKENS + 1);
        assert_eq!(family(&[&a, &b, &other]), (2, 2));
        assert_eq!(family(&[&other, &a]), (1, 2));
        let short = window(vec![1, 2, 3], 1);
        assert_eq!(family(&[&short, &short, &a]), (3, 0));
    }

    #[test]
    fn probabilities_are_those_of_the_definition() {
        let logits = [1.0_f32, 3.0, -2.0, 3.0];
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        for (id, logit) in (0..).zip(logits) {
            let odds = Odds::of(&logits);
            assert!((odds.logprob(id) - (f64::from(logit) - sum.ln())).abs() < 1e-12);
            assert_eq!(odds.is_likeliest(id), logit == 3.0);
        }
    }
}
