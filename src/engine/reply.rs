//! One reply: the prompt in chunks, then chains of ids, submitted ahead of their results.
//!
//! The next chain is submitted before the ids of the last one are read, going on from an id that only the backend
//! knows; so the device never waits for the reader. What was computed past the end of the reply is dropped.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::chosen::Chosen;
use super::guide::{Guide, Wish};
use super::loaded::Loaded;
use super::output::{Output, Reading};
use super::request::Settings;
use super::result::{FinishReason, GenerationResult, Piece, Timings, Usage};
use super::session::Session;
use super::stop::StopText;
use super::transcript::{Telling, Transcript};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterUse, SamplerSettings};

/// What is to be done, all checked.
pub(super) struct Job {
    pub(super) prompt: Vec<u32>,
    pub(super) settings: Settings,
    pub(super) adapter: Option<AdapterUse>,
    /// How the reply is read; all of it is text without.
    pub(super) reading: Option<Reading>,
    /// Where the backend cannot choose the ids.
    pub(super) chosen: Option<Chosen>,
    /// Beside chance; chosen here then.
    pub(super) wish: Option<Wish>,
    /// When the caller asked.
    pub(super) asked_secs: f64,
}

/// What a reply runs on.
struct Course<'a> {
    loaded: &'a Loaded,
    session: &'a mut Session,
    aborted: &'a dyn Fn() -> bool,
    /// Ids of the reply, at most.
    limit: usize,
}

impl Course<'_> {
    fn may_go_on(&self) -> Result<()> {
        self.loaded.alive()?;
        if (self.aborted)() { Err(Error::new(ErrorKind::Aborted, "the caller ended the reply")) } else { Ok(()) }
    }

    async fn pause(&self) -> Result<()> {
        (self.loaded.environment.yield_now)().await;
        self.may_go_on()
    }

    /// Submits a prompt in chunks; with `choose` the backend chooses the id after it.
    async fn prefill(&mut self, prompt: &[u32], choose: bool) -> Result<()> {
        let backend = self.loaded.backend.as_ref();
        let mut rest = prompt.chunks(backend.max_rows().max(1)).peekable();
        while let Some(chunk) = rest.next() {
            self.session.prefill(backend, chunk, choose && rest.peek().is_none())?;
            self.pause().await?;
        }
        Ok(())
    }

    /// The backend chooses, several ids to a submit.
    async fn chained(&mut self, prompt: &[u32], telling: &mut Telling<'_>) -> Result<FinishReason> {
        self.prefill(prompt, true).await?;
        let backend = self.loaded.backend.as_ref();
        let ahead = self.loaded.submits_ahead();
        let limit = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let mut submitted = 1_u32;
        loop {
            if self.session.open() < ahead && submitted < limit {
                let count = backend.decode_chain().max(1).min(limit - submitted);
                self.session.decode(backend, count, submitted)?;
                submitted += count;
                continue;
            }
            let ids = self.session.collect(backend).await?;
            telling.came();
            if self.loaded.inline {
                (self.loaded.environment.yield_now)().await;
            }
            self.may_go_on()?;
            if let Some(reason) = telling.tell(&ids, None, false)? {
                return Ok(reason);
            }
        }
    }

    /// Logits come back and one id after another is chosen here; ids that are forced come with the one before them.
    async fn chosen(
        &mut self,
        prompt: &[u32],
        mut chosen: Chosen,
        guide: &mut Option<Guide<'_>>,
        telling: &mut Telling<'_>,
    ) -> Result<FinishReason> {
        let Some((last, before)) = prompt.split_last() else {
            return Err(Error::new(ErrorKind::Internal, "a reply to nothing"));
        };
        self.prefill(before, false).await?;
        self.session.mark();
        let (tokenizer, backend) = (&self.loaded.tokenizer, self.loaded.backend.as_ref());
        // Each id needs its own logits where it is told how likely it was.
        let at_once = if chosen.tells() { 0 } else { backend.max_rows().saturating_sub(1) };
        let (mut ids, mut index) = (vec![*last], 0_u32);
        let mut forced = guide.as_mut().map(|guide| guide.take_forced(at_once)).transpose()?.unwrap_or_default();
        loop {
            if !forced.is_empty() {
                let ended = guide.as_mut().map_or(Ok(false), Guide::ended)?;
                telling.came();
                if let Some(reason) = telling.tell(&forced, None, ended)? {
                    return Ok(reason);
                }
                forced.iter().try_for_each(|id| chosen.push(tokenizer, *id))?;
                index = index.saturating_add(u32::try_from(forced.len()).unwrap_or(u32::MAX));
                ids.append(&mut forced);
            }
            let (logits, mask) = {
                let logits = self.session.last_of(backend, &ids);
                // The device works meanwhile.
                beside(logits, || guide.as_mut().map_or(Ok(None), Guide::mask)).await
            };
            let (logits, mask) = (logits?, mask?);
            self.pause().await?;
            let must =
                guide.as_mut().map(|guide| guide.take_forced(1)).transpose()?.and_then(|ids| ids.first().copied());
            let id = match must {
                Some(id) => {
                    chosen.push(tokenizer, id)?;
                    id
                }
                None => {
                    let id = chosen.choose(tokenizer, &logits, mask.as_ref(), index)?;
                    guide.as_mut().map_or(Ok(()), |guide| guide.accept(id))?;
                    id
                }
            };
            telling.came();
            index = index.saturating_add(1);
            let logprob = chosen.logprobs(tokenizer, &logits, id)?;
            let ended = guide.as_mut().map_or(Ok(false), Guide::ended)?;
            if let Some(reason) = telling.tell(&[id], logprob, ended)? {
                return Ok(reason);
            }
            ids = vec![id];
            forced = guide.as_mut().map(|guide| guide.take_forced(at_once)).transpose()?.unwrap_or_default();
        }
    }
}

/// Starts some work, does other work while it is under way, and waits for it.
async fn beside<T, U>(work: impl Future<Output = T>, other: impl FnOnce() -> U) -> (T, U) {
    let mut work = pin!(work);
    let started = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
    let other = other();
    match started {
        Poll::Ready(result) => (result, other),
        Poll::Pending => (work.await, other),
    }
}

impl Job {
    /// Makes all replies on the session, one after another: what they share of their ids is computed once. Whatever comes
    /// of it, the session can be used again.
    pub(super) async fn run(
        &self,
        loaded: &Loaded,
        session: &mut Session,
        aborted: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(&Piece),
    ) -> Result<GenerationResult> {
        let limit = self.settings.max_tokens.min(loaded.context.saturating_sub(self.prompt.len()));
        let mut course = Course { loaded, session, aborted, limit };
        let mut first = self.reply(&mut course, sink, 0).await?;
        for choice in 1..self.settings.n {
            first.others.push(self.reply(&mut course, sink, choice).await?);
        }
        Ok(first)
    }

    async fn reply(
        &self,
        course: &mut Course<'_>,
        sink: &mut dyn FnMut(&Piece),
        choice: u32,
    ) -> Result<GenerationResult> {
        let result = self.stream(course, sink, choice).await;
        let (backend, session) = (course.loaded.backend.as_ref(), &mut *course.session);
        match &result {
            Ok(done) => session.finish(backend, self.prompt.len().saturating_add(done.tokens.len())).await?,
            Err(error) if error.kind() == ErrorKind::Aborted => session.finish(backend, usize::MAX).await?,
            Err(_) => session.abandon(backend).await?,
        }
        result
    }

    /// The seed of one of several replies: the request's own for the first, others as far from it as can be.
    fn seed(&self, choice: u32) -> u32 {
        self.settings.sampler.seed.wrapping_add(choice.wrapping_mul(0x85EB_CA6B))
    }

    async fn stream(
        &self,
        course: &mut Course<'_>,
        sink: &mut dyn FnMut(&Piece),
        choice: u32,
    ) -> Result<GenerationResult> {
        let loaded = course.loaded;
        let (backend, now) = (loaded.backend.as_ref(), &loaded.environment.now_secs);
        let sampler = SamplerSettings { seed: self.seed(choice), ..self.settings.sampler.clone() };
        course.may_go_on()?;
        let started_secs = now();
        let transcript = Transcript {
            decoder: Reading::decoder(self.reading.as_ref(), &loaded.tokenizer),
            output: Output::new(self.reading.as_ref(), &loaded.tokenizer, &self.prompt, sampler.seed),
            stop_text: StopText::new(self.settings.stops.clone()),
            stop_ids: if self.settings.ignore_eos { &[] } else { loaded.tokenizer.stop_ids() },
            limit: course.limit,
            text: String::new(),
            tokens: Vec::new(),
        };
        let mut telling = Telling { transcript, sink, choice, logprobs: Vec::new(), now, first_secs: None };

        let cached = course.session.begin(backend, &self.prompt, true, self.adapter).await?;
        let rest = self.prompt.get(cached..).unwrap_or_default();
        let mut guide = self.wish.as_ref().map(|wish| Guide::new(wish, &loaded.tokenizer)).transpose()?;
        let finish_reason = match &self.chosen {
            None => {
                backend.start_reply(&sampler, &self.prompt)?;
                course.chained(rest, &mut telling).await?
            }
            Some(chosen) => {
                let chosen = chosen.clone().with_seed(sampler.seed);
                course.chosen(rest, chosen, &mut guide, &mut telling).await?
            }
        };
        let constraint_complete = guide.as_mut().map_or(Ok(None), Guide::complete)?;

        let Telling { transcript, logprobs, first_secs, .. } = telling;
        let first_secs = first_secs.unwrap_or(started_secs);
        let timings = Timings::new(self.asked_secs, started_secs, first_secs, now(), transcript.tokens.len());
        let usage = Usage {
            prompt_tokens: self.prompt.len(),
            cached_tokens: cached,
            completion_tokens: transcript.tokens.len(),
        };
        loaded.totals.add(&usage);
        Ok(GenerationResult {
            text: transcript.text,
            reasoning: transcript.output.reasoning,
            tool_calls: transcript.output.calls,
            tokens: transcript.tokens,
            finish_reason,
            constraint_complete,
            usage,
            timings,
            seed: sampler.seed,
            logprobs,
            others: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use pollster::block_on;

    use super::super::fake::{Call, Fake, MAX_ROWS, loaded};
    use super::super::loaded::Loaded;
    use super::super::request::{GenerateRequest, Prompt};
    use super::{FinishReason, GenerationResult, Job};
    use crate::error::{ErrorKind, Result};
    use crate::graph::{AdapterId, AdapterUse};
    use crate::sample::SampleOptions;

    const STOP_ID: u32 = 2047;

    fn job(prompt: &[u32], max_tokens: f64) -> Job {
        let request = GenerateRequest { max_tokens: Some(max_tokens), ..GenerateRequest::new(Prompt::Ids(vec![])) };
        let settings = request.settings(&SampleOptions::default(), || 0).expect("valid");
        Job {
            prompt: prompt.to_vec(),
            settings,
            adapter: None,
            reading: None,
            chosen: None,
            wish: None,
            asked_secs: 0.0,
        }
    }

    fn run(loaded: &Loaded, job: &Job, aborted: &dyn Fn() -> bool) -> Result<GenerationResult> {
        block_on(loaded.turns.take(async |session| job.run(loaded, session, aborted, &mut |_| {}).await))
    }

    fn reply(loaded: &Loaded, prompt: &[u32], max_tokens: f64) -> GenerationResult {
        run(loaded, &job(prompt, max_tokens), &|| false).expect("a reply")
    }

    #[test]
    fn the_next_chain_is_submitted_before_the_last_is_read() {
        let fake = Fake::new(100..200);
        let loaded = loaded(&fake);
        let result = reply(&loaded, &[1, 2, 3], 10.0);
        assert_eq!((result.tokens, result.finish_reason), ((100..110).collect(), FinishReason::Length));
        let (calls, most_open) = fake.calls();
        let expected = [
            Call::Prefill(0, 3, true),
            Call::Decode(3, 4, 1),
            Call::Collect(0),
            Call::Decode(7, 4, 5),
            Call::Collect(1),
            Call::Decode(11, 1, 9),
            Call::Collect(5),
            Call::Collect(9),
        ];
        assert_eq!((calls.as_slice(), most_open), (expected.as_slice(), 2));
    }

    #[test]
    fn a_reply_of_one_id_submits_nothing_after_the_prompt() {
        let fake = Fake::new(vec![9]);
        let prompt: Vec<u32> = (0..MAX_ROWS as u32 + 1).collect();
        assert_eq!(reply(&loaded(&fake), &prompt, 1.0).tokens, [9]);
        let expected = [Call::Prefill(0, MAX_ROWS, false), Call::Prefill(MAX_ROWS as u32, 1, true), Call::Collect(0)];
        assert_eq!(fake.calls().0, expected);
    }

    #[test]
    fn what_comes_after_the_end_is_dropped() {
        let fake = Fake::new(vec![10, 11, 12, STOP_ID, 13, 14, 15, 16, 17]);
        let loaded = loaded(&fake);
        let result = reply(&loaded, &[1, 2, 3], 100.0);
        assert_eq!((result.tokens, result.finish_reason), (vec![10, 11, 12, STOP_ID], FinishReason::Stop));
        assert_eq!(fake.open_tickets(), 0);

        fake.calls();
        let next = reply(&loaded, &[1, 2, 3, 10, 11, 12, STOP_ID, 13, 5], 1.0);
        assert_eq!(next.usage.cached_tokens, 7, "the reply is kept, the rest is not");
        assert_eq!(fake.calls().0.first(), Some(&Call::Prefill(7, 2, true)));
    }

    #[test]
    fn what_one_adapter_computed_is_not_reused_by_another() {
        let loaded = loaded(&Fake::new(100..200));
        let with = |adapter: Option<(u64, f32)>| {
            let adapter = adapter.map(|(id, scale)| AdapterUse { id: AdapterId(id), scale });
            let job = Job { adapter, ..job(&[1, 2, 3], 2.0) };
            run(&loaded, &job, &|| false).expect("a reply").usage.cached_tokens
        };
        for adapter in [None, Some((1, 1.0)), Some((1, 0.5)), Some((2, 0.5)), None] {
            assert_eq!((with(adapter), with(adapter)), (0, 2), "{adapter:?}");
        }
    }

    #[test]
    fn a_reply_fills_the_context_to_its_last_place() {
        let fake = Fake::new(vec![5; 200]);
        let loaded = loaded(&fake);
        let result = reply(&loaded, &[1, 2, 3], 1000.0);
        assert_eq!((result.tokens.len(), result.finish_reason), (loaded.context - 3, FinishReason::Length));
    }

    #[test]
    fn an_error_of_a_chain_leaves_nothing_behind() {
        let fake = Fake::new(100..200);
        fake.bad.set(Some(6));
        let loaded = loaded(&fake);
        let error = run(&loaded, &job(&[1, 2, 3], 20.0), &|| false).expect_err("bad logits");
        assert_eq!((error.kind(), fake.open_tickets()), (ErrorKind::BadLogits, 0));
        let result = reply(&loaded, &[1, 2, 3], 3.0);
        assert_eq!((result.tokens, result.usage.cached_tokens), (vec![100, 101, 102], 0));
    }

    #[test]
    fn an_abort_takes_no_more_than_the_chains_under_way() {
        let fake = Fake::new(100..200);
        let loaded = loaded(&fake);
        let asked = Cell::new(0);
        let aborted = || asked.replace(asked.get() + 1) >= 3;
        let error = run(&loaded, &job(&[1, 2, 3], 90.0), &aborted).expect_err("an abort");
        assert_eq!((error.kind(), fake.open_tickets()), (ErrorKind::Aborted, 0));
        let decodes = fake.calls().0.iter().filter(|call| matches!(call, Call::Decode(..))).count();
        assert_eq!(decodes, 2);
        let result = reply(&loaded, &[1, 2, 3, 100, 101, 102, 7], 1.0);
        assert_eq!(result.usage.cached_tokens, 6, "what was computed is kept");
    }

    #[test]
    fn a_dropped_reply_is_settled_by_the_next() {
        let fake = Fake::new(100..200);
        let loaded = loaded(&fake);
        for polls in 1..6 {
            let (job, never) = (job(&[1, 2, 3], 90.0), || false);
            let mut sink = |_: &super::Piece| {};
            let work = loaded.turns.take(async |session| job.run(&loaded, session, &never, &mut sink).await);
            let mut work = pin!(work);
            for _ in 0..polls {
                assert!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
        }
        assert!(fake.open_tickets() > 0);
        assert_eq!(reply(&loaded, &[1, 2, 3], 6.0).tokens, [100, 101, 102, 103, 104, 105]);
        assert_eq!(fake.open_tickets(), 0);
    }

    #[test]
    fn a_model_with_state_goes_on_from_the_chain_before_the_end() {
        // The prompt but its last token, then that token, then chains of four: states after 2, 3, 7, 11, ... tokens.
        for (length, kept) in [(1, 3), (3, 3), (4, 7), (7, 7), (8, 11), (20, 23), (21, 23)] {
            let script = (100..100 + length - 1).chain([STOP_ID]).chain(200..300);
            let fake = Fake::with_state(script.clone());
            let loaded = loaded(&fake);
            let first = reply(&loaded, &[1, 2, 3], 90.0);
            assert_eq!((first.tokens.len(), first.finish_reason), (length as usize, FinishReason::Stop));
            let turn: Vec<u32> = [1, 2, 3].into_iter().chain(script.take(length as usize)).chain([7, 8, 9]).collect();
            let next = reply(&loaded, &turn, 3.0);
            assert_eq!(next.usage.cached_tokens, kept, "after a reply of {length}");
        }
    }

    #[test]
    fn a_model_with_state_keeps_the_prompt_but_its_last_token() {
        let fake = Fake::with_state(100..200);
        let loaded = loaded(&fake);
        let prompt: Vec<u32> = (0..2 * MAX_ROWS as u32 + 3).collect();
        let cached = |prompt: &[u32], max_tokens| reply(&loaded, prompt, max_tokens).usage.cached_tokens;
        assert_eq!(cached(&prompt, 30.0), 0);
        assert_eq!(cached(&prompt, 30.0), prompt.len() - 1);
        assert_eq!(cached(&prompt, 1.0), prompt.len() - 1);
        let edited: Vec<u32> = prompt.iter().copied().take(12).chain([99, 98]).collect();
        assert_eq!(cached(&edited, 5.0), 0, "what comes before the mark is not kept");
        let longer: Vec<u32> = edited.iter().copied().chain([55]).collect();
        assert_eq!(cached(&longer, 5.0), edited.len());
    }

    #[test]
    fn a_model_with_state_is_as_good_as_new_after_aborts_and_faults() {
        let fake = Fake::with_state(100..200);
        let loaded = loaded(&fake);
        let prompt: Vec<u32> = (0..3 * MAX_ROWS as u32).collect();
        for questions in 0..9 {
            let asked = Cell::new(0);
            let aborted = || asked.replace(asked.get() + 1) >= questions;
            let error = run(&loaded, &job(&prompt, 60.0), &aborted).expect_err("an abort");
            assert_eq!((error.kind(), fake.open_tickets()), (ErrorKind::Aborted, 0));
        }
        let turn: Vec<u32> = prompt.iter().copied().chain([100, 101, 102, 7]).collect();
        assert!(reply(&loaded, &turn, 9.0).usage.cached_tokens >= prompt.len() - 1);

        fake.bad.set(Some(6));
        assert_eq!(run(&loaded, &job(&turn, 20.0), &|| false).expect_err("bad").kind(), ErrorKind::BadLogits);
        assert_eq!(reply(&loaded, &turn, 20.0).usage.cached_tokens, 0);
        for polls in 1..6 {
            let (job, never) = (job(&prompt, 60.0), || false);
            let mut sink = |_: &super::Piece| {};
            let work = loaded.turns.take(async |session| job.run(&loaded, session, &never, &mut sink).await);
            let mut work = pin!(work);
            for _ in 0..polls {
                assert!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
        }
        assert_eq!(reply(&loaded, &prompt, 6.0).tokens, [100, 101, 102, 103, 104, 105]);
    }
}
