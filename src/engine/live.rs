//! A reply under way, in two halves: what the schedule knows of it, and the letter box through which its caller hears of
//! ids and says when it has heard enough. Only the caller looks into ids, text and calls are its business.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::lookup::Lookup;
use super::speculation::Speculation;
use super::track::Track;
use crate::error::Error;
use crate::graph::{AdapterUse, Change, SamplerSettings, Top};
use crate::sample::{Chooser, Mask};

/// What a reply is made of.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) prompt: Vec<u32>,
    pub(super) sampler: SamplerSettings,
    pub(super) adapter: Option<AdapterUse>,
    /// Whether ids are looked up before they are chosen.
    pub(super) drafts: bool,
    /// Ids, at most.
    pub(super) limit: usize,
    /// The caller chooses the ids, from logits.
    pub(super) by_caller: bool,
    /// The caller says how, while the backend works; logits stay there.
    pub(super) held: bool,
    /// Of a reply that goes on from another prompt than it began with: what it began with, and its ids so far. Penalties and
    /// chance go by those.
    pub(super) earlier: Option<(Vec<u32>, Vec<u32>)>,
}

/// What comes for a caller.
pub(super) enum Mail {
    Ids(Vec<u32>),
    /// The id that was chosen, or known before, and what the logits were. The caller answers as to logits.
    Chosen(Option<u32>, Option<Top>),
    /// `(vocab)`; the caller answers by [`LetterBox::answer`], as it does to an id that was chosen for it.
    Logits(Vec<f32>),
    Failed(Error),
}

/// What a caller says of the next id before it is chosen.
pub(super) struct Next {
    pub(super) how: How,
    /// Its logit is wanted, and so many of the largest.
    pub(super) tells: Option<usize>,
}

/// How an id is chosen whose logits stay on the backend.
pub(super) enum How {
    /// It is known already.
    Known(Option<u32>),
    /// By the backend, of these (of all without), after changes.
    There(Option<Mask>, Vec<Change>),
    /// By filters that the backend does not have, of these, as number so and so of the reply.
    Here(Rc<RefCell<Chooser>>, Option<Mask>, u32),
}

/// Where a caller and the schedule leave word for each other.
#[derive(Default)]
pub(super) struct LetterBox {
    mail: RefCell<VecDeque<Mail>>,
    /// How many tokens of prompt and reply are of use, once the caller is done.
    done: Cell<Option<usize>>,
    answer: RefCell<Vec<u32>>,
    next: RefCell<Option<Next>>,
    cached: Cell<usize>,
    started_secs: Cell<Option<f64>>,
    speculation: Cell<Speculation>,
    /// Counts what callers do, so that whoever did something sees to it that the schedule looks again.
    heard: Rc<Cell<u64>>,
}

impl LetterBox {
    /// One whose caller's doings are counted there.
    pub(super) fn new(heard: Rc<Cell<u64>>) -> Self {
        Self { heard, ..Self::default() }
    }

    fn note(&self) {
        self.heard.set(self.heard.get().wrapping_add(1));
    }

    pub(super) fn put(&self, mail: Mail) {
        self.mail.borrow_mut().push_back(mail);
    }

    pub(super) fn take(&self) -> Option<Mail> {
        let mail = self.mail.borrow_mut().pop_front();
        if mail.is_some() {
            self.note();
        }
        mail
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mail.borrow().is_empty()
    }

    /// The caller has heard enough; the first `keep` tokens of prompt and reply are of use.
    pub(super) fn finish(&self, keep: usize) {
        if self.done.get().is_none() {
            self.done.set(Some(keep));
            self.note();
        }
    }

    pub(super) fn done(&self) -> Option<usize> {
        self.done.get()
    }

    /// The ids that the caller chose, at most as many as a step has rows.
    pub(super) fn answer(&self, ids: Vec<u32>) {
        self.answer.replace(ids);
        // What was said of an id that is known by now says nothing of the next one.
        self.next.take();
        self.note();
    }

    /// The caller says what it knows of the id after those that it answered last.
    pub(super) fn expect(&self, next: Next) {
        self.next.replace(Some(next));
        self.note();
    }

    /// What the caller has said of the next id.
    pub(super) fn expected(&self) -> Option<Next> {
        self.next.take()
    }

    /// What was chosen since the last time.
    pub(super) fn answered(&self) -> Vec<u32> {
        self.answer.take()
    }

    /// Whether what was chosen is being computed.
    pub(super) fn is_answered(&self) -> bool {
        self.answer.borrow().is_empty()
    }

    /// Notes that the reply has its turn for the first time, and how much of its prompt was there.
    pub(super) fn started(&self, now_secs: f64, cached: usize) {
        if self.started_secs.get().is_none() {
            self.started_secs.set(Some(now_secs));
            self.cached.set(cached);
        }
    }

    /// Notes what has come of drafts.
    pub(super) fn speculated(&self, speculation: Speculation) {
        self.speculation.set(speculation);
    }

    pub(super) fn speculation(&self) -> Speculation {
        self.speculation.get()
    }

    pub(super) fn started_secs(&self) -> Option<f64> {
        self.started_secs.get()
    }

    pub(super) fn cached(&self) -> usize {
        self.cached.get()
    }
}

/// What comes next for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Tokens of the prompt are to be computed.
    Prompt,
    /// Ids are to be chosen.
    Reply,
}

/// A reply as the schedule sees it.
pub(super) struct Live {
    /// In the order of asking, from 1.
    pub(super) number: u64,
    pub(super) order: Order,
    pub(super) letters: Rc<LetterBox>,
    /// The ids that were collected.
    pub(super) reply: Vec<u32>,
    /// Ids that were asked of the backend, collected or not.
    pub(super) submitted: usize,
    pub(super) track: Track,
    pub(super) phase: Phase,
    /// Where batches have it, and of how many ids that place knows.
    pub(super) place: Option<(u32, usize)>,
    /// The round in which it last computed a part of its prompt.
    pub(super) round: u64,
    /// The next ids to be run, where the caller chooses.
    pub(super) next: Vec<u32>,
    /// What is expected of it, where ids are looked up.
    pub(super) lookup: Option<Lookup>,
    /// The caller has logits that it has not chosen from, so that all ids that are known were run.
    pub(super) told: bool,
}

impl Live {
    pub(super) fn new(number: u64, order: Order, letters: Rc<LetterBox>) -> Self {
        Self {
            lookup: order.drafts.then(|| Lookup::new(&order.prompt)),
            number,
            order,
            letters,
            reply: Vec::new(),
            submitted: 0,
            track: Track::default(),
            phase: Phase::Prompt,
            place: None,
            round: 0,
            next: Vec::new(),
            told: false,
        }
    }

    /// All ids that are known.
    pub(super) fn ids(&self) -> Vec<u32> {
        [self.order.prompt.as_slice(), &self.reply].concat()
    }

    /// How many of its ids are computed before others are chosen. Of a reply that goes on, the last id is where the next
    /// chain begins, and a caller that chooses wants its logits.
    pub(super) fn target(&self) -> usize {
        let known = self.order.prompt.len().saturating_add(self.reply.len());
        known.saturating_sub(usize::from(self.goes_on() && !self.told))
    }

    /// Whether there is more to do after its prompt than to choose the first id on the device.
    pub(super) fn goes_on(&self) -> bool {
        self.order.by_caller || !self.reply.is_empty() || self.order.earlier.is_some()
    }

    /// The prompt and the ids of the reply so far, as penalties look at them.
    pub(super) fn history(&self) -> (&[u32], Cow<'_, [u32]>) {
        match &self.order.earlier {
            None => (&self.order.prompt, Cow::Borrowed(&self.reply)),
            Some((prompt, before)) => (prompt, Cow::Owned([before.as_slice(), &self.reply].concat())),
        }
    }

    /// Which of all ids of the reply the next one is: that is asked of the backend, or after those that a caller answered.
    pub(super) fn index(&self) -> u32 {
        let before = self.order.earlier.as_ref().map_or(0, |(_, reply)| reply.len());
        let since = if self.order.by_caller { self.reply.len() } else { self.submitted };
        u32::try_from(before.saturating_add(since)).unwrap_or(u32::MAX)
    }

    /// Whether the next ids can be asked of the backend: the caller has heard of the last ones and wants more.
    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Reply
            && !self.order.by_caller
            && self.letters.done().is_none()
            && self.letters.is_empty()
            && self.submitted < self.order.limit
    }

    /// Ids that are still to be asked for.
    pub(super) fn left(&self) -> u32 {
        u32::try_from(self.order.limit.saturating_sub(self.submitted)).unwrap_or(u32::MAX)
    }

    /// Ends it with an error; nobody knows what its pages hold.
    pub(super) fn fail(&mut self, error: Error) {
        self.letters.put(Mail::Failed(error));
        self.letters.done.set(Some(0));
    }
}
