//! One sequence on a backend: what is submitted for it, and what its pages hold afterwards.
//!
//! The backend works in the order of the submits, so a position that is written again later needs no waiting. Tokens
//! join the sequence only when it is certain that their keys and values were written.
//!
//! A model with recurrence goes on only from a state that was kept ([`States`]), and has states of one sequence at a time.
//! So the last token of a prompt, whose logits are needed whenever the prompt comes again, is a step of its own there, and
//! the state before it is marked.

use std::collections::VecDeque;

use super::pack::Read;
use crate::cache::{Pages, Sequence, States, common_prefix};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterUse, Backend, BatchRow, Decode, KernelTime, Row, StateSlots, Step, Ticket};

/// What all sequences of a model have in common.
pub(super) struct Common {
    pub(super) pages: Pages,
    states: States,
    /// What the states have seen, where the model has such, and with what it was computed.
    lineage: (Option<AdapterUse>, Vec<u32>),
    /// What steps use.
    adapter: Option<AdapterUse>,
    /// Submitted and not collected, oldest first.
    pub(super) open: VecDeque<Open>,
}

/// A submit that was not collected.
pub(super) struct Open {
    pub(super) ticket: Ticket,
    /// Ids that it will give each of its rows.
    pub(super) count: u32,
    /// Whose they are.
    pub(super) rows: Vec<u64>,
    pub(super) batched: bool,
    /// Of a step that verifies a draft, which has a row for each of its ids and gives them as one row's.
    pub(super) draft: Vec<u32>,
}

impl Open {
    /// `count` ids of one reply, by itself.
    pub(super) fn of(ticket: Ticket, count: u32, row: u64) -> Self {
        Self { ticket, count, rows: vec![row], batched: false, draft: Vec::new() }
    }
}

impl Common {
    pub(super) fn new(n_pages: usize, n_states: usize) -> Result<Self> {
        Ok(Self {
            pages: Pages::new(n_pages)?,
            states: States::new(n_states),
            lineage: (None, Vec::new()),
            adapter: None,
            open: VecDeque::new(),
        })
    }

    /// All steps from now on use `adapter`; nothing is under way.
    pub(super) fn switch(&mut self, backend: &dyn Backend, adapter: Option<AdapterUse>) -> Result<()> {
        if self.adapter != adapter {
            backend.use_adapter(adapter).map_err(|error| error.at("adapter"))?;
            self.adapter = adapter;
        }
        Ok(())
    }

    /// How many of `ids` a sequence could begin with.
    fn held(&mut self, adapter: Option<AdapterUse>, ids: &[u32]) -> usize {
        let held = self.pages.held(adapter, ids);
        if !self.states.any() {
            return held;
        }
        let (of, seen) = &self.lineage;
        let common = common_prefix(seen, ids);
        self.states.resume(if *of == adapter { held.min(common) } else { 0 })
    }
}

/// One sequence with its place in the work.
#[derive(Default)]
pub(super) struct Track {
    sequence: Sequence,
    /// The latest collected id; the step that writes its keys and values comes after the one that chose it.
    latest: Option<u32>,
    /// The position that the next submit writes first.
    position: usize,
}

impl Track {
    /// A sequence for a prompt, with room for it. Of its first tokens those that are kept need no work (up to a state that
    /// was kept, where the model has such), but never all, because the last one's logits are needed; none unless `reuse`.
    pub(super) fn begin(
        common: &mut Common,
        backend: &dyn Backend,
        prompt: &[u32],
        reuse: bool,
        adapter: Option<AdapterUse>,
    ) -> Result<Self> {
        common.switch(backend, adapter)?;
        let before = prompt.split_last().map_or(&[][..], |(_, before)| before);
        let mut held = common.held(adapter, if reuse { before } else { &[] });
        let (mut sequence, copy) = Sequence::open(&mut common.pages, adapter, before.get(..held).unwrap_or_default())?;
        if sequence.tokens().len() < held {
            held = sequence.tokens().len();
            if common.states.any() {
                sequence.close(&mut common.pages, usize::MAX)?;
                (sequence, _) = Sequence::open(&mut common.pages, adapter, &[])?;
                held = common.states.resume(0);
            }
        }
        if common.states.any() {
            common.lineage = (adapter, Vec::new());
        }
        let ready = sequence.reserve(&mut common.pages, prompt.len());
        let ready = ready.and_then(|()| copy.map_or(Ok(()), |copy| backend.copy_page(copy.from, copy.to)));
        if let Err(error) = ready {
            sequence.close(&mut common.pages, 0)?;
            return Err(error);
        }
        Ok(Self { sequence, latest: None, position: held })
    }

    /// The position that the next submit writes first.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn pages(&self) -> &[u32] {
        self.sequence.pages()
    }

    fn rows(&self, tokens: &[u32]) -> Result<Vec<Row>> {
        let row = |(token, position): (&u32, usize)| {
            let position = u32::try_from(position).map_err(|_| too_long())?;
            Ok(Row { token: *token, position, sequence: 0, segment: 0 })
        };
        tokens.iter().zip(self.position..).map(row).collect()
    }

    /// The slots of the next `tokens` tokens of a prompt.
    fn slots(&self, common: &mut Common, tokens: usize) -> StateSlots {
        common.states.advance(self.position.saturating_add(tokens), false)
    }

    fn written(&mut self, tokens: &[u32]) {
        self.sequence.append(tokens);
        self.position += tokens.len();
    }

    /// Submits the next tokens of the prompt; with `choose` the id after them is chosen and can be collected.
    pub(super) fn prefill(
        &mut self,
        common: &mut Common,
        backend: &dyn Backend,
        tokens: &[u32],
        choose: bool,
    ) -> Result<Option<Ticket>> {
        if choose && common.states.any() {
            return self.prefill_and_mark(common, backend, tokens).map(Some);
        }
        let rows = self.rows(tokens)?;
        let last = u32::try_from(rows.len().saturating_sub(1)).map_err(|_| too_long())?;
        let outputs: &[u32] = if choose { &[last] } else { &[] };
        let states = [self.slots(common, tokens.len())];
        let ticket =
            backend.prefill(&Step { rows: &rows, pages: self.sequence.page_table(), states: &states, outputs })?;
        if ticket.is_some() != choose {
            return Err(Error::new(ErrorKind::Internal, "the backend gave no ticket for an output, or one for none"));
        }
        self.written(tokens);
        Ok(ticket)
    }

    /// Submits the last tokens of a prompt of a model with state: all but one, whose state is marked, then that one.
    fn prefill_and_mark(&mut self, common: &mut Common, backend: &dyn Backend, tokens: &[u32]) -> Result<Ticket> {
        let Some((last, before)) = tokens.split_last() else {
            return Err(Error::new(ErrorKind::Internal, "a prompt of nothing"));
        };
        if !before.is_empty() {
            self.prefill(common, backend, before, false)?;
        }
        self.mark(common);
        let ticket = self.chain(common, backend, Some(*last), 1, 0)?;
        self.sequence.append(&[*last]);
        Ok(ticket)
    }

    /// Marks the state before the last token of a prompt, whose logits are needed whenever the prompt comes again.
    pub(super) fn mark(&self, common: &mut Common) {
        common.states.mark();
    }

    /// Runs the next tokens and gives the logits of the last, `(vocab)`.
    pub(super) async fn next(
        &mut self,
        common: &mut Common,
        backend: &dyn Backend,
        tokens: &[u32],
    ) -> Result<Vec<f32>> {
        self.reserve(common, tokens.len())?;
        let last = u32::try_from(tokens.len().saturating_sub(1)).unwrap_or(u32::MAX);
        self.read(common, backend, tokens, &[last], Read::End).await
    }

    /// Runs the next tokens; the logits of the last are held for the id number `index` of the reply.
    pub(super) fn hold(
        &mut self,
        common: &mut Common,
        backend: &dyn Backend,
        tokens: &[u32],
        index: u32,
    ) -> Result<()> {
        self.reserve(common, tokens.len())?;
        let last = u32::try_from(tokens.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let rows = self.rows(tokens)?;
        let states = [self.slots(common, tokens.len())];
        let step = Step { rows: &rows, pages: self.sequence.page_table(), states: &states, outputs: &[last] };
        backend.hold(&step, index)?;
        self.written(tokens);
        Ok(())
    }

    /// Runs the next tokens and gives what is read of those at the indices `outputs`.
    pub(super) async fn read(
        &mut self,
        common: &mut Common,
        backend: &dyn Backend,
        tokens: &[u32],
        outputs: &[u32],
        read: Read,
    ) -> Result<Vec<f32>> {
        self.step(common, tokens, outputs, async |step| read.of(backend, step).await).await
    }

    /// Runs the next tokens and tells what each kernel took.
    pub(super) async fn profile(
        &mut self,
        common: &mut Common,
        backend: &dyn Backend,
        tokens: &[u32],
    ) -> Result<Vec<KernelTime>> {
        let last = u32::try_from(tokens.len().saturating_sub(1)).map_err(|_| too_long())?;
        self.reserve(common, tokens.len())?;
        self.step(common, tokens, &[last], async |step| backend.profile(step).await).await
    }

    async fn step<T>(
        &mut self,
        common: &mut Common,
        tokens: &[u32],
        outputs: &[u32],
        run: impl AsyncFnOnce(&Step<'_>) -> Result<T>,
    ) -> Result<T> {
        let rows = self.rows(tokens)?;
        let states = [self.slots(common, tokens.len())];
        let step = Step { rows: &rows, pages: self.sequence.page_table(), states: &states, outputs };
        let seen = run(&step).await?;
        self.written(tokens);
        Ok(seen)
    }

    /// Makes room for the next `count` tokens.
    pub(super) fn reserve(&mut self, common: &mut Common, count: usize) -> Result<()> {
        self.sequence.reserve(&mut common.pages, self.position.saturating_add(count))
    }

    /// Submits a chain of `count` ids, the first of them being number `index` of the reply. It goes on from `token`, or
    /// from the id that the step before it chooses, collected or not.
    pub(super) fn chain(
        &mut self,
        common: &mut Common,
        backend: &dyn Backend,
        token: Option<u32>,
        count: u32,
        index: u32,
    ) -> Result<Ticket> {
        self.reserve(common, count as usize)?;
        let end = self.position.saturating_add(count as usize);
        let position = u32::try_from(self.position).map_err(|_| too_long())?;
        let states = common.states.advance(end, true);
        let pages = self.sequence.pages();
        let ticket = backend.decode(&Decode { token, position, count, pages, states, index })?;
        self.position = end;
        Ok(ticket)
    }

    /// This sequence's row of a batch.
    pub(super) fn row(&self, index: u32, place: u32) -> Result<BatchRow<'_>> {
        let position = u32::try_from(self.position).map_err(|_| too_long())?;
        // A row that goes on has no token that is known.
        let token = self.latest.unwrap_or(0);
        Ok(BatchRow { token, position, pages: self.sequence.pages(), index, place })
    }

    /// Rows for the latest id and the ids of a draft behind it, of which the first chooses id number `index` of the reply.
    pub(super) fn draft_rows(&self, draft: &[u32], index: u32, place: u32) -> Result<Vec<BatchRow<'_>>> {
        let first = self.row(index, place)?;
        let row = |(at, token): (u32, u32)| {
            let position = first.position.checked_add(at).ok_or_else(too_long)?;
            Ok(BatchRow { token, position, index: index.saturating_add(at), ..first })
        };
        (0..).zip(std::iter::once(first.token).chain(draft.iter().copied())).map(row).collect()
    }

    /// Notes that a batch of `count` steps was submitted.
    pub(super) fn went_on(&mut self, count: u32) {
        self.position = self.position.saturating_add(count as usize);
    }

    /// The latest collected id, if nothing that follows it was.
    pub(super) fn latest(&self) -> Option<u32> {
        self.latest
    }

    /// The next step begins with this id, which was chosen before.
    pub(super) fn go_on_from(&mut self, token: u32) {
        self.latest = Some(token);
    }

    /// Notes the ids of the oldest open submit.
    pub(super) fn collected(&mut self, ids: &[u32]) {
        if let Some(token) = self.latest {
            self.sequence.append(&[token]);
        }
        if let [before @ .., latest] = ids {
            self.sequence.append(before);
            self.latest = Some(*latest);
        }
    }

    /// Lets other sequences share what this one has computed; with `tail` also what fills no page.
    pub(super) fn publish(&mut self, common: &mut Common, backend: &dyn Backend, tail: bool) -> Result<()> {
        match self.sequence.publish(&mut common.pages, tail)? {
            Some(copy) => backend.copy_page(copy.from, copy.to),
            None => Ok(()),
        }
    }

    /// Ends the sequence; its first `len` tokens stay for others to begin with.
    pub(super) fn close(&mut self, common: &mut Common, len: usize) -> Result<()> {
        if common.states.any() && !self.sequence.pages().is_empty() {
            common.states.truncate(len);
            let mut seen = self.sequence.tokens().to_vec();
            seen.truncate(len);
            common.lineage.1 = seen;
        }
        let mut ended = std::mem::take(self);
        ended.sequence.close(&mut common.pages, len)
    }
}

fn too_long() -> Error {
    Error::new(ErrorKind::LimitExceeded, "positions and rows are 32-bit numbers")
}
