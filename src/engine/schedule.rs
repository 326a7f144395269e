//! The schedule of the replies under way, in rounds: a chunk of a prompt, then a chain of ids for all replies that are
//! past their prompts, then the ids of the oldest chain. So a long prompt holds nobody up for longer than a chunk takes.
//!
//! The next chain is submitted before the ids of the last one are read, going on from ids that only the backend knows; so
//! the device never waits for a caller. Whenever other replies take part than before, the chains under way are read
//! first. Replies that have no room wait in the order of asking; the youngest makes room for older ones, and goes on
//! later from what is left of its prefix.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

use super::driver::PATIENCE;
use super::live::{How, Live, Mail, Next, Phase};
use super::loaded::Loaded;
use super::session::Session;
use super::track::{Common, Open, Track};
use crate::cache::common_prefix;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Backend, HeldChoice, PAGE_TOKENS, TopAsk};
use crate::sample::Mask;

/// What became of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// There is nothing under way.
    Done,
    /// Something was submitted that nobody waited for.
    Submitted,
    /// Ids were waited for.
    Collected,
    /// Callers are to say how it goes on.
    Waits,
}

impl Session {
    /// One round. What goes wrong with a reply goes to its letter box.
    pub(super) async fn round(&mut self, loaded: &Loaded) -> Result<Round> {
        let backend = loaded.backend.as_ref();
        let moves = self.moves;
        self.reap()?;
        self.admit(loaded)?;
        if self.lives.is_empty() && self.common.open.is_empty() {
            return Ok(Round::Done);
        }
        let computed = self.compute_prompt(loaded).await?;
        let stepped = self.step_for_callers(loaded).await;
        let submitted = self.submit_chains(loaded).await?;
        if self.common.open.len() >= loaded.submits_ahead() || !submitted && !self.common.open.is_empty() {
            self.collect_oldest(backend).await;
            return Ok(Round::Collected);
        }
        Ok(match (computed || stepped || submitted, self.moves == moves) {
            (true, _) => Round::Submitted,
            (false, false) => Round::Collected,
            (false, true) => Round::Waits,
        })
    }

    /// Ends the replies that nobody waits for any more, once nothing of them is under way.
    pub(super) fn reap(&mut self) -> Result<()> {
        let mut index = 0;
        while let Some(live) = self.lives.get(index) {
            let under_way = self.common.open.iter().any(|open| open.rows.contains(&live.number));
            match live.letters.done() {
                Some(keep) if !under_way => {
                    let mut ended = self.lives.remove(index);
                    self.forget_on_device(ended.number);
                    ended.track.close(&mut self.common, keep)?;
                }
                _ => index += 1,
            }
        }
        Ok(())
    }

    fn forget_on_device(&mut self, number: u64) {
        self.on_device.alone = self.on_device.alone.filter(|alone| *alone != number);
        if self.on_device.batch.contains(&number) {
            self.on_device.batch.clear();
        }
    }

    /// Takes in the replies that wait, in their order, as long as there is room for the next one.
    fn admit(&mut self, loaded: &Loaded) -> Result<()> {
        while let Some(live) = loaded.queue.next(|live| self.has_room(loaded, live)) {
            self.start(loaded, live)?;
        }
        Ok(())
    }

    fn has_room(&self, loaded: &Loaded, next: &Live) -> bool {
        if self.lives.is_empty() {
            return true;
        }
        // A model with state has states for one sequence.
        let most = if loaded.backend.n_states() > 0 { 1 } else { loaded.backend.max_batch() };
        if self.lives.len() >= most || self.lives.iter().any(|live| live.order.adapter != next.order.adapter) {
            return false;
        }
        let ids = next.ids();
        let held = self.common.pages.held(next.order.adapter, &ids);
        // A page more for each, so that they do not push each other out at once.
        let pages = self.common.pages.taken_by(next.order.adapter, &ids).saturating_add(1);
        if self.common.pages.free_pages() < pages.saturating_add(self.lives.len()) {
            return false;
        }
        // What most of its prompt shares with one that is being computed need not be computed twice.
        let shares = |live: &Live| {
            live.phase == Phase::Prompt
                && common_prefix(&live.order.prompt, &ids).saturating_sub(held) >= ids.len().div_ceil(2)
        };
        !self.lives.iter().any(shares)
    }

    fn start(&mut self, loaded: &Loaded, mut live: Live) -> Result<()> {
        let ids = live.ids();
        match Track::begin(&mut self.common, loaded.backend.as_ref(), &ids, true, live.order.adapter) {
            Ok(track) => live.track = track,
            Err(error) => {
                live.fail(error);
                return Ok(());
            }
        }
        live.letters.started((loaded.environment.now_secs)(), live.track.position());
        live.phase = Phase::Prompt;
        live.submitted = live.reply.len();
        if live.track.position() == live.target() {
            live.past_prompt(&mut self.common, &ids);
        }
        self.lives.push(live);
        Ok(())
    }

    /// Computes a chunk of the prompt that has waited for the longest time. Gives whether there was one.
    async fn compute_prompt(&mut self, loaded: &Loaded) -> Result<bool> {
        let backend = loaded.backend.as_ref();
        let prompts = self.lives.iter().enumerate();
        let prompts = prompts.filter(|(_, live)| live.phase == Phase::Prompt && live.letters.done().is_none());
        let Some((index, _)) = prompts.min_by_key(|(_, live)| (live.round, live.number)) else { return Ok(false) };
        self.rounds += 1;
        let now_secs = loaded.environment.now_secs.as_ref();
        let most = self.pace.next(now_secs, backend.max_rows()).await?;
        let Some(live) = self.lives.get_mut(index) else { return Ok(false) };
        live.round = self.rounds;
        let (ids, goes_on) = (live.ids(), live.goes_on());
        let (first, target) = (live.track.position(), live.target());
        let end = target.min(first.saturating_add(most));
        let choose = end == target && !goes_on;
        if choose && !self.common.open.is_empty() {
            self.collect_all(backend).await;
        }
        let Self { common, lives, on_device, pace, .. } = self;
        let Some(live) = lives.get_mut(index) else { return Ok(false) };
        let mut chunk = || {
            let began_secs = now_secs();
            if choose {
                on_device.alone = None;
                backend.start_reply(&live.order.sampler, &live.order.prompt, &[])?;
            }
            let chunk = ids.get(first..end).unwrap_or_default();
            let ticket = live.track.prefill(common, backend, chunk, choose)?;
            pace.submitted(backend, (chunk.len(), began_secs), now_secs, end == target);
            if let Some(ticket) = ticket {
                common.open.push_back(Open::of(ticket, 1, live.number));
                on_device.alone = Some(live.number);
                live.submitted = 1;
                live.phase = Phase::Reply;
            }
            if end == target {
                if goes_on {
                    live.past_prompt(common, &ids);
                }
                let full = end / PAGE_TOKENS * PAGE_TOKENS;
                if let Some(shared) =
                    loaded.queue.longest_prefix(live.order.adapter, &ids).filter(|_| backend.n_states() == 0)
                {
                    live.track.publish(common, backend, shared > full)?;
                }
            }
            Ok(())
        };
        if let Err(error) = chunk() {
            live.fail(error);
        }
        Ok(true)
    }

    /// Runs the ids of each caller that chose some, and hands it the logits of the last.
    async fn step_for_callers(&mut self, loaded: &Loaded) -> bool {
        let backend = loaded.backend.as_ref();
        let mut stepped = false;
        for index in 0..self.lives.len() {
            let Some(live) = self.lives.get_mut(index) else { continue };
            if live.phase != Phase::Reply || !live.order.by_caller || live.letters.done().is_some() {
                continue;
            }
            let answered = live.letters.answered();
            if !answered.is_empty() {
                live.reply.extend_from_slice(&answered);
                (live.next, live.told) = (answered, false);
            }
            if live.next.is_empty() {
                continue;
            }
            let count = live.next.len();
            // The step takes the place of the reply that is alone on the device.
            if self.on_device.alone.take().is_some() {
                self.collect_all(backend).await;
            }
            if !self.make_room(loaded, index, count).await {
                // Others may have moved up.
                return true;
            }
            let Some(live) = self.lives.get_mut(index) else { continue };
            let tokens = std::mem::take(&mut live.next);
            let mail = if live.order.held {
                live.choose(&mut self.common, backend, &tokens).await
            } else {
                live.track.next(&mut self.common, backend, &tokens).await.map(Mail::Logits)
            };
            match mail {
                Ok(mail) => {
                    live.told = true;
                    live.letters.put(mail);
                }
                Err(error) => live.fail(error),
            }
            stepped = true;
        }
        stepped
    }

    /// Makes room for `count` more tokens of a reply, if need be by putting the youngest off. Gives whether the reply can
    /// go on in this round.
    pub(super) async fn make_room(&mut self, loaded: &Loaded, index: usize, count: usize) -> bool {
        loop {
            let Some(live) = self.lives.get_mut(index) else { return false };
            let Err(error) = live.track.reserve(&mut self.common, count) else { return true };
            if !self.common.open.is_empty() {
                self.collect_all(loaded.backend.as_ref()).await;
                return false;
            }
            let Some(number) = self.lives.get(index).map(|live| live.number) else { return false };
            let youngest = self.lives.iter().map(|live| live.number).max();
            if error.kind() != ErrorKind::ContextFull || self.lives.len() < 2 {
                self.lives.iter_mut().filter(|live| live.number == number).for_each(|live| live.fail(again(&error)));
                return false;
            }
            self.put_off(loaded, youngest.unwrap_or(number));
            // Indices of others may have changed with it; who asked comes again in the next round.
            if self.lives.get(index).is_none_or(|live| live.number != number) {
                return false;
            }
        }
    }

    /// Lets a reply wait again; what it has computed stays for as long as nobody needs the room.
    fn put_off(&mut self, loaded: &Loaded, number: u64) {
        let Some(at) = self.lives.iter().position(|live| live.number == number) else { return };
        let mut live = self.lives.remove(at);
        self.moves += 1;
        self.forget_on_device(number);
        live.place = None;
        let done = live.letters.done();
        match live.track.close(&mut self.common, done.unwrap_or(usize::MAX)) {
            Ok(()) if done.is_none() => loaded.queue.put_back(live),
            Ok(()) => {}
            Err(error) => live.fail(error),
        }
    }

    /// Ends everything with an error.
    pub(super) fn fail_all(&mut self, error: &Error) {
        self.lives.iter_mut().for_each(|live| live.fail(again(error)));
    }
}

impl Live {
    /// Runs ids and has the one after them chosen as the caller says. A caller that says nothing while
    /// the backend works is handed the logits, so that it holds nobody up.
    async fn choose(&mut self, common: &mut Common, backend: &dyn Backend, tokens: &[u32]) -> Result<Mail> {
        self.track.hold(common, backend, tokens, self.index())?;
        let mut polls = 0;
        let expected = poll_fn(|context| {
            let expected = self.letters.expected();
            polls += 1;
            if expected.is_some() || polls > PATIENCE {
                return Poll::Ready(expected);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        });
        let Some(Next { how, tells }) = expected.await else { return backend.held().await.map(Mail::Logits) };
        let sampler = &self.order.sampler;
        let words = |mask: &Option<Mask>| mask.as_ref().map(|Mask(words)| words.clone());
        let id = match how {
            How::Known(id) => id,
            How::There(mask, changes) => {
                let mask = words(&mask);
                let mask = mask.as_deref();
                let choice = HeldChoice { sampler, changes: &changes, mask, tells: tells.is_some() };
                let (id, top) = backend.choose(&choice).await?;
                if top.as_ref().is_some_and(|top| !top.has(tells.unwrap_or(0))) {
                    return backend.held().await.map(Mail::Logits);
                }
                return Ok(Mail::Chosen(Some(id), top));
            }
            How::Here(chooser, mask, index) => {
                let changes = chooser.borrow().changes();
                let named: Vec<u32> = changes.iter().map(|change| change.id).collect();
                let allowed = words(&mask);
                let ask = TopAsk { temperature: sampler.temperature, mask: allowed.as_deref(), named: &named };
                let top = backend.top(&ask).await?;
                let id = chooser.borrow_mut().choose_of(&top, &changes, mask.as_ref(), index)?;
                if id.is_none() {
                    return backend.held().await.map(Mail::Logits);
                }
                id
            }
        };
        let (Some(named), Some(count)) = (id, tells) else { return Ok(Mail::Chosen(id, None)) };
        let top = backend.top(&TopAsk { temperature: 1.0, mask: None, named: &[named] }).await?;
        if top.has(count) { Ok(Mail::Chosen(id, Some(top))) } else { backend.held().await.map(Mail::Logits) }
    }

    /// All but the last of its ids are computed; the last one is where it goes on.
    fn past_prompt(&mut self, common: &mut Common, ids: &[u32]) {
        let Some(last) = ids.last() else { return };
        self.phase = Phase::Reply;
        match self.order.by_caller {
            true => {
                self.track.mark(common);
                self.next = if self.told { Vec::new() } else { vec![*last] };
            }
            false => self.track.go_on_from(*last),
        }
    }
}

/// The same error for another reply.
pub(super) fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.message().to_owned()).at(error.place())
}

/// Replies that wait, in the order of asking.
pub(super) type Waiting = VecDeque<Live>;
