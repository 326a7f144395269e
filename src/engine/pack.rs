//! Texts through the backend, several to a step and none of them padded: each is a sequence of its own, and what a caller
//! wants of it is handed on row by row.

use super::loaded::Loaded;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterUse, Backend, PAGE_TOKENS, Row, Step};

/// Rows after which a step on this thread ends, so that other work has its turn.
const INLINE_ROWS: usize = 128;

/// One text (or one pair of texts) as the model takes it in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    /// All ids, special ones included.
    pub(super) ids: Vec<u32>,
    /// For each id its segment; empty where all are of segment 0.
    pub(super) segments: Vec<u32>,
    /// Full pages of the session's sequence that hold the keys and values of the first ids already; they are only read.
    pub(super) shared: Vec<u32>,
    /// Which of its rows are read back.
    pub(super) wanted: Wanted,
}

impl Text {
    /// Rows that need no work.
    fn ahead(&self) -> usize {
        self.shared.len().saturating_mul(PAGE_TOKENS)
    }

    /// Pages of its own.
    fn pages(&self) -> usize {
        self.ids.len().saturating_sub(self.ahead()).div_ceil(PAGE_TOKENS)
    }
}

/// Which rows of a text are read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wanted {
    #[default]
    All,
    First,
    Last,
    /// From that position on.
    From(usize),
}

impl Wanted {
    fn includes(self, position: usize, len: usize) -> bool {
        match self {
            Wanted::All => true,
            Wanted::First => position == 0,
            Wanted::Last => position.saturating_add(1) == len,
            Wanted::From(first) => position >= first,
        }
    }
}

/// What of the graph is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The final hidden states.
    Hidden,
    /// What it ends in.
    End,
}

impl Read {
    /// Runs a step and reads it of the step's outputs.
    pub(super) async fn of(self, backend: &dyn Backend, step: &Step<'_>) -> Result<Vec<f32>> {
        match self {
            Read::Hidden => backend.hidden(step).await,
            Read::End => backend.forward(step).await,
        }
    }
}

/// What is done with texts.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) read: Read,
    /// Rows that one step reads back, at most: what is read is in memory whole.
    pub(super) most_outputs: usize,
    pub(super) adapter: Option<AdapterUse>,
    pub(super) aborted: &'a dyn Fn() -> bool,
}

/// A text under way.
struct Active {
    /// Its index.
    text: usize,
    /// The shared ones first.
    pages: Vec<u32>,
    /// Rows that were computed.
    done: usize,
}

/// Runs all texts. `take` is given the numbers of each wanted row and the index of its text, rows of a text in their order.
///
/// Fails with `Aborted` between steps once `aborted` says so, with `ContextFull` where a text has more rows than there are
/// pages, and as the backend does.
pub(super) async fn run(
    loaded: &Loaded,
    session: &mut Session,
    texts: &[Text],
    work: Work<'_>,
    take: &mut dyn FnMut(usize, &[f32]),
) -> Result<()> {
    if loaded.backend.n_states() > 0 {
        let ran = one_by_one(loaded, session, texts, work, take).await;
        if ran.is_err() {
            session.abandon(loaded.backend.as_ref()).await?;
        }
        return ran;
    }
    let (longest, shared) =
        texts.iter().fold((0, 0), |(longest, shared), text| (text.pages().max(longest), text.shared.len().max(shared)));
    session.lend(loaded.backend.as_ref(), longest, shared, work.adapter).await?;
    let mut packing = Packing { loaded, texts, next: 0, active: Vec::new() };
    while packing.fill(session)? {
        check(loaded, work)?;
        packing.step(session, work, take).await?;
        (loaded.environment.yield_now)().await;
    }
    Ok(())
}

/// Fails once the model was disposed of or the caller gave up.
fn check(loaded: &Loaded, work: Work<'_>) -> Result<()> {
    loaded.alive()?;
    match (work.aborted)() {
        true => Err(Error::new(ErrorKind::Aborted, "ended by the caller's signal")),
        false => Ok(()),
    }
}

/// Models that keep a state have slots for one sequence, so that their texts come one after another.
async fn one_by_one(
    loaded: &Loaded,
    session: &mut Session,
    texts: &[Text],
    work: Work<'_>,
    take: &mut dyn FnMut(usize, &[f32]),
) -> Result<()> {
    let backend = loaded.backend.as_ref();
    for (index, text) in texts.iter().enumerate() {
        session.begin(backend, &text.ids, false, work.adapter).await?;
        let mut first = 0_usize;
        for chunk in text.ids.chunks(backend.max_rows().min(work.most_outputs).max(1)) {
            check(loaded, work)?;
            let inside = |row: &u32| text.wanted.includes(first.saturating_add(*row as usize), text.ids.len());
            let outputs: Vec<u32> = (0..u32::try_from(chunk.len()).unwrap_or(u32::MAX)).filter(inside).collect();
            let numbers = session.read(backend, chunk, &outputs, work.read).await?;
            let width = numbers.len().checked_div(outputs.len()).unwrap_or(0);
            numbers.chunks_exact(width.max(1)).for_each(|row| take(index, row));
            first = first.saturating_add(chunk.len());
            (loaded.environment.yield_now)().await;
        }
    }
    Ok(())
}

struct Packing<'a> {
    loaded: &'a Loaded,
    texts: &'a [Text],
    /// The first text that is not under way yet.
    next: usize,
    active: Vec<Active>,
}

impl Packing<'_> {
    fn len(&self, text: usize) -> usize {
        self.texts.get(text).map_or(0, |text| text.ids.len())
    }

    /// Rows of the next step at most.
    fn most(&self) -> usize {
        let most = self.loaded.backend.max_rows();
        if self.loaded.inline { most.min(INLINE_ROWS) } else { most }
    }

    /// Takes texts in until a step is full or nothing more has room. Gives whether anything is left to do.
    fn fill(&mut self, session: &mut Session) -> Result<bool> {
        let rows = |active: &Active, len: usize| len.saturating_sub(active.done);
        let none = Text::default();
        let mut filled: usize = self.active.iter().map(|active| rows(active, self.len(active.text))).sum();
        while self.next < self.texts.len() {
            let text = self.texts.get(self.next).unwrap_or(&none);
            let len = text.ids.len().saturating_sub(text.ahead());
            // A text that must be in one step may be longer than a step should be; then it is alone.
            let fits = filled == 0
                || if self.loaded.at_once { filled.saturating_add(len) <= self.most() } else { filled < self.most() };
            if !fits || (filled > 0 && text.pages() > session.unused_pages()) {
                break;
            }
            let pages = [text.shared.clone(), session.take_pages(text.pages())?].concat();
            self.active.push(Active { text: self.next, pages, done: text.ahead() });
            filled = filled.saturating_add(len);
            self.next += 1;
        }
        Ok(!self.active.is_empty())
    }

    /// Runs one step of the texts under way, and lets go of those that came to their end.
    async fn step(&mut self, session: &mut Session, work: Work<'_>, take: &mut dyn FnMut(usize, &[f32])) -> Result<()> {
        let backend: &dyn Backend = self.loaded.backend.as_ref();
        let most = if self.loaded.at_once { backend.max_rows() } else { self.most() };
        let too_many = |_| Error::new(ErrorKind::LimitExceeded, "positions and rows are 32-bit numbers");
        let (mut rows, mut outputs, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, active) in self.active.iter_mut().enumerate() {
            let Some(text) = self.texts.get(active.text) else { continue };
            let end = text.ids.len().min(active.done.saturating_add(most.saturating_sub(rows.len())));
            let new = text.ids.get(active.done..end).unwrap_or_default();
            for (position, token) in (active.done..end).zip(new) {
                if text.wanted.includes(position, text.ids.len()) {
                    if outputs.len() >= work.most_outputs.max(1) {
                        break;
                    }
                    outputs.push(u32::try_from(rows.len()).map_err(too_many)?);
                    owners.push(active.text);
                }
                rows.push(Row {
                    token: *token,
                    position: u32::try_from(position).map_err(too_many)?,
                    sequence: u32::try_from(sequence).map_err(too_many)?,
                    segment: text.segments.get(position).copied().unwrap_or(0),
                });
                active.done = position.saturating_add(1);
            }
        }
        let pages: Vec<Vec<u32>> = self.active.iter().map(|active| active.pages.clone()).collect();
        let step = Step { rows: &rows, pages: &pages, states: &[], outputs: &outputs };
        let numbers = work.read.of(backend, &step).await?;
        let width = numbers.len().checked_div(outputs.len()).unwrap_or(0);
        if width > 0 {
            owners.iter().zip(numbers.chunks_exact(width)).for_each(|(text, row)| take(*text, row));
        }
        let texts = self.texts;
        let (done, rest) = std::mem::take(&mut self.active)
            .into_iter()
            .partition(|active| texts.get(active.text).is_none_or(|text| active.done >= text.ids.len()));
        self.active = rest;
        let done: Vec<Active> = done;
        session.return_pages(done.into_iter().flat_map(|active| {
            let shared = texts.get(active.text).map_or(0, |text| text.shared.len());
            active.pages.into_iter().skip(shared)
        }))
    }
}
