//! The replies of a call, as the caller sees them: ids come, become text and are told, until the reply ends. What was
//! computed past its end is dropped.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::chosen::Chosen;
use super::driver;
use super::guide::{Guide, Wish};
use super::live::{LetterBox, Mail, Order};
use super::loaded::Loaded;
use super::output::{Output, Reading};
use super::request::Settings;
use super::result::{FinishReason, GenerationResult, Piece, Timings, Usage};
use super::stop::StopText;
use super::transcript::{Telling, Transcript};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterUse, SamplerSettings};
use crate::sample::Mask;

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

/// One of the replies of a call. The schedule hears of its end however it ends.
struct Choice<'a> {
    letters: Rc<LetterBox>,
    telling: Telling<'a>,
    seed: u32,
    chosen: Option<Chosen>,
    guide: Option<Guide<'a>>,
    /// What may come next, once it is known; it is found out while the device works.
    mask: Option<Option<Mask>>,
    /// How many ids were chosen here.
    index: u32,
    result: Option<GenerationResult>,
}

impl Drop for Choice<'_> {
    fn drop(&mut self) {
        self.letters.finish(usize::MAX);
    }
}

/// Fails once the model was disposed of or the caller gave up.
fn may_go_on(loaded: &Loaded, aborted: &dyn Fn() -> bool) -> Result<()> {
    loaded.alive()?;
    if aborted() { Err(Error::new(ErrorKind::Aborted, "the caller ended the reply")) } else { Ok(()) }
}

impl Job {
    /// Makes all replies, side by side: what they share of their ids is computed once.
    pub(super) async fn run(
        &self,
        loaded: &Rc<Loaded>,
        aborted: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(&Piece),
    ) -> Result<GenerationResult> {
        let work = async {
            let result = self.replies(loaded, aborted, sink).await;
            driver::settled(loaded).await;
            result
        };
        driver::waiting_for(loaded, work).await
    }

    async fn replies(
        &self,
        loaded: &Loaded,
        aborted: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(&Piece),
    ) -> Result<GenerationResult> {
        may_go_on(loaded, aborted)?;
        let choices: Result<Vec<Choice<'_>>> = (0..self.settings.n).map(|choice| self.choice(loaded, choice)).collect();
        let mut choices = choices?;
        let told = self.tell(loaded, &mut choices, aborted, sink).await;
        if let Err(error) = told {
            // What is not an abort may have left anything in the pages.
            if error.kind() != ErrorKind::Aborted {
                choices.iter().for_each(|choice| choice.letters.finish(0));
            }
            return Err(error);
        }
        let mut results = choices.iter_mut().filter_map(|choice| choice.result.take());
        let first = results.next().ok_or_else(|| Error::new(ErrorKind::Internal, "no reply was asked for"))?;
        Ok(GenerationResult { others: results.collect(), ..first })
    }

    /// Hears and tells until all replies have ended.
    async fn tell(
        &self,
        loaded: &Loaded,
        choices: &mut [Choice<'_>],
        aborted: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(&Piece),
    ) -> Result<()> {
        while choices.iter().any(|choice| choice.result.is_none()) {
            poll_fn(|_| match may_go_on(loaded, aborted) {
                Ok(()) if choices.iter().all(|choice| choice.letters.is_empty()) => {
                    match choices.iter_mut().try_for_each(Choice::look_ahead) {
                        Ok(()) => Poll::Pending,
                        error => Poll::Ready(error),
                    }
                }
                outcome => Poll::Ready(outcome),
            })
            .await?;
            for choice in choices.iter_mut() {
                let Some(mail) = choice.letters.take().filter(|_| choice.result.is_none()) else { continue };
                if let Some(reason) = choice.hear(loaded, mail, sink)? {
                    choice.letters.finish(self.prompt.len().saturating_add(choice.telling.transcript.tokens.len()));
                    choice.result = Some(self.result(loaded, choice, reason)?);
                }
            }
        }
        Ok(())
    }

    /// The seed of one of several replies: the request's own for the first, others as far from it as can be.
    fn seed(&self, choice: u32) -> u32 {
        self.settings.sampler.seed.wrapping_add(choice.wrapping_mul(0x85EB_CA6B))
    }

    /// Asks for one of the replies.
    fn choice<'a>(&'a self, loaded: &'a Loaded, choice: u32) -> Result<Choice<'a>> {
        let guide = self.wish.as_ref().map(|wish| Guide::new(wish, &loaded.tokenizer)).transpose()?;
        let seed = self.seed(choice);
        let limit = self.settings.max_tokens.min(loaded.context.saturating_sub(self.prompt.len()));
        let transcript = Transcript {
            decoder: Reading::decoder(self.reading.as_ref(), &loaded.tokenizer),
            output: Output::new(self.reading.as_ref(), &loaded.tokenizer, &self.prompt, seed),
            stop_text: StopText::new(self.settings.stops.clone()),
            stop_ids: if self.settings.ignore_eos { &[] } else { loaded.tokenizer.stop_ids() },
            limit,
            text: String::new(),
            tokens: Vec::new(),
        };
        let now = &loaded.environment.now_secs;
        let order = Order {
            prompt: self.prompt.clone(),
            sampler: SamplerSettings { seed, ..self.settings.sampler.clone() },
            adapter: self.adapter,
            limit,
            by_caller: self.chosen.is_some(),
        };
        Ok(Choice {
            letters: loaded.queue.ask(order),
            telling: Telling { transcript, choice, logprobs: Vec::new(), now, first_secs: None },
            seed,
            chosen: self.chosen.clone().map(|chosen| chosen.with_seed(seed)),
            guide,
            mask: None,
            index: 0,
            result: None,
        })
    }

    fn result(
        &self,
        loaded: &Loaded,
        choice: &mut Choice<'_>,
        finish_reason: FinishReason,
    ) -> Result<GenerationResult> {
        let constraint_complete = choice.guide.as_mut().map_or(Ok(None), Guide::complete)?;
        let Telling { transcript, logprobs, first_secs, now, .. } = &mut choice.telling;
        let started_secs = choice.letters.started_secs().unwrap_or(self.asked_secs);
        let first_secs = first_secs.unwrap_or(started_secs);
        let timings = Timings::new(self.asked_secs, started_secs, first_secs, now(), transcript.tokens.len());
        let usage = Usage {
            prompt_tokens: self.prompt.len(),
            cached_tokens: choice.letters.cached(),
            completion_tokens: transcript.tokens.len(),
        };
        loaded.totals.add(&usage);
        Ok(GenerationResult {
            text: std::mem::take(&mut transcript.text),
            reasoning: std::mem::take(&mut transcript.output.reasoning),
            tool_calls: std::mem::take(&mut transcript.output.calls),
            tokens: std::mem::take(&mut transcript.tokens),
            finish_reason,
            constraint_complete,
            usage,
            timings,
            seed: choice.seed,
            logprobs: std::mem::take(logprobs),
            receipt: None,
            others: Vec::new(),
        })
    }
}

impl Choice<'_> {
    /// Tells what came. Gives the reason if the reply has ended.
    fn hear(&mut self, loaded: &Loaded, mail: Mail, sink: &mut dyn FnMut(&Piece)) -> Result<Option<FinishReason>> {
        self.telling.came();
        match (mail, &mut self.chosen) {
            (Mail::Failed(error), _) => Err(error),
            (Mail::Ids(ids), _) => self.telling.tell(&ids, None, false, sink),
            (Mail::Logits(_), None) => Err(Error::new(ErrorKind::Internal, "logits that nobody asked for")),
            (Mail::Logits(logits), Some(_)) => self.choose(loaded, &logits, sink),
        }
    }

    /// Finds out what may come next, while the device works at its logits.
    fn look_ahead(&mut self) -> Result<()> {
        if let (Some(guide), None, true) = (&mut self.guide, &self.mask, self.letters.is_answered()) {
            self.mask = Some(guide.mask()?);
        }
        Ok(())
    }

    /// Chooses the next id from its logits. Ids that are forced after it are run in one step with it.
    fn choose(
        &mut self,
        loaded: &Loaded,
        logits: &[f32],
        sink: &mut dyn FnMut(&Piece),
    ) -> Result<Option<FinishReason>> {
        let Some(chosen) = &mut self.chosen else { return Ok(None) };
        let tokenizer = &loaded.tokenizer;
        let forced = |guide: &mut Option<Guide<'_>>, most: usize| {
            guide.as_mut().map_or(Ok(Vec::new()), |guide| guide.take_forced(most))
        };
        let ended = |guide: &mut Option<Guide<'_>>| guide.as_mut().map_or(Ok(false), Guide::ended);
        let id = match forced(&mut self.guide, 1)?.first().copied() {
            Some(id) => {
                chosen.push(tokenizer, id)?;
                id
            }
            None => {
                let mask = match self.mask.take() {
                    Some(mask) => mask,
                    None => self.guide.as_mut().map_or(Ok(None), Guide::mask)?,
                };
                let id = chosen.choose(tokenizer, logits, mask.as_ref(), self.index)?;
                self.guide.as_mut().map_or(Ok(()), |guide| guide.accept(id))?;
                id
            }
        };
        self.mask = None;
        self.index = self.index.saturating_add(1);
        let logprob = chosen.logprobs(tokenizer, logits, id)?;
        if let Some(reason) = self.telling.tell(&[id], logprob, ended(&mut self.guide)?, sink)? {
            return Ok(Some(reason));
        }
        // Each id needs its own logits where it is told how likely it was.
        let at_once = if chosen.tells() { 0 } else { loaded.backend.max_rows().saturating_sub(1) };
        let more = forced(&mut self.guide, at_once)?;
        if !more.is_empty() {
            if let Some(reason) = self.telling.tell(&more, None, ended(&mut self.guide)?, sink)? {
                return Ok(Some(reason));
            }
            more.iter().try_for_each(|id| chosen.push(tokenizer, *id))?;
            self.index = self.index.saturating_add(u32::try_from(more.len()).unwrap_or(u32::MAX));
        }
        self.letters.answer([&[id], more.as_slice()].concat());
        Ok(None)
    }
}

#[cfg(test)]
impl Job {
    /// So many replies of so many ids, for tests.
    pub(super) fn of(prompt: &[u32], max_tokens: f64, n: f64) -> Job {
        use super::request::{GenerateRequest, Prompt};
        let request =
            GenerateRequest { max_tokens: Some(max_tokens), n: Some(n), ..GenerateRequest::new(Prompt::Ids(vec![])) };
        let settings = request.settings(&crate::sample::SampleOptions::default(), || 0).expect("valid");
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
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::Future;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::{Context, Waker};

    use pollster::block_on;

    use super::super::fake::{Call, Fake, MAX_ROWS, loaded};
    use super::super::loaded::Loaded;
    use super::{FinishReason, GenerationResult, Job};
    use crate::error::{ErrorKind, Result};
    use crate::graph::{AdapterId, AdapterUse};

    const STOP_ID: u32 = 2047;

    fn job(prompt: &[u32], max_tokens: f64) -> Job {
        Job::of(prompt, max_tokens, 1.0)
    }

    fn run(loaded: &Rc<Loaded>, job: &Job, aborted: &dyn Fn() -> bool) -> Result<GenerationResult> {
        block_on(job.run(loaded, aborted, &mut |_| {}))
    }

    fn reply(loaded: &Rc<Loaded>, prompt: &[u32], max_tokens: f64) -> GenerationResult {
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
        for adapter in [None, Some((1, 1.0)), Some((1, 0.5)), Some((2, 0.5))] {
            assert_eq!((with(adapter), with(adapter)), (0, 2), "{adapter:?}");
        }
        assert_eq!(with(None), 2, "what each computed is kept for itself");
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
        let told = Cell::new(0);
        let aborted = || told.get() > 0;
        let mut sink = |piece: &super::Piece| told.set(told.get() + piece.tokens.len());
        let error = block_on(job(&[1, 2, 3], 90.0).run(&loaded, &aborted, &mut sink)).expect_err("an abort");
        assert_eq!((error.kind(), fake.open_tickets(), told.get()), (ErrorKind::Aborted, 0, 1));
        let decodes = fake.calls().0.iter().filter(|call| matches!(call, Call::Decode(..))).count();
        assert_eq!(decodes, 1, "the chain that was submitted before the first id was read");
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
            let mut work = pin!(job.run(&loaded, &never, &mut sink));
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
            let mut work = pin!(job.run(&loaded, &never, &mut sink));
            for _ in 0..polls {
                assert!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
        }
        assert_eq!(reply(&loaded, &prompt, 6.0).tokens, [100, 101, 102, 103, 104, 105]);
    }
}
