//! The engine: a loaded model that answers. Prompts become ids, ids run through a backend, ids become text.
//!
//! Replies are computed side by side, as many as there is room for, and wait in the order in which they were asked for;
//! other calls have the model to themselves when their turn comes. What sequences have computed stays in the pages until
//! its room is needed, so a prompt computes only what follows the longest beginning that is there. After any error but
//! [`Disposed`] the engine can be used again.
//!
//! [`Disposed`]: crate::error::ErrorKind::Disposed

mod adapters;
mod bench;
mod calls;
mod chains;
mod choice;
mod chosen;
mod constraint;
mod defaults;
mod driver;
mod embed;
#[cfg(test)]
mod fake;
mod fit;
mod fit_choices;
mod guide;
mod identity;
mod info;
mod json;
mod live;
mod loaded;
mod lookup;
mod open;
mod options;
mod output;
mod overflow;
mod pace;
mod pack;
mod receipt;
mod reply;
#[cfg(test)]
mod reply_tests;
mod request;
mod rerank;
mod result;
mod saved;
mod schedule;
#[cfg(test)]
mod schedule_tests;
mod score;
mod session;
mod speculation;
#[cfg(test)]
mod speculation_tests;
mod stats;
mod stop;
mod track;
mod transcript;
mod turn;
mod verify;
mod wish;

pub use crate::model::DEFAULT_CONTEXT;
pub use adapters::{AdapterChoice, AdapterInfo, ScaledAdapter};
pub use bench::{BenchReport, BenchRequest, CountersPerToken, Profile, Rate};
pub use chosen::{MAX_TOP_LOGPROBS, TokenLogprob};
pub use constraint::{MAX_ENUM, MAX_PATTERN_BYTES, MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH};
pub use embed::{EmbedRequest, Embeddings, MAX_TEXTS, Texts};
pub use fit::{DeviceLimits, FitReport, Verdict, fit};
pub use fit_choices::{ChangedOptions, Choice};
pub use info::{FileInfo, Info, Kind, Runtime, TemplateInfo, inspect, look};
pub use options::{BackendChoice, Environment, LoadOptions, Phase, Progress};
pub use output::{ReasoningOptions, ToolCall};
pub use overflow::Dropped;
pub use receipt::{Receipt, ReceiptAdapter, ReceiptCheck};
pub use request::{GenerateRequest, Grammar, MAX_STOP_BYTES, MAX_STOPS, Prompt, Stops};
pub use rerank::{Ranked, Ranking, RerankRequest};
pub use result::{FinishReason, GenerationResult, Piece, Timings, Usage};
pub use saved::Restored;
pub use score::{MAX_ITEMS, Score, ScoreItem, ScoreRequest, TextOrIds};
pub use speculation::Speculation;
pub use stats::Stats;

use std::cell::RefCell;
use std::rc::Rc;

use crate::error::{Error, ErrorKind, Result};
use crate::format::Checkpoint;
use crate::graph::AdapterUse;
use crate::source::Source;
use chosen::Chosen;
use identity::hash_ids;
use loaded::{Loaded, TemplateInput, disposed};
use output::Plan;
use overflow::{Room, Window};
use reply::Job;
use request::Settings;

/// Bytes of logits that one call gives back, at most; they pass through the memory of a 32-bit program.
pub const MAX_LOGITS_BYTES: usize = 512 << 20;

/// A loaded model. Clones share it.
#[derive(Clone)]
pub struct Engine(Rc<Shared>);

struct Shared {
    info: Info,
    /// Gone after a dispose.
    loaded: RefCell<Option<Rc<Loaded>>>,
}

impl Engine {
    /// Loads the model of a checkpoint. `progress` is told every phase and may end the load by an error of its own.
    ///
    /// Fails with `InvalidArgument` for options, `UnsupportedFormat`, `MalformedModel`, `MalformedTokenizer` or
    /// `TemplateError` for files, `GpuUnavailable`, `GpuFeatureMissing` or `GpuOutOfMemory` for the device.
    pub async fn load(
        checkpoint: Checkpoint,
        options: &LoadOptions,
        environment: Environment,
        progress: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<Engine> {
        let loaded = open::load(&checkpoint, options, environment, progress).await?;
        let info = loaded.info.clone();
        Ok(Self(Rc::new(Shared { info, loaded: RefCell::new(Some(Rc::new(loaded))) })))
    }

    fn loaded(&self) -> Result<Rc<Loaded>> {
        self.0.loaded.borrow().clone().ok_or_else(disposed)
    }

    /// What the model is and what runs it.
    pub fn info(&self) -> Info {
        self.0.info.clone()
    }

    /// What it has done since it was loaded; nothing is left to tell after a dispose.
    pub fn stats(&self) -> Stats {
        self.loaded().map(|loaded| loaded.stats()).unwrap_or_default()
    }

    /// The ids of a text. `add_special` adds what the tokenizer puts around a text, `parse_special` turns special
    /// tokens written in it into their ids.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        self.loaded()?.tokenizer.encode(text, add_special, parse_special)
    }

    /// The text of ids, special tokens included.
    pub fn detokenize(&self, ids: &[u32]) -> Result<String> {
        self.loaded()?.tokenizer.decode(ids, false)
    }

    /// How many ids a prompt becomes.
    pub fn count_tokens(&self, prompt: &Prompt) -> Result<usize> {
        Ok(self.loaded()?.encode(prompt, TemplateInput::default())?.len())
    }

    /// Makes a reply; `sink` is given its pieces as they come. `aborted` is asked between the steps.
    ///
    /// Everything about the request is checked before any work: `InvalidArgument` (naming option, value and range),
    /// `TemplateError`, `ContextFull` (with the figures; unless `onOverflow` says otherwise). Then `Aborted`, after which the pieces given so far hold and
    /// the computed beginning is kept; `BadLogits`, `DeviceLost` and other faults of the device; `Disposed`. A reply that
    /// reaches the end of the context ends with [`FinishReason::Length`].
    pub async fn generate(
        &self,
        request: &GenerateRequest,
        aborted: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(&Piece),
    ) -> Result<GenerationResult> {
        let loaded = self.loaded()?;
        loaded.needs(Kind::Generator)?;
        let settings = request.settings(&loaded.info.sampling, &loaded.environment.seed)?;
        let asked_secs = (loaded.environment.now_secs)();
        let plan = Plan::new(request, &loaded)?;
        let (Window { ids: prompt, dropped }, room) = prompt_of(&loaded, request, &plan, &settings)?;
        let reading = plan.reading;
        loaded.check_room(prompt.len(), 1)?;
        let adapter = loaded.adapters.chosen(request.adapter.as_ref())?;
        let wish = wish::of(request, &loaded, reading.as_ref(), &prompt).await?;
        let chosen = Chosen::of(request, &settings, &loaded, &prompt, wish.is_some())?;
        let asked = hash_ids(&prompt);
        let job = Job { prompt, dropped, room, settings, adapter, reading, chosen, wish, asked_secs };
        let mut result = job.run(&loaded, aborted, sink).await?;
        for other in &mut result.others {
            other.receipt = Some(Receipt::of(&loaded, request, asked.clone(), other)?);
        }
        result.receipt = Some(Receipt::of(&loaded, request, asked, &result)?);
        Ok(result)
    }

    /// Makes the reply of a receipt again, to the prompt that it is said to answer, and tells whether the receipt holds.
    ///
    /// Fails with `InvalidArgument` for a receipt that cannot be read, with `NotFound` where its adapter is not loaded, and as
    /// [`Engine::generate`] does.
    pub async fn check_receipt(
        &self,
        receipt: &Receipt,
        prompt: Prompt,
        aborted: &dyn Fn() -> bool,
    ) -> Result<ReceiptCheck> {
        let made = self.generate(&receipt.request(prompt)?, aborted, &mut |_| ()).await?;
        match &made.receipt {
            Some(now) => receipt.check(now),
            None => Err(Error::new(ErrorKind::Internal, "a reply without a receipt")),
        }
    }

    /// Writes the keys and values that are kept of the beginning of a request's prompt to `sink`, piece by piece, for
    /// [`Engine::restore`]. Gives how many tokens those are: 0 for models with state, whose pages say nothing without it.
    ///
    /// Fails as [`Engine::generate`] does for a request, and with what `sink` fails with.
    pub async fn save(&self, request: &GenerateRequest, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<usize> {
        let loaded = self.loaded()?;
        loaded.needs(Kind::Generator)?;
        let settings = request.settings(&loaded.info.sampling, &loaded.environment.seed)?;
        let plan = Plan::new(request, &loaded)?;
        let (Window { ids, .. }, _) = prompt_of(&loaded, request, &plan, &settings)?;
        let adapter = request.adapter.as_ref();
        driver::alone(&loaded, async |session| saved::save(&loaded, session, &ids, adapter, sink).await).await
    }

    /// Brings saved keys and values back, so that a prompt which begins with their tokens need not compute them. They are
    /// bound to the model, the format of keys and values, the adapter and the kind of backend: others' are left alone.
    ///
    /// Fails with `IntegrityMismatch` or `SizeMismatch` for damaged bytes, `UnsupportedFormat` for others; nothing is kept then.
    pub async fn restore(&self, source: &dyn Source) -> Result<Restored> {
        let loaded = self.loaded()?;
        loaded.needs(Kind::Generator)?;
        driver::alone(&loaded, async |session| saved::restore(&loaded, session, source).await).await
    }

    /// The logits after every id, `(tokens, vocab)`, all computed anew.
    ///
    /// Fails with `InvalidArgument`, `ContextFull`, `LimitExceeded` past [`MAX_LOGITS_BYTES`], `BadLogits` where a
    /// logit is not a number.
    pub async fn logits(&self, ids: &[u32]) -> Result<Vec<f32>> {
        self.logits_with(ids, None).await
    }

    /// As [`Engine::logits`], with an adapter.
    pub async fn logits_with(&self, ids: &[u32], adapter: Option<&AdapterChoice>) -> Result<Vec<f32>> {
        let loaded = self.loaded()?;
        loaded.needs(Kind::Generator)?;
        let adapter = loaded.adapters.chosen(adapter)?;
        loaded.check_ids(ids)?;
        loaded.check_room(ids.len(), 0)?;
        let size_bytes = ids.len().saturating_mul(loaded.info.vocab_size).saturating_mul(size_of::<f32>());
        if size_bytes > MAX_LOGITS_BYTES {
            let message = format!(
                "the logits of {} tokens are {size_bytes} bytes, at most {MAX_LOGITS_BYTES} are given",
                ids.len()
            );
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        driver::alone(&loaded, async |session| all_logits(&loaded, session, ids, adapter).await).await
    }

    /// Loads an adapter ([`Checkpoint::open_adapter`]) beside the model, under `name` or one of its own. The model's
    /// weights are neither read to memory again nor copied, and replies go on meanwhile. `aborted` is asked now and then.
    ///
    /// Fails with `InvalidArgument` where the name is taken, with `UnsupportedFormat`, `MalformedModel` or
    /// `LimitExceeded` where the adapter does not fit (naming key or tensor), `GpuOutOfMemory`, `Aborted`.
    pub async fn load_adapter(
        &self,
        adapter: &Checkpoint,
        name: Option<&str>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<AdapterInfo> {
        adapters::load(&*self.loaded()?, adapter, name, aborted).await
    }

    /// The resident adapters, in the order in which they were loaded.
    pub fn adapters(&self) -> Result<Vec<AdapterInfo>> {
        Ok(self.loaded()?.adapters.list())
    }

    /// Frees an adapter, once the replies that were asked for before are done. `NotFound` where there is none of that
    /// name.
    pub async fn unload_adapter(&self, name: &str) -> Result<()> {
        let loaded = self.loaded()?;
        driver::alone(&loaded, async |_| adapters::unload(&loaded, name)).await
    }

    /// Makes the vectors of texts, in their order. `aborted` is asked between the steps.
    ///
    /// Everything about the request is checked before any work: `InvalidArgument` (naming option, value and range; also for a
    /// model that makes no embeddings), `ContextFull` (naming the text) unless the request truncates. Then `Aborted`,
    /// `BadLogits` where states are not numbers, `DeviceLost` and other faults of the device; `Disposed`.
    pub async fn embed(&self, request: &EmbedRequest, aborted: &dyn Fn() -> bool) -> Result<Embeddings> {
        let loaded = self.loaded()?;
        loaded.needs(Kind::Embedder)?;
        let settings = request.settings(&loaded.embedding, loaded.hidden_width)?;
        let encode = |(index, text): (usize, &String)| {
            embed::encode(&loaded, text, settings, request.truncate, || format!("texts: item {index}"))
        };
        let texts = request.texts.list().iter().enumerate().map(encode).collect::<Result<Vec<_>>>()?;
        let adapter = loaded.adapters.chosen(request.adapter.as_ref())?;
        driver::alone(&loaded, async |session| embed::run(&loaded, session, &texts, settings, adapter, aborted).await)
            .await
    }

    /// Ranks documents by how well they answer a query, best first. Fails as [`Engine::embed`] does.
    pub async fn rerank(&self, request: &RerankRequest, aborted: &dyn Fn() -> bool) -> Result<Ranking> {
        let loaded = self.loaded()?;
        loaded.needs(Kind::Reranker)?;
        let count = request.count()?;
        let texts = rerank::encode(&loaded, request)?;
        let adapter = loaded.adapters.chosen(request.adapter.as_ref())?;
        driver::alone(&loaded, async |session| rerank::run(&loaded, session, &texts, count, adapter, aborted).await)
            .await
    }

    /// Tells how likely the model finds continuations, in the order of the items. `aborted` is asked between the steps.
    ///
    /// Everything about the request is checked before any work: `InvalidArgument` (naming item, option and range),
    /// `ContextFull` (naming the item) unless the request has a stride. Then as [`Engine::embed`].
    pub async fn score(&self, request: &ScoreRequest, aborted: &dyn Fn() -> bool) -> Result<Vec<Score>> {
        let loaded = self.loaded()?;
        loaded.needs(Kind::Generator)?;
        let windows = score::windows(&loaded, request)?;
        let adapter = loaded.adapters.chosen(request.adapter.as_ref())?;
        let asked = (windows.as_slice(), request.items.len(), score::alternatives(request)?);
        driver::alone(&loaded, async |session| score::run(&loaded, session, asked, adapter, aborted).await).await
    }

    /// Measures prefill and decode, with the counts of the device.
    pub async fn bench(&self, request: &BenchRequest) -> Result<BenchReport> {
        let loaded = self.loaded()?;
        loaded.needs(Kind::Generator)?;
        let report = driver::alone(&loaded, async |session| bench::run(&loaded, session, request).await).await?;
        Ok(BenchReport { together: bench::together(&loaded, request).await?, ..report })
    }

    /// Frees what the model holds, once the reply under way has noticed. Later calls fail with `Disposed`.
    pub fn dispose(&self) {
        if let Some(loaded) = self.0.loaded.borrow_mut().take() {
            loaded.disposed.set(true);
        }
    }
}

/// The ids of a request's prompt, and how they make room.
fn prompt_of(
    loaded: &Loaded,
    request: &GenerateRequest,
    plan: &Plan,
    settings: &Settings,
) -> Result<(Window, Option<Room>)> {
    let input = TemplateInput {
        tools: plan.tools.clone(),
        variables: plan.variables.clone(),
        parse_special: request.parse_special,
        prefill: request.prefill.clone().unwrap_or_default(),
    };
    let ids = loaded.encode(&request.prompt, input.clone())?;
    let room = Room::of(settings.overflow, loaded, &request.prompt, &input, &ids)?;
    let fitted = room.as_ref().map(|room| room.for_reply(loaded, settings.max_tokens)).transpose()?;
    Ok((fitted.unwrap_or(Window { ids, ..Window::default() }), room))
}

/// The logits of all ids, chunk by chunk.
async fn all_logits(
    loaded: &Loaded,
    session: &mut session::Session,
    ids: &[u32],
    adapter: Option<AdapterUse>,
) -> Result<Vec<f32>> {
    let backend = loaded.backend.as_ref();
    let scored = async {
        session.begin(backend, ids, false, adapter).await?;
        let mut logits = Vec::with_capacity(ids.len().saturating_mul(loaded.info.vocab_size));
        for chunk in ids.chunks(backend.max_rows().max(1)) {
            loaded.alive()?;
            logits.extend(session.forward(backend, chunk).await?);
            (loaded.environment.yield_now)().await;
        }
        match logits.iter().position(|logit| !logit.is_finite()) {
            Some(at) => {
                let position = at.checked_div(loaded.info.vocab_size).unwrap_or(0);
                Err(Error::new(ErrorKind::BadLogits, format!("the logits after position {position} are not numbers")))
            }
            None => Ok(logits),
        }
    };
    let result = scored.await;
    if result.is_err() {
        session.abandon(backend).await?;
    }
    result
}
