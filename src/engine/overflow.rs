//! The option `onOverflow`: what happens where the context is full. Whole turns leave a conversation, the oldest first;
//! with `sliding` a reply goes on after that, from what is left.
//!
//! Keys are stored with their rotations, so that nothing can move to another position: what stays is computed anew, but for
//! its common beginning. So that this happens seldom, turns leave until a multiple of a quarter of the context is free:
//! the next turns of a conversation find the same beginning.

use serde::Serialize;

use super::json::invalid;
use super::loaded::{Loaded, TemplateInput};
use super::request::Prompt;
use crate::chat::Message;
use crate::error::Result;

/// What happens where the context is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    /// A prompt that has no room is refused, a reply ends.
    Error,
    /// The oldest turns behind the messages of the system leave a prompt.
    TruncateMiddle,
    /// So they do, and a reply goes on past the end of the context.
    Sliding,
}

const NAMES: [(&str, Overflow); 3] =
    [("error", Overflow::Error), ("truncate-middle", Overflow::TruncateMiddle), ("sliding", Overflow::Sliding)];

impl Overflow {
    /// The option; `InvalidArgument` for what is none of its values.
    pub(super) fn named(name: Option<&str>) -> Result<Self> {
        let Some(name) = name else { return Ok(Self::Error) };
        let found = NAMES.iter().find(|(known, _)| *known == name).map(|(_, overflow)| *overflow);
        found.ok_or_else(|| {
            let known = NAMES.map(|(known, _)| known).join(", ");
            invalid(format!("{name:?} is none of {known}")).at("onOverflow")
        })
    }
}

/// What the model did not see any more, because the context was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Messages behind those of the system, the oldest.
    pub messages: usize,
    /// Ids, of the prompt and of the reply.
    pub tokens: usize,
}

/// Ids that have room, and what is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) ids: Vec<u32>,
    pub(super) dropped: Dropped,
}

/// A conversation by its turns: a message of a user and those that follow it.
struct Turns {
    messages: Vec<Message>,
    input: TemplateInput,
    /// Where each turn but the first begins.
    starts: Vec<usize>,
    /// Messages that never leave.
    system: usize,
}

/// How a prompt makes room.
pub(super) struct Room {
    /// The ids of the prompt as it was asked.
    whole: Vec<u32>,
    /// Where it is a conversation.
    turns: Option<Turns>,
    /// Its first ids that never leave, where it is none.
    keep: usize,
    /// Replies go on past the end of the context.
    slides: bool,
}

impl Turns {
    fn new(messages: &[Message], input: TemplateInput) -> Self {
        let role = |message: &Message, roles: &[&str]| roles.contains(&message.role.as_str());
        let system = messages.iter().take_while(|message| role(message, &["system", "developer"])).count();
        let users = (0..).zip(messages).skip(system.saturating_add(1)).filter(|(_, message)| role(message, &["user"]));
        Self { starts: users.map(|(at, _)| at).collect(), messages: messages.to_vec(), input, system }
    }

    /// The prompt without its first `count` turns, and how many messages those are.
    fn without(&self, loaded: &Loaded, count: usize) -> Result<(Vec<u32>, usize)> {
        let start = count.checked_sub(1).and_then(|last| self.starts.get(last)).copied().unwrap_or(self.system);
        let system = self.messages.get(..self.system).unwrap_or_default();
        let rest = self.messages.get(start..).unwrap_or_default();
        let ids = loaded.encode(&Prompt::Messages([system, rest].concat()), self.input.clone())?;
        Ok((ids, start.saturating_sub(self.system)))
    }
}

/// The room that is made at a time.
fn quarter(loaded: &Loaded) -> usize {
    (loaded.context / 4).max(1)
}

impl Room {
    /// Of a prompt and its ids; nothing where errors are wanted.
    ///
    /// `InvalidArgument` where turns are to leave that are none.
    pub(super) fn of(
        overflow: Overflow,
        loaded: &Loaded,
        prompt: &Prompt,
        input: &TemplateInput,
        ids: &[u32],
    ) -> Result<Option<Self>> {
        let turns = match (overflow, prompt) {
            (Overflow::Error, _) => return Ok(None),
            (_, Prompt::Messages(messages)) => Some(Turns::new(messages, input.clone())),
            (Overflow::TruncateMiddle, _) => {
                return Err(invalid("turns can leave a prompt of messages only").at("onOverflow"));
            }
            (Overflow::Sliding, _) => None,
        };
        let keep = ids.iter().take(1).filter(|id| loaded.tokenizer.is_special(**id)).count();
        let mut room = Self { whole: ids.to_vec(), turns, keep, slides: overflow == Overflow::Sliding };
        // What can never leave may leave no room to go on in.
        room.slides = room.slides && room.least(loaded)? <= loaded.context / 2;
        Ok(Some(room))
    }

    /// Whether replies go on past the end of the context.
    pub(super) fn slides(&self) -> bool {
        self.slides
    }

    /// Ids that can never leave.
    fn least(&self, loaded: &Loaded) -> Result<usize> {
        match &self.turns {
            None => Ok(self.keep),
            Some(turns) => Ok(turns.without(loaded, turns.starts.len())?.0.len()),
        }
    }

    /// The prompt with room for a reply of so many ids, or for one of a quarter of the context where that is less. It may
    /// have none still, where the last turn alone is too long.
    pub(super) fn for_reply(&self, loaded: &Loaded, most: usize) -> Result<Window> {
        self.leaving(loaded, most.min(quarter(loaded)))
    }

    /// What a reply goes on from that has filled the context: what stays of the prompt, and the reply so far or the end of it.
    pub(super) fn for_more(&self, loaded: &Loaded, reply: &[u32]) -> Result<Window> {
        let quarter = quarter(loaded);
        let Some(_) = &self.turns else {
            let all = [self.whole.as_slice(), reply].concat();
            return Ok(self.without_oldest(loaded, &all, quarter));
        };
        let mut window = self.leaving(loaded, reply.len().saturating_add(quarter))?;
        let most = loaded.context.saturating_sub(quarter).saturating_sub(window.ids.len());
        let gone = reply.len().saturating_sub(most);
        window.dropped.tokens = window.dropped.tokens.saturating_add(gone);
        window.ids.extend(reply.get(gone..).unwrap_or_default());
        Ok(window)
    }

    /// The prompt with room for `more` ids behind it, as far as turns can leave.
    fn leaving(&self, loaded: &Loaded, more: usize) -> Result<Window> {
        let (whole, quarter) = (self.whole.len(), quarter(loaded));
        let needed = whole.saturating_add(more).saturating_sub(loaded.context);
        if needed == 0 {
            return Ok(Window { ids: self.whole.clone(), dropped: Dropped::default() });
        }
        let Some(turns) = &self.turns else { return Ok(self.without_oldest(loaded, &self.whole, more)) };
        let goal = needed.div_ceil(quarter).saturating_mul(quarter);
        // The fewest turns whose ids are as many.
        let (mut fewest, mut most) = (0, turns.starts.len());
        let mut found = turns.without(loaded, most)?;
        while fewest < most {
            let middle = fewest.midpoint(most);
            let tried = turns.without(loaded, middle)?;
            if whole.saturating_sub(tried.0.len()) >= goal {
                (most, found) = (middle, tried);
            } else {
                fewest = middle.saturating_add(1);
            }
        }
        let (ids, messages) = found;
        let dropped = Dropped { messages, tokens: whole.saturating_sub(ids.len()) };
        Ok(Window { ids, dropped })
    }

    /// The first of `ids`, and of the others the latest that leave room for `more`.
    fn without_oldest(&self, loaded: &Loaded, ids: &[u32], more: usize) -> Window {
        let (first, rest) = ids.split_at_checked(self.keep).unwrap_or((&[], ids));
        let most = loaded.context.saturating_sub(more).saturating_sub(self.keep);
        let gone = rest.len().saturating_sub(most);
        let ids = [first, rest.get(gone..).unwrap_or_default()].concat();
        Window { ids, dropped: Dropped { messages: 0, tokens: gone } }
    }
}
