//! The replies of a call, as the caller sees them: ids come, become text and are told, until the reply ends. What was
//! computed past its end is dropped.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::choice::Choice;
use super::chosen::Chosen;
use super::driver;
use super::guide::{Guide, Wish};
use super::live::Order;
use super::loaded::Loaded;
use super::output::{Output, Reading};
use super::overflow::{Dropped, Room};
use super::request::Settings;
use super::result::{FinishReason, GenerationResult, Piece, Timings, Usage};
use super::speculation::{Speculate, Speculation};
use super::stop::StopText;
use super::transcript::{Telling, Transcript};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterUse, SamplerSettings};

/// What is to be done, all checked.
pub(super) struct Job {
    pub(super) prompt: Vec<u32>,
    /// What is not in it, because it had no room.
    pub(super) dropped: Dropped,
    /// How the prompt makes room, where it does.
    pub(super) room: Option<Room>,
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
        if self.dropped != Dropped::default() {
            (0..self.settings.n).for_each(|choice| {
                sink(&Piece { choice, dropped: Some(self.dropped), ..Piece::default() });
            });
        }
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
                    choice.letters.finish(choice.length());
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
        let most =
            if self.room.as_ref().is_some_and(Room::slides) { usize::MAX } else { self.left(loaded, &self.prompt) };
        let transcript = Transcript {
            decoder: Reading::decoder(self.reading.as_ref(), &loaded.tokenizer),
            output: Output::new(self.reading.as_ref(), &loaded.tokenizer, &self.prompt, seed),
            stop_text: StopText::new(self.settings.stops.clone()),
            stop_ids: if self.settings.ignore_eos { &[] } else { loaded.tokenizer.stop_ids() },
            limit: self.settings.max_tokens.min(most),
            text: String::new(),
            tokens: Vec::new(),
        };
        let now = &loaded.environment.now_secs;
        Ok(Choice {
            job: self,
            letters: loaded.queue.ask(self.order(loaded, seed, self.prompt.clone(), None)),
            telling: Telling { transcript, choice, logprobs: Vec::new(), now, first_secs: None },
            seed,
            chosen: self.chosen.as_ref().map(|chosen| chosen.with_seed(seed)),
            guide,
            mask: None,
            index: 0,
            window: (self.prompt.len(), 0),
            dropped: self.dropped,
            began: None,
            speculated: Speculation::default(),
            result: None,
        })
    }

    /// Ids that the context has room for behind these.
    fn left(&self, loaded: &Loaded, ids: &[u32]) -> usize {
        loaded.context.saturating_sub(ids.len())
    }

    /// What the schedule is asked: a reply to `prompt`, or the rest of one that began `earlier`.
    pub(super) fn order(
        &self,
        loaded: &Loaded,
        seed: u32,
        prompt: Vec<u32>,
        earlier: Option<(Vec<u32>, Vec<u32>)>,
    ) -> Order {
        let made = earlier.as_ref().map_or(0, |(_, reply)| reply.len());
        Order {
            limit: self.settings.max_tokens.saturating_sub(made).min(self.left(loaded, &prompt)),
            prompt,
            sampler: SamplerSettings { seed, ..self.settings.sampler.clone() },
            adapter: self.adapter,
            drafts: self.drafts(loaded),
            by_caller: self.chosen.is_some(),
            held: self.chosen.as_ref().is_some_and(Chosen::is_held),
            earlier,
        }
    }

    fn result(
        &self,
        loaded: &Loaded,
        choice: &mut Choice<'_>,
        finish_reason: FinishReason,
    ) -> Result<GenerationResult> {
        let constraint_complete = choice.guide.as_mut().map_or(Ok(None), Guide::complete)?;
        let (started_secs, cached_tokens) = choice.began();
        let speculation = choice.speculation();
        let Telling { transcript, logprobs, first_secs, now, .. } = &mut choice.telling;
        let started_secs = started_secs.unwrap_or(self.asked_secs);
        let first_secs = first_secs.unwrap_or(started_secs);
        let timings = Timings::new(self.asked_secs, started_secs, first_secs, now(), transcript.tokens.len());
        let usage =
            Usage { prompt_tokens: self.prompt.len(), cached_tokens, completion_tokens: transcript.tokens.len() };
        loaded.totals.add(&usage, &speculation);
        Ok(GenerationResult {
            text: std::mem::take(&mut transcript.text),
            reasoning: std::mem::take(&mut transcript.output.reasoning),
            tool_calls: std::mem::take(&mut transcript.output.calls),
            tokens: std::mem::take(&mut transcript.tokens),
            finish_reason,
            constraint_complete,
            dropped: Some(choice.dropped).filter(|dropped| *dropped != Dropped::default()),
            usage,
            timings,
            speculation: Some(speculation).filter(|_| self.settings.speculate != Speculate::Off),
            seed: choice.seed,
            logprobs: std::mem::take(logprobs),
            receipt: None,
            others: Vec::new(),
        })
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
            dropped: Dropped::default(),
            room: None,
            settings,
            adapter: None,
            reading: None,
            chosen: None,
            wish: None,
            asked_secs: 0.0,
        }
    }
}
