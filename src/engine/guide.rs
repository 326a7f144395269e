//! What guides the ids of a reply beside chance: a constraint on its answer, a budget for its reasoning, beginnings and
//! ends that are written for it.
//!
//! A reply thinks first, where the model does, and answers then; the constraint is on the answer alone. What must come next
//! is not chosen: it is forced, several ids at once.

use std::collections::VecDeque;

use crate::chat::ThinkingSigns;
use crate::error::{Error, ErrorKind, Result};
use crate::sample::{Constraint, Mask};
use crate::tokenizer::{StreamDecoder, Tokenizer};

/// Where a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It may begin to think, or answer.
    Opening,
    /// So many ids long.
    Thinking(usize),
    Answering,
}

/// The signs of the reasoning as ids.
#[derive(Clone, Debug)]
pub(super) struct Signs {
    words: ThinkingSigns,
    /// The sign that opens it, where it is one id.
    open: Option<u32>,
    /// What ends it, up to the answer.
    close: Vec<u32>,
    /// What stands between its end and the answer.
    after: Vec<u32>,
}

impl Signs {
    pub(super) fn new(words: ThinkingSigns, tokenizer: &Tokenizer) -> Result<Self> {
        let ids = |text: &str| tokenizer.encode(text, false, true);
        let open = match ids(words.open)?.as_slice() {
            [id] => Some(*id),
            _ => None,
        };
        let (close, after) = (ids(words.close)?, ids(words.after)?);
        Ok(Self { words, open, close, after })
    }
}

/// What a request asks for beside chance.
pub(super) struct Wish {
    /// How the model shows that it thinks; nothing where it does not, or shall not.
    pub(super) signs: Option<Signs>,
    /// The prompt ends inside of the reasoning, or the reply begins there because `opening` says so.
    pub(super) opened: bool,
    /// Written at the beginning.
    pub(super) opening: Vec<u32>,
    /// Ids of the reasoning, at most.
    pub(super) budget: Option<usize>,
    /// Written before the answer, where it is constrained.
    pub(super) lead: Vec<u32>,
    pub(super) constraint: Option<Box<dyn Constraint>>,
    /// Ids that end a reply.
    pub(super) ends: Vec<u32>,
    /// Ids of the vocabulary.
    pub(super) vocab: usize,
}

/// Guides one reply.
pub(super) struct Guide<'a> {
    tokenizer: &'a Tokenizer,
    wish: &'a Wish,
    constraint: Option<Box<dyn Constraint>>,
    phase: Phase,
    decoder: StreamDecoder,
    /// The text of the phase, as far as its end may still be looked for.
    text: String,
    /// What must come next.
    forced: VecDeque<u32>,
    /// Of those, how many the constraint has not followed: they are none of the answer.
    before: usize,
}

impl<'a> Guide<'a> {
    pub(super) fn new(wish: &'a Wish, tokenizer: &'a Tokenizer) -> Result<Self> {
        let phase = match &wish.signs {
            Some(_) if wish.opened => Phase::Thinking(0),
            // With a constraint, one id has to tell the two apart.
            Some(signs) if wish.constraint.is_none() || signs.open.is_some() => Phase::Opening,
            _ => Phase::Answering,
        };
        let signs = wish.signs.iter().flat_map(|signs| signs.close.iter().chain(&signs.open)).copied().collect();
        let mut guide = Self {
            tokenizer,
            wish,
            constraint: wish.constraint.as_ref().map(|constraint| constraint.fork()).transpose()?,
            phase,
            decoder: tokenizer.stream_keeping(signs),
            text: String::new(),
            forced: VecDeque::new(),
            before: 0,
        };
        guide.write(&wish.opening);
        match phase {
            Phase::Opening => {}
            Phase::Thinking(_) => guide.mind_budget(),
            Phase::Answering => guide.answer(&[])?,
        }
        Ok(guide)
    }

    /// What comes next, where it is known.
    pub(super) fn known(&self) -> Option<u32> {
        self.forced.front().copied()
    }

    /// The ids that may come next; nothing where all may.
    pub(super) fn mask(&mut self) -> Result<Option<Mask>> {
        let Some(constraint) = &mut self.constraint else { return Ok(None) };
        if !self.forced.is_empty() {
            return Ok(None);
        }
        match self.phase {
            Phase::Thinking(_) => Ok(Some(Mask::all_but(self.wish.vocab, &self.wish.ends))),
            Phase::Answering => constraint.mask().map(Some),
            Phase::Opening => {
                let mut mask = constraint.mask()?;
                self.wish.signs.iter().filter_map(|signs| signs.open).for_each(|open| mask.add(open));
                Ok(Some(mask))
            }
        }
    }

    /// What must come next, at most `most` ids of it; it counts as accepted.
    pub(super) fn take_forced(&mut self, most: usize) -> Result<Vec<u32>> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(id) = self.forced.pop_front() else { break };
            taken.push(id);
            match self.before.checked_sub(1) {
                Some(before) => self.before = before,
                None => self.follow(id)?,
            }
            if self.forced.is_empty() && self.phase == Phase::Answering {
                self.force()?;
            }
        }
        Ok(taken)
    }

    /// Goes on by an id that was chosen.
    pub(super) fn accept(&mut self, id: u32) -> Result<()> {
        match self.phase {
            Phase::Answering => {
                self.follow(id)?;
                self.force()
            }
            Phase::Opening => self.open(id),
            Phase::Thinking(count) => {
                self.phase = Phase::Thinking(count.saturating_add(1));
                self.text.push_str(&self.decoder.push(id)?);
                let Some(signs) = &self.wish.signs else { return Ok(()) };
                if let Some((_, rest)) = self.text.split_once(signs.words.close) {
                    if self.constraint.is_some() && !rest.trim().is_empty() {
                        let words = "the model began its answer in the token that ended its reasoning";
                        return Err(Error::new(ErrorKind::SchemaUnsupported, words));
                    }
                    return self.answer(if self.constraint.is_some() { &signs.after } else { &[] });
                }
                let mut keep = self.text.len().saturating_sub(signs.words.close.len());
                while !self.text.is_char_boundary(keep) {
                    keep = keep.saturating_sub(1);
                }
                self.text.drain(..keep);
                self.mind_budget();
                Ok(())
            }
        }
    }

    /// Whether the text could end here; nothing without a constraint.
    pub(super) fn complete(&mut self) -> Result<Option<bool>> {
        let answering = self.phase == Phase::Answering;
        self.constraint.as_mut().map(|constraint| Ok(answering && constraint.complete()?)).transpose()
    }

    /// Whether the text must end here.
    pub(super) fn ended(&mut self) -> Result<bool> {
        match &mut self.constraint {
            Some(constraint) if self.phase == Phase::Answering && self.forced.is_empty() => constraint.ended(),
            _ => Ok(false),
        }
    }

    fn open(&mut self, id: u32) -> Result<()> {
        let Some(signs) = &self.wish.signs else { return Ok(()) };
        self.text.push_str(&self.decoder.push(id)?);
        let rest = self.text.trim_start();
        if rest.starts_with(signs.words.open) {
            (self.phase, self.text) = (Phase::Thinking(0), String::new());
            self.mind_budget();
        } else if self.constraint.is_some() || !signs.words.open.starts_with(rest) {
            self.phase = Phase::Answering;
            self.follow(id)?;
            self.force()?;
        }
        Ok(())
    }

    /// Ends the reasoning once it has had its budget.
    fn mind_budget(&mut self) {
        let Phase::Thinking(count) = self.phase else { return };
        let Some(signs) = &self.wish.signs else { return };
        if self.wish.budget.is_some_and(|budget| count >= budget) {
            self.write(&signs.close);
            self.write(&signs.after);
            self.begin_answer();
        }
    }

    /// The answer begins, after these ids.
    fn answer(&mut self, after: &[u32]) -> Result<()> {
        self.write(after);
        self.begin_answer();
        if self.forced.is_empty() { self.force() } else { Ok(()) }
    }

    fn begin_answer(&mut self) {
        self.phase = Phase::Answering;
        if self.constraint.is_some() {
            self.write(&self.wish.lead);
        }
    }

    fn write(&mut self, ids: &[u32]) {
        self.forced.extend(ids);
        self.before = self.before.saturating_add(ids.len());
    }

    fn follow(&mut self, id: u32) -> Result<()> {
        match &mut self.constraint {
            Some(constraint) => constraint.accept(id),
            None => Ok(()),
        }
    }

    /// Looks for what must come next.
    fn force(&mut self) -> Result<()> {
        let Some(constraint) = &mut self.constraint else { return Ok(()) };
        let bytes = constraint.forced()?;
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or_default())
                .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?,
        };
        if text.is_empty() {
            return Ok(());
        }
        let ids = self.tokenizer.encode(text, false, false)?;
        let usable = constraint.usable(&ids)?;
        self.forced.extend(ids.into_iter().take(usable));
        Ok(())
    }
}
