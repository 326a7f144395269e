//! Replies whose ids are chosen on this side of the device: what is asked for needs the logits themselves.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use serde::Serialize;

use super::json::invalid;
use super::live::{How, Next};
use super::loaded::Loaded;
use super::request::{GenerateRequest, Settings};
use super::score::Odds;
use crate::error::Result;
use crate::graph::Top;
use crate::sample::{Chooser, DryOptions, ExtraOptions, Mask};
use crate::tokenizer::Tokenizer;

/// Alternatives that are told for each id, at most.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// An id and how likely the model found it, by its logits as they are: before bias, penalties, temperature and filters.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenLogprob {
    /// The id.
    pub id: u32,
    /// Its text; what is half a character shows as the replacement character.
    pub text: String,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// The likeliest ids at its place, the likeliest first, as many as were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<TokenLogprob>,
}

/// What a reply that is chosen here needs.
#[derive(Clone)]
pub(super) struct Chosen {
    chooser: Rc<RefCell<Chooser>>,
    /// Alternatives to tell for each id, if anything is told.
    logprobs: Option<usize>,
    /// Texts that DRY's repetitions do not go across.
    breakers: Vec<String>,
    /// Logits stay on the backend where what is wanted of them can be had there.
    held: bool,
}

impl Chosen {
    /// What `request` asks for; nothing where the backend can choose, unless the reply is `guided`. Fails with `InvalidArgument` naming the option.
    pub(super) fn of(
        request: &GenerateRequest,
        settings: &Settings,
        loaded: &Loaded,
        prompt: &[u32],
        guided: bool,
    ) -> Result<Option<Self>> {
        let options = ExtraOptions {
            logit_bias: request.logit_bias.clone().filter(|bias| !bias.is_empty()),
            penalty_window: request.penalty_window,
            dry: request.dry.clone(),
            top_n_sigma: request.top_n_sigma,
            typical_p: request.typical_p,
            xtc: request.xtc,
            mirostat: request.mirostat,
        };
        let logprobs = logprobs(request)?;
        if !guided && logprobs.is_none() && options == ExtraOptions::default() {
            return Ok(None);
        }
        // Where they are made on this side, reading them costs nothing.
        let plain = logprobs.is_none() && options == ExtraOptions::default() && !settings.sampler.penalises();
        let held = plain || !loaded.inline;
        let mut sampler = settings.sampler.clone();
        if options.mirostat.is_some() {
            let filters = [
                ("topK", request.top_k.is_some()),
                ("topP", request.top_p.is_some()),
                ("minP", request.min_p.is_some()),
                ("typicalP", request.typical_p.is_some()),
                ("topNSigma", request.top_n_sigma.is_some()),
                ("xtc", request.xtc.is_some()),
            ];
            if let Some((name, _)) = filters.iter().find(|(_, given)| *given) {
                return Err(invalid(format!("mirostat takes the place of {name}")).at("mirostat"));
            }
            // The model's own defaults of these are not meant either.
            (sampler.top_k, sampler.top_p, sampler.min_p) = (0, 1.0, 0.0);
        }
        let breakers = options.dry.as_ref().map(DryOptions::breakers).unwrap_or_default();
        // Of the prompt; ids of the reply are looked at as they come.
        let containing = |texts: &[String]| {
            let ids: BTreeSet<u32> = prompt.iter().copied().collect();
            let found = |id: &u32| contains(&loaded.tokenizer, *id, texts);
            ids.into_iter().filter_map(|id| found(&id).map(|found| found.then_some(id)).transpose()).collect()
        };
        let extra = options.settings(containing)?;
        let chooser = Chooser::new(loaded.info.vocab_size, prompt, sampler, extra)?;
        Ok(Some(Self { chooser: Rc::new(RefCell::new(chooser)), logprobs, breakers, held }))
    }

    /// The same for another of several replies.
    pub(super) fn with_seed(&self, seed: u32) -> Self {
        let mut chooser = self.chooser.borrow().clone();
        chooser.set_seed(seed);
        Self { chooser: Rc::new(RefCell::new(chooser)), ..self.clone() }
    }

    /// How the next id is chosen, number `index` of the reply: it is known, or one of those that `mask` allows.
    pub(super) fn next(&self, known: Option<u32>, mask: Option<Mask>, index: u32) -> Next {
        let chooser = self.chooser.borrow();
        let how = match known {
            Some(id) => How::Known(Some(id)),
            None if chooser.filters() => How::Here(self.chooser.clone(), mask, index),
            None => How::There(mask, chooser.changes()),
        };
        Next { how, tells: self.logprobs }
    }

    /// The next id of the reply, number `index`, of those that `mask` allows.
    pub(super) fn choose(
        &mut self,
        tokenizer: &Tokenizer,
        logits: &[f32],
        mask: Option<&Mask>,
        index: u32,
    ) -> Result<u32> {
        let id = self.chooser.borrow_mut().choose(logits, mask, index)?;
        self.look_at(tokenizer, id)?;
        Ok(id)
    }

    /// Counts an id as generated that was not chosen.
    pub(super) fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<()> {
        self.chooser.borrow_mut().push(id);
        self.look_at(tokenizer, id)
    }

    fn look_at(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<()> {
        if contains(tokenizer, id, &self.breakers)? {
            self.chooser.borrow_mut().break_at(id);
        }
        Ok(())
    }

    /// Whether logits stay on the backend.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether it is told how likely ids were.
    pub(super) fn tells(&self) -> bool {
        self.logprobs.is_some()
    }

    /// How likely an id was, and what else was likely.
    pub(super) fn logprobs(&self, tokenizer: &Tokenizer, logits: &[f32], id: u32) -> Result<Option<TokenLogprob>> {
        let Some(count) = self.logprobs else { return Ok(None) };
        likeliest(tokenizer, &Odds::of(logits), id, count).map(Some)
    }

    /// The same by what the backend tells of the logits, the first that it was asked for being that of the id.
    pub(super) fn logprobs_of(&self, tokenizer: &Tokenizer, top: &Top, id: u32) -> Result<Option<TokenLogprob>> {
        let (Some(count), Some(logit)) = (self.logprobs, top.named.first()) else { return Ok(None) };
        let (max, log_sum) = (f64::from(top.max), f64::from(top.sum).ln());
        let logprob = |logit: f32| f64::from(logit) - max - log_sum;
        told(tokenizer, (id, *logit), (count, top.largest.clone()), &logprob).map(Some)
    }
}

/// How likely an id is, and the `count` likeliest ids.
pub(super) fn likeliest(tokenizer: &Tokenizer, odds: &Odds<'_>, id: u32, count: usize) -> Result<TokenLogprob> {
    let all = (0..).zip(odds.logits().iter().copied()).collect();
    told(tokenizer, (id, odds.logit(id)), (count, all), &|logit| odds.logprob_of(logit))
}

/// How likely an id was, and the `count` likeliest of `all`.
fn told(
    tokenizer: &Tokenizer,
    (id, logit): (u32, f32),
    (count, mut all): (usize, Vec<(u32, f32)>),
    logprob: &dyn Fn(f32) -> f64,
) -> Result<TokenLogprob> {
    let likelier = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < all.len() {
        all.select_nth_unstable_by(count, likelier);
    }
    all.truncate(count);
    all.sort_unstable_by(likelier);
    let one = |id: u32, logit: f32, top: Vec<TokenLogprob>| {
        Ok(TokenLogprob { id, text: tokenizer.decode(&[id], false)?, logprob: logprob(logit), top })
    };
    let top = all.into_iter().map(|(id, logit)| one(id, logit, Vec::new())).collect::<Result<_>>()?;
    one(id, logit, top)
}

fn logprobs(request: &GenerateRequest) -> Result<Option<usize>> {
    match request.top_logprobs {
        None => Ok(request.logprobs.then_some(0)),
        Some(_) if !request.logprobs => Err(invalid("this option needs `logprobs`").at("topLogprobs")),
        Some(count) => top_logprobs(count).map(Some),
    }
}

/// Checks how many alternatives are asked for.
pub(super) fn top_logprobs(count: f64) -> Result<usize> {
    if (0.0..=MAX_TOP_LOGPROBS as f64).contains(&count) && count.fract() == 0.0 {
        return Ok(count as usize);
    }
    Err(invalid(format!("{count} is not a whole number from 0 to {MAX_TOP_LOGPROBS}")).at("topLogprobs"))
}

/// Whether the text of an id has one of these in it.
fn contains(tokenizer: &Tokenizer, id: u32, texts: &[String]) -> Result<bool> {
    if texts.is_empty() {
        return Ok(false);
    }
    let text = tokenizer.decode(&[id], false)?;
    Ok(texts.iter().any(|breaker| text.contains(breaker.as_str())))
}
