//! Speed: a prefill and a decode of made-up ids, timed, with the device's exact counts beside the times.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::info::Runtime;
use super::json::{self, invalid};
use super::loaded::Loaded;
use super::reply::Job;
use super::request::{GenerateRequest, Prompt};
use super::session::Session;
use super::speculation::Speculation;
use crate::error::{Error, Result};
use crate::graph::{Backend, Counters, KernelTime, MAX_BATCH, SamplerSettings};

/// What to measure. What the context has no room for is made smaller, and the report says so.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BenchRequest {
    /// Ids of the prompt that is timed.
    pub prefill: usize,
    /// Ids that are generated and timed.
    pub decode: usize,
    /// Ids that are in the cache before either begins.
    pub depth: usize,
    /// Replies that are generated side by side and timed after that, where it is more than one.
    pub replies: usize,
    /// Whether replies are timed with and without drafts too, see [`SpeculationRates`].
    pub speculation: bool,
    /// Whether the time of each kernel is told, of a chunk of the prompt and of one generated id.
    pub profile: bool,
}

impl Default for BenchRequest {
    fn default() -> Self {
        Self { prefill: 512, decode: 128, depth: 0, replies: 1, speculation: false, profile: false }
    }
}

impl BenchRequest {
    /// Reads a request from JSON. `InvalidArgument` names what is unknown or wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        json::options(text, &[])
    }

    /// The request that a context has room for, with a note for everything that was made smaller.
    fn clamp(&self, context: usize) -> Result<(Self, Vec<String>)> {
        for (name, count) in [("prefill", self.prefill), ("decode", self.decode)] {
            if count == 0 {
                return Err(invalid("0 ids cannot be timed").at(name));
            }
        }
        if !(1..=MAX_BATCH).contains(&self.replies) {
            return Err(invalid(format!("{} is not a whole number from 1 to {MAX_BATCH}", self.replies)).at("replies"));
        }
        let mut notes = Vec::new();
        let mut at_most = |name: &str, wanted: usize, room: usize| {
            if wanted > room {
                notes.push(format!("{name}: {room} instead of {wanted}, the context is {context}"));
            }
            wanted.min(room)
        };
        let depth = at_most("depth", self.depth, context.saturating_sub(2));
        let prefill = at_most("prefill", self.prefill, context.saturating_sub(depth));
        let decode = at_most("decode", self.decode, context.saturating_sub(depth.max(1)));
        Ok((Self { prefill, decode, depth, ..*self }, notes))
    }
}

/// Ids and the time they took.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Ids.
    pub tokens: usize,
    /// Time in all.
    pub elapsed_secs: f64,
    /// Ids a second.
    pub tokens_per_second: f64,
}

impl Rate {
    fn new(tokens: usize, elapsed_secs: f64) -> Self {
        let tokens_per_second = if elapsed_secs > 0.0 { tokens as f64 / elapsed_secs } else { 0.0 };
        Self { tokens, elapsed_secs, tokens_per_second }
    }
}

/// Counts of the device over the timed ids, divided by their number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CountersPerToken {
    /// Kernel launches.
    pub dispatches: f64,
    /// Compute passes.
    pub passes: f64,
    /// Queue submits.
    pub submits: f64,
    /// Uploads.
    pub writes: f64,
    /// Bytes of those uploads.
    pub write_bytes: f64,
    /// Bytes mapped for reading.
    pub read_bytes: f64,
    /// Buffers, bind groups and pipelines made.
    pub objects: f64,
}

impl CountersPerToken {
    fn between(before: &Counters, after: &Counters, tokens: usize) -> Self {
        let each = |count: fn(&Counters) -> u64| count(after).saturating_sub(count(before)) as f64 / tokens as f64;
        Self {
            dispatches: each(|c| c.dispatches),
            passes: each(|c| c.passes),
            submits: each(|c| c.submits),
            writes: each(|c| c.writes),
            write_bytes: each(|c| c.write_bytes),
            read_bytes: each(|c| c.read_bytes),
            objects: each(|c| c.buffers + c.bind_groups + c.pipelines),
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BenchReport {
    /// The model's name.
    pub model: String,
    /// What ran it.
    pub backend: Option<Runtime>,
    /// Ids that were in the cache before either began.
    pub depth: usize,
    /// The prompt.
    pub prefill: Rate,
    /// The generated ids.
    pub decode: Rate,
    /// The ids of all replies that were generated side by side, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub together: Option<Rate>,
    /// Replies that copy and replies that do not, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speculation: Option<[SpeculationRates; 2]>,
    /// Ids that were submitted at once, at most.
    pub chain: u32,
    /// The same prompt again with all but its last ids cached: those that were computed. The time of `prefill` and of this is
    /// that to the first id.
    pub cached: Rate,
    /// Bytes of weights, keys, values and states that one generated id needs at least.
    pub bytes_per_token: u64,
    /// Counts of one id of the prompt.
    pub prefill_counters: CountersPerToken,
    /// Counts of one generated id.
    pub decode_counters: CountersPerToken,
    /// Where the time goes, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// What was made smaller than asked.
    pub notes: Vec<String>,
}

/// Time of each kernel, each launch by itself: their sum is more than a step takes where launches overlap.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Of all kernels of the prompt, which comes in chunks.
    pub prompt_secs: f64,
    /// Ids of its first chunk.
    pub prefill_tokens: usize,
    /// Of that chunk.
    pub prefill: Vec<KernelTime>,
    /// Of one generated id.
    pub decode: Vec<KernelTime>,
}

/// Ids at the end of a prompt that are new where the others are cached.
const NEW: usize = 16;

/// Runs the measurement. Whatever comes of it, the session can be used again.
pub(super) async fn run(loaded: &Loaded, session: &mut Session, request: &BenchRequest) -> Result<BenchReport> {
    let result = measure(loaded, session, request).await;
    session.abandon(loaded.backend.as_ref()).await?;
    result
}

async fn measure(loaded: &Loaded, session: &mut Session, request: &BenchRequest) -> Result<BenchReport> {
    let (backend, now) = (loaded.backend.as_ref(), &loaded.environment.now_secs);
    let (request, notes) = request.clamp(loaded.context)?;
    let (depth, start) = (request.depth, request.depth.max(1));
    let vocab = u32::try_from(loaded.info.vocab_size.max(1)).unwrap_or(u32::MAX);
    // Any ids do; these are spread over the vocabulary so that the embedding table is not read from one place.
    let ids: Vec<u32> =
        (1..=u32::MAX).map(|i| i.wrapping_mul(0x9E37_79B9) % vocab).take(depth + request.prefill).collect();
    session.forget(backend).await?;
    backend.start_reply(&SamplerSettings::default(), &ids, &[])?;

    // Once through everything first, so that no pipeline is made and no page touched for the first time in what is timed.
    prefill(loaded, session, &ids).await?;
    decode(loaded, session, request.decode.min(backend.decode_chain().max(1) as usize).min(loaded.context - ids.len()))
        .await?;

    // A model with state goes on from the end of a step, so the depth is one.
    session.finish(backend, depth).await?;
    if let Some(first) = ids.get(..depth).filter(|first| !first.is_empty()) {
        prefill(loaded, session, first).await?;
    }
    let (before, began) = (backend.counters(), now());
    prefill(loaded, session, &ids).await?;
    let (prefill_secs, after) = (now() - began, backend.counters());
    let prefill_counters = CountersPerToken::between(&before, &after, request.prefill);

    session.finish(backend, ids.len().saturating_sub(NEW.min(request.prefill))).await?;
    let began = now();
    let computed = prefill(loaded, session, &ids).await?;
    let cached = Rate::new(computed, now() - began);

    session.finish(backend, start).await?;
    prefill(loaded, session, ids.get(..start).unwrap_or(&ids)).await?;
    let (before, began) = (backend.counters(), now());
    decode(loaded, session, request.decode).await?;
    let (decode_secs, after) = (now() - began, backend.counters());

    let profile = match request.profile {
        true => Some(profile(loaded, session, &ids, depth).await?),
        false => None,
    };
    let mean_positions = (start + request.decode / 2) as u64;
    Ok(BenchReport {
        model: loaded.info.name.clone(),
        backend: loaded.info.backend.clone(),
        depth,
        prefill: Rate::new(request.prefill, prefill_secs),
        decode: Rate::new(request.decode, decode_secs),
        together: None,
        speculation: None,
        cached,
        chain: backend.decode_chain(),
        bytes_per_token: loaded.traffic.weight_bytes
            + loaded.traffic.position_bytes * mean_positions
            + loaded.traffic.state_bytes * 2,
        prefill_counters,
        decode_counters: CountersPerToken::between(&before, &after, request.decode),
        profile,
        notes,
    })
}

/// Times the kernels of the prompt after `depth` ids, and of the id after it.
async fn profile(loaded: &Loaded, session: &mut Session, ids: &[u32], depth: usize) -> Result<Profile> {
    let backend = loaded.backend.as_ref();
    let chunks = ids.get(depth..).unwrap_or_default().chunks(backend.max_rows().max(1));
    let first = chunks.clone().next().unwrap_or_default();
    back_to(backend, session, ids, depth).await?;
    let decode = session.profile(backend, first.get(..1).unwrap_or_default()).await?;
    back_to(backend, session, ids, depth).await?;
    let (mut prefill, mut prompt_secs) = (None, 0.0);
    for chunk in chunks {
        let times = session.profile(backend, chunk).await?;
        prompt_secs += times.iter().map(|time| time.secs).sum::<f64>();
        prefill.get_or_insert(times);
    }
    Ok(Profile { prompt_secs, prefill_tokens: first.len(), prefill: prefill.unwrap_or_default(), decode })
}

/// Keeps the first `depth` ids, or computes them again where they cannot be kept alone.
async fn back_to(backend: &dyn Backend, session: &mut Session, ids: &[u32], depth: usize) -> Result<()> {
    session.finish(backend, depth).await?;
    let held = session.begin(backend, ids.get(..depth).unwrap_or_default(), true, None).await?;
    for chunk in ids.get(held..depth).unwrap_or_default().chunks(backend.max_rows().max(1)) {
        session.prefill(backend, chunk, false)?;
    }
    Ok(())
}

/// A reply with drafts and without, in turns: what is measured is the ids after the first one.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeculationRates {
    /// Without, the best of the turns.
    pub plain: Rate,
    /// With drafts, the best of the turns.
    pub drafted: Rate,
    /// What came of them in one reply.
    pub counts: Speculation,
}

/// Turns of [`SpeculationRates`].
const TURNS: usize = 3;

/// Times replies with drafts and without: the likeliest ids after one id again and again, which most models go on
/// repeating, and ids drawn at a temperature of 1, which seldom repeat. Once each before, so that programs are there.
pub(super) async fn speculation(loaded: &Rc<Loaded>, request: &BenchRequest) -> Result<Option<[SpeculationRates; 2]>> {
    let (request, _) = request.clamp(loaded.context)?;
    if !request.speculation {
        return Ok(None);
    }
    let timed = async |temperature: f64, speculation: &str| {
        let ask = GenerateRequest {
            max_tokens: Some(request.decode as f64),
            ignore_eos: true,
            temperature: Some(temperature),
            repetition_penalty: Some(1.0),
            seed: Some(1.0),
            speculation: Some(speculation.to_owned()),
            ..GenerateRequest::new(Prompt::Ids(Vec::new()))
        };
        let result = job(loaded, &ask, vec![1; 10])?.run(loaded, &|| false, &mut |_| {}).await?;
        let rate = Rate::new(result.tokens.len().saturating_sub(1), result.timings.decode_secs);
        Ok::<_, Error>((rate, result.speculation.unwrap_or_default()))
    };
    let both = async |temperature: f64| {
        let best = |a: Rate, b: Rate| if a.elapsed_secs <= b.elapsed_secs { a } else { b };
        let (mut drafted, counts) = timed(temperature, "lookup").await?;
        let (mut plain, _) = timed(temperature, "off").await?;
        for _ in 0..TURNS {
            plain = best(plain, timed(temperature, "off").await?.0);
            drafted = best(drafted, timed(temperature, "lookup").await?.0);
        }
        Ok::<_, Error>(SpeculationRates { plain, drafted, counts })
    };
    Ok(Some([both(0.0).await?, both(1.0).await?]))
}

/// A reply to ids, all of which is text.
fn job(loaded: &Loaded, ask: &GenerateRequest, prompt: Vec<u32>) -> Result<Job> {
    Ok(Job {
        dropped: Default::default(),
        room: None,
        prompt,
        settings: ask.settings(&loaded.info.sampling, || 0)?,
        adapter: None,
        reading: None,
        chosen: None,
        wish: None,
        asked_secs: (loaded.environment.now_secs)(),
    })
}

/// Generates replies side by side: a few ids first, so that what batches need is there when it is timed.
pub(super) async fn together(loaded: &Rc<Loaded>, request: &BenchRequest) -> Result<Option<Rate>> {
    let (request, _) = request.clamp(loaded.context)?;
    if request.replies == 1 {
        return Ok(None);
    }
    let now = &loaded.environment.now_secs;
    let timed = async |tokens: usize| {
        let ask = GenerateRequest {
            max_tokens: Some(tokens as f64),
            n: Some(request.replies as f64),
            ignore_eos: true,
            temperature: Some(0.0),
            ..GenerateRequest::new(Prompt::Ids(Vec::new()))
        };
        let began = now();
        let result = job(loaded, &ask, vec![0])?.run(loaded, &|| false, &mut |_| {}).await?;
        let made = result.tokens.len() + result.others.iter().map(|other| other.tokens.len()).sum::<usize>();
        Ok::<_, Error>(Rate::new(made, now() - began))
    };
    timed(2 * loaded.backend.decode_chain().max(1) as usize).await?;
    timed(request.decode).await.map(Some)
}

/// Computes what the sequence lacks of `ids`, up to the id that follows them. Gives how many it lacked.
async fn prefill(loaded: &Loaded, session: &mut Session, ids: &[u32]) -> Result<usize> {
    let backend = loaded.backend.as_ref();
    let held = session.begin(backend, ids, true, None).await?;
    let now_secs = loaded.environment.now_secs.as_ref();
    let mut rest = ids.get(held..).unwrap_or_default();
    while !rest.is_empty() {
        loaded.alive()?;
        let most = session.pace.next(now_secs, backend.max_rows()).await?;
        let began_secs = now_secs();
        let (chunk, after) = rest.split_at(most.min(rest.len()));
        session.prefill(backend, chunk, after.is_empty())?;
        session.pace.submitted(backend, (chunk.len(), began_secs), now_secs, after.is_empty());
        rest = after;
    }
    session.collect(backend).await?;
    Ok(ids.len().saturating_sub(held))
}

/// Generates `count` ids after those of a prefill.
async fn decode(loaded: &Loaded, session: &mut Session, count: usize) -> Result<()> {
    let backend = loaded.backend.as_ref();
    let (mut submitted, mut collected) = (0, 0);
    while collected < count {
        if submitted < count && session.open() < loaded.submits_ahead() {
            let chain = (backend.decode_chain().max(1) as usize).min(count - submitted);
            session.decode(backend, chain as u32, submitted as u32 + 1)?;
            submitted += chain;
            continue;
        }
        loaded.alive()?;
        collected += session.collect(backend).await?.len();
    }
    Ok(())
}
