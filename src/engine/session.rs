//! The live sequence on a backend: what is submitted, what is collected, and what its pages hold afterwards.
//!
//! The backend works in the order of the submits, so a position that is written again later needs no waiting. Tokens
//! join the sequence only when it is certain that their keys and values were written.
//!
//! A model with recurrence goes on only from a state that was kept ([`States`]). So the last token of a prompt, whose
//! logits are needed whenever the prompt comes again, is a step of its own there, and the state before it is marked.

use std::collections::VecDeque;

use super::pack::Read;
use crate::cache::{Pool, Sequence, States};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterUse, Backend, Decode, PAGE_TOKENS, Row, StateSlots, Step, Ticket};

/// One sequence with its pages and its open tickets.
pub(super) struct Session {
    pool: Pool,
    sequence: Sequence,
    states: States,
    /// Pages that texts beside the sequence have for the time of one call.
    lent: Vec<u32>,
    /// Submitted and not collected, oldest first, with the number of ids each will give.
    open: VecDeque<(Ticket, u32)>,
    /// The latest collected id; the step that writes its keys and values comes after the one that chose it.
    latest: Option<u32>,
    /// The position that the next submit writes first.
    position: usize,
    /// What the sequence was computed with.
    adapter: Option<AdapterUse>,
}

impl Session {
    /// An empty sequence over `n_pages` pages and `n_states` slots for states.
    pub(super) fn new(n_pages: usize, n_states: usize) -> Result<Self> {
        Ok(Self {
            pool: Pool::new(n_pages)?,
            sequence: Sequence::default(),
            states: States::new(n_states),
            lent: Vec::new(),
            open: VecDeque::new(),
            latest: None,
            position: 0,
            adapter: None,
        })
    }

    /// Makes room for a prompt. Gives the number of its first tokens that need no work: those that the sequence holds
    /// already (up to a state that was kept, where the model has such), but never all, because the last one's logits
    /// are needed; 0 unless `reuse`, and 0 where they were computed with another adapter, or more or less of it. All
    /// steps until the next prompt use `adapter`.
    pub(super) async fn begin(
        &mut self,
        backend: &dyn Backend,
        prompt: &[u32],
        reuse: bool,
        adapter: Option<AdapterUse>,
    ) -> Result<usize> {
        self.settle(backend).await?;
        let same = self.switch(backend, adapter)?;
        let held = if reuse && same { self.sequence.common_prefix(prompt) } else { 0 };
        let held = self.states.resume(held.min(prompt.len().saturating_sub(1)));
        self.sequence.truncate(&mut self.pool, held)?;
        self.sequence.reserve(&mut self.pool, prompt.len())?;
        self.latest = None;
        self.position = held;
        Ok(held)
    }

    fn rows(&self, tokens: &[u32]) -> Result<Vec<Row>> {
        let row = |(token, position): (&u32, usize)| {
            let position = u32::try_from(position).map_err(|_| too_long())?;
            Ok(Row { token: *token, position, sequence: 0, segment: 0 })
        };
        tokens.iter().zip(self.position..).map(row).collect()
    }

    /// The slots of the next `tokens` tokens of a prompt.
    fn slots(&mut self, tokens: usize) -> StateSlots {
        self.states.advance(self.position.saturating_add(tokens), false)
    }

    fn written(&mut self, tokens: &[u32]) {
        self.sequence.append(tokens);
        self.position += tokens.len();
    }

    /// Submits the next tokens of the prompt; with `choose` the id after them is chosen and can be collected.
    pub(super) fn prefill(&mut self, backend: &dyn Backend, tokens: &[u32], choose: bool) -> Result<()> {
        if choose && self.states.any() {
            return self.prefill_and_mark(backend, tokens);
        }
        let rows = self.rows(tokens)?;
        let last = u32::try_from(rows.len().saturating_sub(1)).map_err(|_| too_long())?;
        let outputs: &[u32] = if choose { &[last] } else { &[] };
        let states = [self.slots(tokens.len())];
        let ticket =
            backend.prefill(&Step { rows: &rows, pages: self.sequence.page_table(), states: &states, outputs })?;
        if ticket.is_some() != choose {
            return Err(Error::new(ErrorKind::Internal, "the backend gave no ticket for an output, or one for none"));
        }
        self.open.extend(ticket.map(|ticket| (ticket, 1)));
        self.written(tokens);
        Ok(())
    }

    /// Submits the last tokens of a prompt of a model with state: all but one, whose state is marked, then that one.
    fn prefill_and_mark(&mut self, backend: &dyn Backend, tokens: &[u32]) -> Result<()> {
        let Some((last, before)) = tokens.split_last() else { return Ok(()) };
        if !before.is_empty() {
            self.prefill(backend, before, false)?;
        }
        self.states.mark();
        self.submit(backend, Some(*last), 1, 0)?;
        self.sequence.append(&[*last]);
        Ok(())
    }

    /// Marks the state before the last token of a prompt, whose logits are needed whenever the prompt comes again.
    pub(super) fn mark(&mut self) {
        self.states.mark();
    }

    /// Runs the next tokens and gives the logits of the last, `(vocab)`.
    pub(super) async fn last_of(&mut self, backend: &dyn Backend, tokens: &[u32]) -> Result<Vec<f32>> {
        self.sequence.reserve(&mut self.pool, self.position.saturating_add(tokens.len()))?;
        let last = u32::try_from(tokens.len().saturating_sub(1)).map_err(|_| too_long())?;
        self.read(backend, tokens, &[last], Read::End).await
    }

    /// Runs the next tokens and gives the logits of all of them, `(tokens, vocab)`.
    pub(super) async fn forward(&mut self, backend: &dyn Backend, tokens: &[u32]) -> Result<Vec<f32>> {
        let outputs: Vec<u32> = (0..u32::try_from(tokens.len()).map_err(|_| too_long())?).collect();
        self.read(backend, tokens, &outputs, Read::End).await
    }

    /// Runs the next tokens and gives what is read of those at the indices `outputs`.
    pub(super) async fn read(
        &mut self,
        backend: &dyn Backend,
        tokens: &[u32],
        outputs: &[u32],
        read: Read,
    ) -> Result<Vec<f32>> {
        let rows = self.rows(tokens)?;
        let states = [self.slots(tokens.len())];
        let step = Step { rows: &rows, pages: self.sequence.page_table(), states: &states, outputs };
        let numbers = read.of(backend, &step).await?;
        self.written(tokens);
        Ok(numbers)
    }

    /// Submits a chain of `count` ids, the first of them being number `index` of the reply. It goes on from the id
    /// that the step before it chooses, collected or not.
    pub(super) fn decode(&mut self, backend: &dyn Backend, count: u32, index: u32) -> Result<()> {
        self.submit(backend, None, count, index)
    }

    fn submit(&mut self, backend: &dyn Backend, token: Option<u32>, count: u32, index: u32) -> Result<()> {
        let end = self.position.saturating_add(count as usize);
        self.sequence.reserve(&mut self.pool, end)?;
        let position = u32::try_from(self.position).map_err(|_| too_long())?;
        let states = self.states.advance(end, true);
        let pages = self.sequence.pages();
        let ticket = backend.decode(&Decode { token, position, count, pages, states, index })?;
        self.open.push_back((ticket, count));
        self.position = end;
        Ok(())
    }

    /// Submits that have not been collected.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Waits for the ids of the oldest open submit.
    pub(super) async fn collect(&mut self, backend: &dyn Backend) -> Result<Vec<u32>> {
        let Some((ticket, count)) = self.open.pop_front() else {
            return Err(Error::new(ErrorKind::Internal, "there is nothing to collect"));
        };
        let ids = backend.collect(ticket).await?;
        if ids.len() != count as usize {
            return Err(Error::new(ErrorKind::Internal, format!("{} ids where {count} were asked for", ids.len())));
        }
        if let Some(token) = self.latest {
            self.sequence.append(&[token]);
        }
        if let [before @ .., latest] = ids.as_slice() {
            self.sequence.append(before);
            self.latest = Some(*latest);
        }
        Ok(ids)
    }

    /// Collects what is still open and keeps the first `len` tokens.
    pub(super) async fn finish(&mut self, backend: &dyn Backend, len: usize) -> Result<()> {
        self.settle(backend).await?;
        self.states.truncate(len);
        self.sequence.truncate(&mut self.pool, len)
    }

    /// Collects what is still open and forgets the sequence: after an error nobody knows what its pages hold.
    pub(super) async fn abandon(&mut self, backend: &dyn Backend) -> Result<()> {
        while let Some((ticket, _)) = self.open.pop_front() {
            // The reply ends with the error that came first; the ones that follow from it say nothing new.
            backend.collect(ticket).await.ok();
        }
        self.states.truncate(0);
        self.sequence.truncate(&mut self.pool, 0)
    }

    /// Makes ready for texts beside the sequence, of which one has `pages` pages at most: the sequence stays if there is
    /// room for both, and if it was computed with the same adapter. Where texts read `shared` pages of it, it must.
    pub(super) async fn lend(
        &mut self,
        backend: &dyn Backend,
        pages: usize,
        shared: usize,
        adapter: Option<AdapterUse>,
    ) -> Result<()> {
        self.settle(backend).await?;
        let same = self.switch(backend, adapter)?;
        if !same || self.pool.free_pages() < pages {
            self.sequence.truncate(&mut self.pool, 0)?;
        }
        match self.sequence.pages().len() < shared {
            true => Err(Error::new(ErrorKind::Internal, "texts share pages that are gone")),
            false => Ok(()),
        }
    }

    /// Fills `pages` full pages with the keys and values of the first of `ids`, those apart that the sequence holds
    /// already, and gives them. They hold until the next prompt.
    pub(super) async fn share(
        &mut self,
        backend: &dyn Backend,
        ids: &[u32],
        pages: usize,
        adapter: Option<AdapterUse>,
        mut pause: impl AsyncFnMut() -> Result<()>,
    ) -> Result<Vec<u32>> {
        let ids = ids.get(..pages.saturating_mul(PAGE_TOKENS)).unwrap_or(ids);
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let held = self.begin(backend, ids, true, adapter).await?;
        for chunk in ids.get(held..).unwrap_or_default().chunks(backend.max_rows().max(1)) {
            self.prefill(backend, chunk, false)?;
            pause().await?;
        }
        Ok(self.sequence.pages().iter().take(pages).copied().collect())
    }

    /// All steps from now on use `adapter`. Gives whether they did already.
    fn switch(&mut self, backend: &dyn Backend, adapter: Option<AdapterUse>) -> Result<bool> {
        let same = self.adapter == adapter;
        if !same {
            backend.use_adapter(adapter).map_err(|error| error.at("adapter"))?;
            self.adapter = adapter;
        }
        Ok(same)
    }

    /// Pages that a text beside the sequence can have.
    pub(super) fn free_pages(&self) -> usize {
        self.pool.free_pages()
    }

    /// Pages for a text beside the sequence, until [`Session::return_pages`] or the next call.
    pub(super) fn take_pages(&mut self, count: usize) -> Result<Vec<u32>> {
        let mut pages = Vec::new();
        self.pool.take(count, &mut pages)?;
        self.lent.extend(&pages);
        Ok(pages)
    }

    /// Takes pages back.
    pub(super) fn return_pages(&mut self, pages: impl IntoIterator<Item = u32>) -> Result<()> {
        for page in pages {
            self.lent.retain(|lent| *lent != page);
            self.pool.give_back([page])?;
        }
        Ok(())
    }

    async fn settle(&mut self, backend: &dyn Backend) -> Result<()> {
        // Left by a call that failed or was given up.
        let left = std::mem::take(&mut self.lent);
        self.pool.give_back(left)?;
        while self.open() > 0 {
            if self.collect(backend).await.is_err() {
                self.abandon(backend).await?;
            }
        }
        Ok(())
    }
}

fn too_long() -> Error {
    Error::new(ErrorKind::LimitExceeded, "positions and rows are 32-bit numbers")
}
