//! A backend without a model, for tests of the loop: it plays a script of ids and writes down what is asked of it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::task::Poll;

use super::adapters::{Adapters, Base};
use super::driver::Queue;
use super::identity::Identity;
use super::info::Info;
use super::loaded::Loaded;
use super::options::Environment;
use super::session::Session;
use super::stats::{Totals, Traffic};
use super::turn::Turns;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Checkpoint, Dialect, Metadata};
use crate::graph::{
    AdapterId, AdapterUse, BAD_LOGITS, Backend, BackendInfo, Batch, BatchRow, Counters, Decode, Delta, DeltaValues,
    HeldChoice, MAX_BATCH, PAGE_TOKENS, STATE_SLOTS, SamplerSettings, StateSlots, Step, Ticket, Top, TopAsk,
};
use crate::model::{Embedding, Pooling, plan};
use crate::source::{LocalFuture, MemorySource};
use crate::tokenizer::Tokenizer;

/// What was asked of the backend, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Rows from a position, and whether the next id was wanted.
    Prefill(u32, usize, bool),
    /// Ids from a position, the first of them with that index.
    Decode(u32, u32, u32),
    /// Rows and ids for each, by which of them the ids go on from what the device knows.
    Batch(usize, u32, bool),
    /// The ids from that index on, of the first row.
    Collect(u32),
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    open: VecDeque<(u64, u32, Vec<u32>)>,
    most_open: usize,
    tickets: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Fake {
    /// The ids of every reply, by index; past its end they are 0.
    script: Vec<u32>,
    /// The index whose collection fails with `BadLogits`, once.
    pub(super) bad: Cell<Option<u32>>,
    /// The row of the next batch whose logits are no numbers, once.
    pub(super) bad_row: Cell<Option<usize>>,
    /// Rows of a step, and what each of them takes.
    pub(super) rows: Cell<usize>,
    pub(super) row_secs: Cell<f64>,
    /// Works beside its callers, so that they have to wait.
    pub(super) beside: Cell<bool>,
    /// What the clock of its model shows.
    pub(super) clock: Rc<Cell<f64>>,
    /// When everything is done that was submitted.
    idle_secs: Cell<f64>,
    /// The tokens that the state in each slot has seen; none for a model without state.
    slots: RefCell<Vec<Vec<u32>>>,
    /// Of the reply under way.
    prompt: RefCell<Vec<u32>>,
    state: RefCell<State>,
}

pub(super) const CHAIN: u32 = 4;
pub(super) const MAX_ROWS: usize = 8;
pub(super) const N_PAGES: usize = 8;

impl Fake {
    /// A backend that always replies with `script`.
    pub(super) fn new(script: impl IntoIterator<Item = u32>) -> Rc<Fake> {
        Rc::new(Fake { script: script.into_iter().collect(), rows: Cell::new(MAX_ROWS), ..Fake::default() })
    }

    /// The same as a model with state. It fails the test when an id is chosen after anything else than the prompt and
    /// the ids before it.
    pub(super) fn with_state(script: impl IntoIterator<Item = u32>) -> Rc<Fake> {
        let slots = RefCell::new(vec![vec![]; STATE_SLOTS]);
        Rc::new(Fake { script: script.into_iter().collect(), slots, rows: Cell::new(MAX_ROWS), ..Fake::default() })
    }

    /// Lets a state see tokens from a position on, the last of them before id `index`, if any, is chosen.
    fn see(&self, slots: StateSlots, first: u32, tokens: &[u32], index: Option<u32>) {
        let mut states = self.slots.borrow_mut();
        let Some(state) = states.get(slots.from as usize) else { return };
        let mut seen = state.get(..first as usize).filter(|_| first == 0 || state.len() == first as usize);
        let mut seen = seen.take().expect("a state at that position").to_vec();
        seen.extend(tokens);
        let before = self.script.iter().take(index.unwrap_or(0) as usize);
        let whole: Vec<u32> = self.prompt.borrow().iter().chain(before).copied().collect();
        assert!(index.is_none() || seen == whole, "{seen:?} of {whole:?}");
        states[slots.to as usize] = seen;
    }

    fn open(&self, index: u32, count: u32) -> Ticket {
        self.open_rows(&[index], count)
    }

    fn open_rows(&self, indices: &[u32], count: u32) -> Ticket {
        let id = |index: u32| self.script.get(index as usize).copied().unwrap_or(0);
        let mut state = self.state.borrow_mut();
        let number = state.tickets;
        state.tickets += 1;
        let ids = indices.iter().flat_map(|index| (*index..index + count).map(id)).collect();
        state.open.push_back((number, indices[0], ids));
        state.most_open = state.most_open.max(state.open.len());
        Ticket(number)
    }

    /// The calls since the last time, and the most tickets that were ever open.
    pub(super) fn calls(&self) -> (Vec<Call>, usize) {
        let mut state = self.state.borrow_mut();
        (std::mem::take(&mut state.calls), state.most_open)
    }

    /// Tickets that nobody has collected.
    pub(super) fn open_tickets(&self) -> usize {
        self.state.borrow().open.len()
    }
}

impl Backend for Rc<Fake> {
    fn info(&self) -> BackendInfo {
        BackendInfo::default()
    }

    fn max_rows(&self) -> usize {
        self.rows.get()
    }

    fn n_pages(&self) -> usize {
        N_PAGES
    }

    fn n_states(&self) -> usize {
        self.slots.borrow().len()
    }

    fn decode_chain(&self) -> u32 {
        CHAIN
    }

    fn hidden<'a>(&'a self, _: &'a Step<'a>) -> LocalFuture<'a, Result<Vec<f32>>> {
        Box::pin(async { Err(Error::new(ErrorKind::Internal, "a fake has no states")) })
    }

    fn forward<'a>(&'a self, _: &'a Step<'a>) -> LocalFuture<'a, Result<Vec<f32>>> {
        Box::pin(async { Err(Error::new(ErrorKind::Internal, "the fake has no logits")) })
    }

    fn hold(&self, _: &Step<'_>, _: u32) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, "the fake has no logits"))
    }

    fn choose<'a>(&'a self, _: &'a HeldChoice<'a>) -> LocalFuture<'a, Result<(u32, Option<Top>)>> {
        Box::pin(async { Err(Error::new(ErrorKind::Internal, "the fake has no logits")) })
    }

    fn top<'a>(&'a self, _: &'a TopAsk<'a>) -> LocalFuture<'a, Result<Top>> {
        Box::pin(async { Err(Error::new(ErrorKind::Internal, "the fake has no logits")) })
    }

    fn held(&self) -> LocalFuture<'_, Result<Vec<f32>>> {
        Box::pin(async { Err(Error::new(ErrorKind::Internal, "the fake has no logits")) })
    }

    fn start_reply(&self, _: &SamplerSettings, prompt: &[u32], _: &[u32]) -> Result<()> {
        *self.prompt.borrow_mut() = prompt.to_vec();
        assert_eq!(self.open_tickets(), 0, "a reply starts with nothing under way");
        Ok(())
    }

    fn prefill(&self, step: &Step<'_>) -> Result<Option<Ticket>> {
        let choose = !step.outputs.is_empty();
        let first = step.rows[0].position;
        self.state.borrow_mut().calls.push(Call::Prefill(first, step.rows.len(), choose));
        let tokens: Vec<u32> = step.rows.iter().map(|row| row.token).collect();
        self.see(step.states[0], first, &tokens, choose.then_some(0));
        assert!(step.pages[0].len() * PAGE_TOKENS >= first as usize + step.rows.len());
        let idle_secs = self.idle_secs.get().max(self.clock.get()) + self.row_secs.get() * tokens.len() as f64;
        self.idle_secs.set(idle_secs);
        if !self.beside.get() {
            self.clock.set(idle_secs);
        }
        Ok(choose.then(|| self.open(0, 1)))
    }

    fn done(&self) -> Option<LocalFuture<'static, Result<()>>> {
        let (clock, secs) = (self.clock.clone(), self.idle_secs.get());
        self.beside.get().then(|| {
            Box::pin(async move {
                clock.set(clock.get().max(secs));
                Ok(())
            }) as LocalFuture<'static, _>
        })
    }

    fn decode(&self, chain: &Decode<'_>) -> Result<Ticket> {
        self.state.borrow_mut().calls.push(Call::Decode(chain.position, chain.count, chain.index));
        let mut slots = chain.states;
        for index in chain.index..chain.index + chain.count {
            let chosen = index.checked_sub(1).and_then(|before| self.script.get(before as usize)).copied();
            let token = chain.token.filter(|_| index == chain.index).or(chosen).unwrap_or(0);
            self.see(slots, chain.position + index - chain.index, &[token], Some(index));
            slots.from = slots.to;
        }
        if let Some(token) = chain.token.filter(|_| self.n_states() == 0) {
            assert_eq!(token, self.script.get(chain.index as usize - 1).copied().unwrap_or(0));
        }
        assert!(chain.pages.len() * PAGE_TOKENS >= (chain.position + chain.count) as usize);
        Ok(self.open(chain.index, chain.count))
    }

    fn max_batch(&self) -> usize {
        if self.n_states() > 0 { 1 } else { MAX_BATCH }
    }

    fn prepare_batches(&self, _: usize) -> LocalFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn start_place(&self, place: u32, _: &SamplerSettings, prompt: &[u32], reply: &[u32]) -> Result<()> {
        assert!(place < MAX_BATCH as u32);
        assert!(self.script.starts_with(reply), "{reply:?} after {prompt:?}");
        Ok(())
    }

    fn decode_batch(&self, batch: &Batch<'_>) -> Result<Ticket> {
        let Batch { rows, count, goes_on } = *batch;
        self.state.borrow_mut().calls.push(Call::Batch(rows.len(), count, goes_on));
        // Rows in one place are the steps of one reply, as far as they go.
        let follows = |pair: &[BatchRow<'_>]| {
            let step = |row: &BatchRow<'_>| (row.place, row.position.wrapping_sub(row.index));
            pair[1].index == pair[0].index + 1 && step(&pair[0]) == step(&pair[1]) && pair[0].pages == pair[1].pages
        };
        let draft = rows.len() > 1 && rows.windows(2).all(follows);
        assert!(!draft || count == 1 && !goes_on);
        for (at, row) in rows.iter().enumerate() {
            assert!(row.pages.len() * PAGE_TOKENS >= (row.position + count) as usize);
            let before = self.script.get(row.index as usize - 1).copied().unwrap_or(0);
            assert!(goes_on || draft && at > 0 || row.token == before, "{} instead of {before}", row.token);
        }
        let mut places: Vec<u32> = rows.iter().map(|row| row.place).collect();
        places.sort_unstable();
        places.dedup();
        let sequences = if draft { 1 } else { rows.len() };
        assert_eq!(places.len(), sequences, "each has a place of its own");
        let mut pages: Vec<u32> = rows.iter().map(|row| row.pages[row.position as usize / PAGE_TOKENS]).collect();
        pages.sort_unstable();
        pages.dedup();
        assert!(draft || pages.len() == rows.len(), "each writes to pages of its own");
        let indices: Vec<u32> = rows.iter().map(|row| row.index).collect();
        let ticket = self.open_rows(&indices, count);
        if let (Some(bad), Some((.., ids))) = (self.bad_row.take(), self.state.borrow_mut().open.back_mut()) {
            ids[bad * count as usize..][..count as usize].fill(BAD_LOGITS);
        }
        Ok(ticket)
    }

    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        assert!(from != to && from.max(to) < N_PAGES as u32);
        Ok(())
    }

    fn position_bytes(&self) -> usize {
        0
    }

    fn read_page(&self, _: u32, _: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async { Err(Error::new(ErrorKind::Internal, "a fake has no keys and values")) })
    }

    fn write_page(&self, _: u32, _: usize, _: &[u8]) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, "a fake has no keys and values"))
    }

    /// Ready at the second poll, as an answer of a device is.
    fn collect(&self, ticket: Ticket) -> LocalFuture<'_, Result<Vec<u32>>> {
        let next = self.state.borrow_mut().open.pop_front();
        let mut waited = false;
        Box::pin(async move {
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let (number, index, ids) = next.expect("an open ticket");
            assert_eq!(number, ticket.0, "tickets are collected in order");
            self.state.borrow_mut().calls.push(Call::Collect(index));
            match self.bad.get() {
                Some(bad) if (index..index + ids.len() as u32).contains(&bad) => {
                    self.bad.set(None);
                    Err(Error::new(ErrorKind::BadLogits, "as the script says"))
                }
                _ => Ok(ids),
            }
        })
    }

    fn add_adapter<'a>(&'a self, _: &'a [Delta]) -> LocalFuture<'a, Result<AdapterId>> {
        Box::pin(async { Ok(AdapterId(0)) })
    }

    fn fill_adapter(&self, _: AdapterId, _: usize, _: &DeltaValues<'_>) -> Result<()> {
        Ok(())
    }

    fn remove_adapter(&self, _: AdapterId) -> Result<()> {
        Ok(())
    }

    fn use_adapter(&self, _: Option<AdapterUse>) -> Result<()> {
        assert_eq!(self.open_tickets(), 0, "an adapter is chosen with nothing under way");
        Ok(())
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// A model that adapters could be checked against.
fn base() -> Base {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/www/models/tiny-assistant/tiny-assistant-q4_0.gguf");
    let file = MemorySource::new("tiny.gguf", std::fs::read(path).expect("a file"));
    let checkpoint = pollster::block_on(Checkpoint::open(vec![Rc::new(file)])).expect("a model");
    Base { plan: plan(&checkpoint).expect("a model"), files: checkpoint.files }
}

/// A loaded model around the fake, with the tokenizer of the demo model.
pub(super) fn loaded(fake: &Rc<Fake>) -> Rc<Loaded> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/www/models/tiny-assistant");
    let clock = fake.clock.clone();
    let file = |name: &str| (name.to_owned(), std::fs::read_to_string(format!("{folder}/{name}")).expect("a file"));
    let metadata = Metadata {
        dialect: Dialect::Hub,
        architecture: "qwen3".into(),
        values: BTreeMap::new(),
        companions: ["tokenizer.json", "tokenizer_config.json", "generation_config.json"].map(file).into(),
        small_tensors: BTreeMap::new(),
    };
    Rc::new(Loaded {
        backend: Box::new(fake.clone()),
        tokenizer: Tokenizer::from_metadata(&metadata).expect("a tokenizer"),
        template: None,
        context: N_PAGES * PAGE_TOKENS,
        info: Info { vocab_size: 2048, ..Info::default() },
        embedding: Embedding { pooling: Pooling::Last, normalize: true, max_tokens: None, raw_scores: false },
        hidden_width: 0,
        at_once: false,
        end_token: None,
        raw_scores: false,
        traffic: Traffic::default(),
        weight_bytes: 0,
        environment: Environment {
            now_secs: Box::new(move || clock.get()),
            seed: Box::new(|| 0),
            yield_now: Box::new(|| Box::pin(async {})),
            grammars: Box::<crate::sample::NativeGrammars>::default(),
            kept: Box::new(crate::gpu::Forgets),
        },
        inline: false,
        identity: Identity::default(),
        weights_sample: String::new(),
        base: base(),
        adapters: Adapters::default(),
        queue: Queue::default(),
        turns: Turns::new(Session::new(N_PAGES, fake.n_states()).expect("pages")),
        totals: Totals::default(),
        disposed: Cell::new(false),
    })
}
