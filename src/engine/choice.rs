//! One of the replies of a call: ids or logits come, ids are told, and the schedule is told how it goes on. Where the context
//! is full it may go on from another window of its ids.

use std::rc::Rc;

use super::chosen::Chosen;
use super::guide::Guide;
use super::live::{LetterBox, Mail};
use super::loaded::Loaded;
use super::overflow::Dropped;
use super::reply::Job;
use super::result::{FinishReason, GenerationResult, Piece};
use super::speculation::Speculation;
use super::transcript::Telling;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Top;
use crate::sample::Mask;

/// One of the replies of a call. The schedule hears of its end however it ends.
pub(super) struct Choice<'a> {
    pub(super) job: &'a Job,
    pub(super) letters: Rc<LetterBox>,
    pub(super) telling: Telling<'a>,
    pub(super) seed: u32,
    pub(super) chosen: Option<Chosen>,
    pub(super) guide: Option<Guide<'a>>,
    /// What may come next, once it is known; it is found out while the device works.
    pub(super) mask: Option<Option<Mask>>,
    /// How many ids were chosen here.
    pub(super) index: u32,
    /// Ids that the schedule was given to go on from, and how many of the reply are among them or before them.
    pub(super) window: (usize, usize),
    pub(super) dropped: Dropped,
    /// When it had its first turn, and how much of the prompt was there, once it has gone on from another window.
    pub(super) began: Option<(Option<f64>, usize)>,
    /// What came of drafts before it went on from another window.
    pub(super) speculated: Speculation,
    pub(super) result: Option<GenerationResult>,
}

/// Where the next id comes from, unless it is forced.
#[derive(Clone, Copy)]
enum Source<'a> {
    Backend(Option<u32>, Option<&'a Top>),
    Logits(&'a [f32]),
}

impl Drop for Choice<'_> {
    fn drop(&mut self) {
        self.letters.finish(usize::MAX);
    }
}

impl Choice<'_> {
    /// Tells what came. Gives the reason if the reply has ended.
    pub(super) fn hear(
        &mut self,
        loaded: &Loaded,
        mail: Mail,
        sink: &mut dyn FnMut(&Piece),
    ) -> Result<Option<FinishReason>> {
        self.telling.came();
        let ended = match (mail, &mut self.chosen) {
            (Mail::Failed(error), _) => Err(error),
            (Mail::Ids(ids), None) => self.telling.tell(&ids, None, false, sink),
            (Mail::Chosen(id, top), Some(_)) => self.choose(loaded, Source::Backend(id, top.as_ref()), sink),
            (Mail::Ids(_), Some(_)) | (Mail::Chosen(..), None) => {
                Err(Error::new(ErrorKind::Internal, "an id that nobody asked for"))
            }
            (Mail::Logits(_), None) => Err(Error::new(ErrorKind::Internal, "logits that nobody asked for")),
            (Mail::Logits(logits), Some(_)) => self.choose(loaded, Source::Logits(&logits), sink),
        }?;
        if ended.is_none() && self.chosen.is_none() && self.room(loaded) == 0 {
            self.slide(loaded, sink)?;
        }
        Ok(ended)
    }

    /// When it had its first turn, and how much of the prompt was there.
    pub(super) fn began(&self) -> (Option<f64>, usize) {
        self.began.unwrap_or((self.letters.started_secs(), self.letters.cached()))
    }

    /// What came of drafts.
    pub(super) fn speculation(&self) -> Speculation {
        let mut all = self.speculated;
        all.add(&self.letters.speculation());
        all
    }

    /// Ids that the schedule knows of, and those that were told since.
    pub(super) fn length(&self) -> usize {
        let (ids, from) = self.window;
        ids.saturating_add(self.telling.transcript.tokens.len()).saturating_sub(from)
    }

    /// Ids that the context has room for still.
    fn room(&self, loaded: &Loaded) -> usize {
        loaded.context.saturating_sub(self.length())
    }

    /// Goes on from another window, since the context is full.
    fn slide(&mut self, loaded: &Loaded, sink: &mut dyn FnMut(&Piece)) -> Result<()> {
        let Some(room) = &self.job.room else { return Ok(()) };
        let tokens = &self.telling.transcript.tokens;
        let window = room.for_more(loaded, tokens)?;
        let (count, earlier) = (window.ids.len(), Some((self.job.prompt.clone(), tokens.clone())));
        self.began = Some(self.began());
        self.speculated = self.speculation();
        self.letters.finish(usize::MAX);
        self.window = (count, tokens.len());
        self.dropped = window.dropped;
        self.letters = loaded.queue.ask(self.job.order(loaded, self.seed, window.ids, earlier));
        sink(&Piece { choice: self.telling.choice, dropped: Some(self.dropped), ..Piece::default() });
        Ok(())
    }

    /// Finds out what may come next, while the device works at its logits.
    pub(super) fn look_ahead(&mut self) -> Result<()> {
        let (Some(chosen), None, true) = (&self.chosen, &self.mask, self.letters.is_answered()) else {
            return Ok(());
        };
        let mask = self.guide.as_mut().map_or(Ok(None), Guide::mask)?;
        if chosen.is_held() {
            let known = self.guide.as_ref().and_then(Guide::known);
            self.letters.expect(chosen.next(known, mask.clone(), self.index));
        }
        self.mask = Some(mask);
        Ok(())
    }

    /// Goes on by the next id. Ids that are forced after it are run in one step with it.
    fn choose(
        &mut self,
        loaded: &Loaded,
        from: Source<'_>,
        sink: &mut dyn FnMut(&Piece),
    ) -> Result<Option<FinishReason>> {
        let length = self.length();
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
                let id = match from {
                    Source::Backend(Some(id), _) => {
                        chosen.push(tokenizer, id)?;
                        id
                    }
                    Source::Backend(None, _) => return Err(Error::new(ErrorKind::Internal, "no id was chosen")),
                    Source::Logits(logits) => {
                        let mask = match self.mask.take() {
                            Some(mask) => mask,
                            None => self.guide.as_mut().map_or(Ok(None), Guide::mask)?,
                        };
                        chosen.choose(tokenizer, logits, mask.as_ref(), self.index)?
                    }
                };
                self.guide.as_mut().map_or(Ok(()), |guide| guide.accept(id))?;
                id
            }
        };
        self.mask = None;
        self.index = self.index.saturating_add(1);
        let logprob = match from {
            Source::Logits(logits) => chosen.logprobs(tokenizer, logits, id)?,
            Source::Backend(_, top) => top.map(|top| chosen.logprobs_of(tokenizer, top, id)).transpose()?.flatten(),
        };
        let room = loaded.context.saturating_sub(length).saturating_sub(1);
        if let Some(reason) = self.telling.tell(&[id], logprob, ended(&mut self.guide)?, sink)? {
            return Ok(Some(reason));
        }
        // Each id needs its own logits where it is told how likely it was.
        let at_once = if chosen.tells() { 0 } else { loaded.backend.max_rows().saturating_sub(1) };
        let more = forced(&mut self.guide, at_once.min(room))?;
        if !more.is_empty() {
            if let Some(reason) = self.telling.tell(&more, None, ended(&mut self.guide)?, sink)? {
                return Ok(Some(reason));
            }
            more.iter().try_for_each(|id| chosen.push(tokenizer, *id))?;
            self.index = self.index.saturating_add(u32::try_from(more.len()).unwrap_or(u32::MAX));
        }
        if self.room(loaded) == 0 {
            self.slide(loaded, sink)?;
        } else {
            self.letters.answer([&[id], more.as_slice()].concat());
        }
        Ok(None)
    }
}
