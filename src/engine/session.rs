//! What a call has while it is its turn: the pages of the model, a sequence of its own, and the replies under way.

use super::live::Live;
use super::pace::Pace;
use super::pack::Read;
use super::track::{Common, Open, Track};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterUse, Backend, KernelTime, PAGE_TOKENS};

/// In place of a reply's number, for the sequence of a call that is no reply.
const OWN: u64 = 0;

/// All sequences over the pages of a model.
pub(super) struct Session {
    pub(super) common: Common,
    /// Replies under way; while there are any, no other call has its turn.
    pub(super) lives: Vec<Live>,
    /// The sequence of a call that is no reply.
    own: Track,
    /// Pages that texts beside the sequence have for the time of one call.
    lent: Vec<u32>,
    /// What the next steps of replies find on the device.
    pub(super) on_device: OnDevice,
    /// Rounds so far, in which chunks and chains were submitted for one reply.
    pub(super) rounds: u64,
    /// Counts what moves replies on without a submit.
    pub(super) moves: u64,
    /// How much of a prompt is computed at once.
    pub(super) pace: Pace,
    /// Whether the backend can batch; it may lack the room for it.
    pub(super) batches: bool,
}

/// Whose ids are on the device, so that their next steps need nobody to tell them.
#[derive(Default)]
pub(super) struct OnDevice {
    /// Of the steps for one sequence.
    pub(super) alone: Option<u64>,
    /// Of each row of the latest batch.
    pub(super) batch: Vec<u64>,
}

impl Session {
    /// An empty sequence over `n_pages` pages and `n_states` slots for states.
    pub(super) fn new(n_pages: usize, n_states: usize) -> Result<Self> {
        Ok(Self {
            common: Common::new(n_pages, n_states)?,
            lives: Vec::new(),
            own: Track::default(),
            lent: Vec::new(),
            on_device: OnDevice::default(),
            rounds: 0,
            moves: 0,
            pace: Pace::default(),
            batches: true,
        })
    }

    /// Makes room for a prompt, see [`Track::begin`]. Gives the number of its first tokens that need no work. All steps
    /// until the next prompt use `adapter`.
    pub(super) async fn begin(
        &mut self,
        backend: &dyn Backend,
        prompt: &[u32],
        reuse: bool,
        adapter: Option<AdapterUse>,
    ) -> Result<usize> {
        self.settle(backend).await?;
        self.on_device = OnDevice::default();
        self.own = Track::begin(&mut self.common, backend, prompt, reuse, adapter)?;
        Ok(self.own.position())
    }

    /// Submits the next tokens of the prompt; with `choose` the id after them is chosen and can be collected.
    pub(super) fn prefill(&mut self, backend: &dyn Backend, tokens: &[u32], choose: bool) -> Result<()> {
        let ticket = self.own.prefill(&mut self.common, backend, tokens, choose)?;
        let open = ticket.map(|ticket| Open::of(ticket, 1, OWN));
        self.common.open.extend(open);
        Ok(())
    }

    /// Runs the next tokens and gives the logits of all of them, `(tokens, vocab)`.
    pub(super) async fn forward(&mut self, backend: &dyn Backend, tokens: &[u32]) -> Result<Vec<f32>> {
        let outputs: Vec<u32> = (0..).take(tokens.len()).collect();
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
        self.own.read(&mut self.common, backend, tokens, outputs, read).await
    }

    /// Runs the next tokens and tells what each kernel took.
    pub(super) async fn profile(&mut self, backend: &dyn Backend, tokens: &[u32]) -> Result<Vec<KernelTime>> {
        self.own.profile(&mut self.common, backend, tokens).await
    }

    /// Submits a chain of `count` ids, the first of them being number `index` of the reply. It goes on from the id
    /// that the step before it chooses, collected or not.
    pub(super) fn decode(&mut self, backend: &dyn Backend, count: u32, index: u32) -> Result<()> {
        let ticket = self.own.chain(&mut self.common, backend, None, count, index)?;
        self.common.open.push_back(Open::of(ticket, count, OWN));
        Ok(())
    }

    /// Submits that have not been collected.
    pub(super) fn open(&self) -> usize {
        self.common.open.len()
    }

    /// Waits for the ids of the oldest open submit.
    pub(super) async fn collect(&mut self, backend: &dyn Backend) -> Result<Vec<u32>> {
        let Some(Open { ticket, count, .. }) = self.common.open.pop_front() else {
            return Err(Error::new(ErrorKind::Internal, "there is nothing to collect"));
        };
        let ids = backend.collect(ticket).await?;
        if ids.len() != count as usize {
            return Err(Error::new(ErrorKind::Internal, format!("{} ids where {count} were asked for", ids.len())));
        }
        self.own.collected(&ids);
        Ok(ids)
    }

    /// Collects what is still open and keeps the first `len` tokens.
    pub(super) async fn finish(&mut self, backend: &dyn Backend, len: usize) -> Result<()> {
        self.collect_open(backend).await;
        self.own.close(&mut self.common, len)
    }

    /// Collects what is still open and forgets the sequence: after an error nobody knows what its pages hold.
    pub(super) async fn abandon(&mut self, backend: &dyn Backend) -> Result<()> {
        self.finish(backend, 0).await
    }

    /// Forgets whatever was kept of sequences that ended.
    pub(super) async fn forget(&mut self, backend: &dyn Backend) -> Result<()> {
        self.abandon(backend).await?;
        self.common.pages.clear()
    }

    /// Makes ready for texts beside the sequence, of which one has `pages` pages at most: the sequence stays if there is
    /// room for both. Where texts read `shared` pages of it, it must.
    pub(super) async fn lend(
        &mut self,
        backend: &dyn Backend,
        pages: usize,
        shared: usize,
        adapter: Option<AdapterUse>,
    ) -> Result<()> {
        self.collect_open(backend).await;
        self.return_lent()?;
        if shared == 0 || self.common.pages.free_pages() < pages {
            self.own.close(&mut self.common, usize::MAX)?;
        }
        self.common.switch(backend, adapter)?;
        match self.own.pages().len() < shared {
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
        Ok(self.own.pages().iter().take(pages).copied().collect())
    }

    /// Pages that a text more can have without a prefix being forgotten for it.
    pub(super) fn unused_pages(&self) -> usize {
        self.common.pages.unused_pages()
    }

    /// Pages for a text beside the sequence, until [`Session::return_pages`] or the next call.
    pub(super) fn take_pages(&mut self, count: usize) -> Result<Vec<u32>> {
        let mut pages = Vec::new();
        self.common.pages.take(count, &mut pages)?;
        self.lent.extend(&pages);
        Ok(pages)
    }

    /// Takes pages back.
    pub(super) fn return_pages(&mut self, pages: impl IntoIterator<Item = u32>) -> Result<()> {
        for page in pages {
            self.lent.retain(|lent| *lent != page);
            self.common.pages.give_back([page])?;
        }
        Ok(())
    }

    fn return_lent(&mut self) -> Result<()> {
        let left = std::mem::take(&mut self.lent);
        self.common.pages.give_back(left)
    }

    /// Puts away what calls have left that ended, failed or were given up; what they computed stays for others.
    pub(super) async fn settle(&mut self, backend: &dyn Backend) -> Result<()> {
        self.collect_open(backend).await;
        self.return_lent()?;
        self.own.close(&mut self.common, usize::MAX)?;
        self.reap()
    }

    /// Waits for everything under way.
    async fn collect_open(&mut self, backend: &dyn Backend) {
        while let Some(open) = self.common.open.front() {
            if open.rows != [OWN] {
                self.collect_oldest(backend).await;
            } else if self.collect(backend).await.is_err() {
                // Nobody knows what the pages hold. The error itself says nothing new: who waited has heard of it.
                self.own.close(&mut self.common, 0).ok();
            }
        }
    }
}
