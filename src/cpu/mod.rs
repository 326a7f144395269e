//! The graph interpreted on the CPU: the oracle of every test, and the fallback where there is no GPU.
//!
//! It computes a graph as it stands, node by node, in f32. Weights stay as the files store them; a row is decoded
//! when it is needed and then used for all rows of the step. The loops that take the time are those of `cpu-kernels`.

mod adapter;
mod attention;
mod batch;
mod delta;
mod experts;
mod footprint;
mod kv;
mod ops;
mod product;
mod run;
mod state;
mod weights;

pub use footprint::footprint;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use crate::error::{Error, ErrorKind, Result};
use crate::graph::{
    AdapterId, AdapterUse, Backend, BackendInfo, Batch, Counters, Decode, Delta, DeltaValues, Graph, HeldChoice,
    KvFormat, MAX_BATCH, PAGE_TOKENS, Row, SamplerSettings, SlotBook, StateSlots, Step, Ticket, Top, TopAsk, ValueId,
    WeightId, check_page, check_page_bytes,
};
use crate::model::{Plan, WeightSink};
use crate::quant::FormatId;
use crate::sample::{Chooser, Extra, Mask};
use crate::source::LocalFuture;
use adapter::Adapter;
use kv::Kv;
use run::{Memory, Schedule};
use state::States;
use weights::Weights;

/// Largest number of rows of one step, but where rows see later ones. A page that runs on this thread waits for as many, so it is not large; decoding
/// a weight row costs about as much as multiplying it with two, so more would gain nothing.
const MAX_ROWS: usize = 128;

/// Tickets that may be open at once, as [`Backend`] promises.
const MAX_TICKETS: usize = 2;

/// A graph with its weights, its pages of keys and values and the reply that is being made.
pub struct Cpu {
    graph: Graph,
    schedule: Schedule,
    weights: Weights,
    n_pages: usize,
    max_rows: usize,
    state: RefCell<State>,
}

struct State {
    memory: Memory,
    slots: SlotBook,
    chooser: Chooser,
    last: Option<u32>,
    places: batch::Places,
    tickets: VecDeque<(u64, Result<Vec<u32>>)>,
    next_ticket: u64,
    adapters: BTreeMap<AdapterId, Adapter>,
    adapter: Option<AdapterUse>,
    next_adapter: u64,
    /// Logits that wait for a choice, and the index of the id.
    held: Option<(Vec<f32>, u32)>,
}

impl Cpu {
    /// Room for the plan's weights, which come through [`WeightSink`], and for `n_pages` pages.
    ///
    /// Fails with `LimitExceeded` where the memory does not suffice, with `UnsupportedFormat` for heads that `kv` cannot hold.
    pub fn new(plan: &Plan, kv: KvFormat, n_pages: usize) -> Result<Self> {
        Self::exact(&plan.graph, &plan.formats, kv, n_pages)
    }

    /// The same of a graph and the formats of its weights.
    pub(crate) fn exact(graph: &Graph, formats: &[FormatId], kv: KvFormat, n_pages: usize) -> Result<Self> {
        Self::made((graph, formats), kv, n_pages, false)
    }

    /// The same, rounding activations to 16 bits (groups of 32 with a scale) where they meet weights that are integers, which
    /// are then multiplied as such.
    pub fn rounding(plan: &Plan, kv: KvFormat, n_pages: usize) -> Result<Self> {
        Self::made((&plan.graph, &plan.formats), kv, n_pages, true)
    }

    fn made((graph, formats): (&Graph, &[FormatId]), kv: KvFormat, n_pages: usize, rounds: bool) -> Result<Self> {
        kv.check(graph)?;
        let state = State {
            memory: Memory {
                kv: Kv::new(&graph.kv_widths, kv, n_pages)?,
                states: States::new(&graph.state_widths, graph.n_states())?,
            },
            slots: SlotBook::new(graph.n_states()),
            chooser: Chooser::new(graph.vocab(), &[], SamplerSettings::default(), Extra::default())?,
            last: None,
            places: batch::Places::default(),
            tickets: VecDeque::new(),
            next_ticket: 0,
            adapters: BTreeMap::new(),
            adapter: None,
            next_adapter: 0,
            held: None,
        };
        Ok(Self {
            schedule: Schedule::new(graph),
            weights: Weights::new(graph, formats, rounds)?,
            max_rows: if graph.bidirectional() { n_pages.saturating_mul(PAGE_TOKENS) } else { MAX_ROWS },
            graph: graph.clone(),
            n_pages,
            state: RefCell::new(state),
        })
    }

    /// Runs a step as [`Backend::forward`] does and shows every value to `observe`: its name, its width, its numbers.
    pub fn trace(&self, step: &Step<'_>, observe: &mut dyn FnMut(&str, usize, &[f32])) -> Result<Vec<f32>> {
        self.run(step, ValueId(self.graph.nodes.len().saturating_sub(1)), observe)
    }

    fn run(&self, step: &Step<'_>, wanted: ValueId, observe: &mut dyn FnMut(&str, usize, &[f32])) -> Result<Vec<f32>> {
        step.check(&self.graph, self.n_pages, self.max_rows)?;
        let State { memory, slots, adapters, adapter, .. } = &mut *self.state.borrow_mut();
        slots.step(step)?;
        let adapter = adapter.and_then(|used| Some((adapters.get(&used.id)?, used.scale)));
        run::run(&self.graph, &self.schedule, &self.weights, adapter, memory, (step, wanted), observe)
    }

    /// Runs a step with one output and chooses from its logits.
    fn next_id(&self, step: &Step<'_>, index: u32) -> Result<u32> {
        let logits = self.trace(step, &mut |_, _, _| {})?;
        let state = &mut *self.state.borrow_mut();
        let id = state.chooser.choose(&logits, None, index)?;
        state.last = Some(id);
        Ok(id)
    }

    /// What chooses the ids of a reply, after some of them.
    fn chooser(&self, sampler: &SamplerSettings, prompt: &[u32], reply: &[u32]) -> Result<Chooser> {
        self.graph.need_logits()?;
        let mut chooser = Chooser::new(self.graph.vocab(), prompt, sampler.clone(), Extra::default())?;
        chooser.go_on_from(reply);
        Ok(chooser)
    }

    fn take_held(&self) -> Result<(Vec<f32>, u32)> {
        let held = self.state.borrow_mut().held.take();
        held.ok_or_else(|| Error::new(ErrorKind::Internal, "no logits are held"))
    }

    fn open_ticket(&self, ids: Result<Vec<u32>>) -> Ticket {
        let mut state = self.state.borrow_mut();
        let number = state.next_ticket;
        state.next_ticket += 1;
        state.tickets.push_back((number, ids));
        Ticket(number)
    }

    fn room_for_ticket(&self) -> Result<()> {
        match self.state.borrow().tickets.len() {
            open if open >= MAX_TICKETS => Err(Error::new(ErrorKind::Internal, format!("{open} tickets are open"))),
            _ => Ok(()),
        }
    }

    fn chain(&self, chain: &Decode<'_>) -> Result<Vec<u32>> {
        let pages = [chain.pages.to_vec()];
        let mut ids = Vec::new();
        let mut states = [chain.states];
        for i in 0..chain.count {
            let token = match (i, chain.token) {
                (0, Some(token)) => Some(token),
                _ => self.state.borrow().last,
            };
            let token = token.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "no id was chosen before"))?;
            // A position past u32 is past every page, so the step's check refuses it.
            let rows = [Row { token, position: chain.position.saturating_add(i), sequence: 0, segment: 0 }];
            let step = Step { rows: &rows, pages: &pages, states: &states, outputs: &[0] };
            ids.push(self.next_id(&step, chain.index.wrapping_add(i))?);
            states = [StateSlots { from: chain.states.to, to: chain.states.to }];
        }
        Ok(ids)
    }
}

fn unlooked() -> Error {
    Error::new(ErrorKind::Internal, "logits that are on this side are read, not looked at")
}

impl WeightSink for Cpu {
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        self.weights.store(weight, first_row, bytes)
    }
}

impl Backend for Cpu {
    fn info(&self) -> BackendInfo {
        BackendInfo { name: "cpu".into(), ..BackendInfo::default() }
    }

    fn max_rows(&self) -> usize {
        self.max_rows
    }

    fn n_pages(&self) -> usize {
        self.n_pages
    }

    fn n_states(&self) -> usize {
        self.graph.n_states()
    }

    /// One: whoever waits for a chain of this backend waits on its thread.
    fn decode_chain(&self) -> u32 {
        1
    }

    fn forward<'a>(&'a self, step: &'a Step<'a>) -> LocalFuture<'a, Result<Vec<f32>>> {
        Box::pin(async move { self.trace(step, &mut |_, _, _| {}) })
    }

    fn hidden<'a>(&'a self, step: &'a Step<'a>) -> LocalFuture<'a, Result<Vec<f32>>> {
        Box::pin(async move { self.run(step, self.graph.need_hidden()?, &mut |_, _, _| {}) })
    }

    /// Tickets of an earlier reply that were not collected are closed.
    fn start_reply(&self, sampler: &SamplerSettings, prompt: &[u32], reply: &[u32]) -> Result<()> {
        let chooser = self.chooser(sampler, prompt, reply)?;
        let mut state = self.state.borrow_mut();
        state.chooser = chooser;
        state.last = None;
        state.tickets.clear();
        Ok(())
    }

    fn hold(&self, step: &Step<'_>, index: u32) -> Result<()> {
        self.graph.need_logits()?;
        if step.outputs.len() != 1 {
            let words = format!("{} outputs to choose one id from", step.outputs.len());
            return Err(Error::new(ErrorKind::InvalidArgument, words));
        }
        let logits = self.trace(step, &mut |_, _, _| {})?;
        self.state.borrow_mut().held = Some((logits, index));
        Ok(())
    }

    fn choose<'a>(&'a self, choice: &'a HeldChoice<'a>) -> LocalFuture<'a, Result<(u32, Option<Top>)>> {
        Box::pin(async move {
            if choice.tells || !choice.changes.is_empty() {
                return Err(unlooked());
            }
            let (logits, index) = self.take_held()?;
            let mask = choice.mask.map(|words| Mask(words.to_vec()));
            let id = self.chooser(choice.sampler, &[], &[])?.choose(&logits, mask.as_ref(), index)?;
            Ok((id, None))
        })
    }

    fn top<'a>(&'a self, _: &'a TopAsk<'a>) -> LocalFuture<'a, Result<Top>> {
        Box::pin(async { Err(unlooked()) })
    }

    fn held(&self) -> LocalFuture<'_, Result<Vec<f32>>> {
        Box::pin(async move { self.take_held().map(|(logits, _)| logits) })
    }

    fn prefill(&self, step: &Step<'_>) -> Result<Option<Ticket>> {
        self.graph.need_logits()?;
        match step.outputs.len() {
            0 => self.trace(step, &mut |_, _, _| {}).map(|_| None),
            1 => {
                self.room_for_ticket()?;
                let id = self.next_id(step, 0);
                deferred(id.map(|id| vec![id])).map(|ids| Some(self.open_ticket(ids)))
            }
            more => Err(Error::new(ErrorKind::InvalidArgument, format!("{more} outputs of a prefill step"))),
        }
    }

    fn decode(&self, chain: &Decode<'_>) -> Result<Ticket> {
        self.graph.need_logits()?;
        self.room_for_ticket()?;
        deferred(self.chain(chain)).map(|ids| self.open_ticket(ids))
    }

    /// Where sequences keep a state there are slots for one of them.
    fn max_batch(&self) -> usize {
        if self.graph.n_states() > 0 { 1 } else { MAX_BATCH }
    }

    fn prepare_batches(&self, _: usize) -> LocalFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn start_place(&self, place: u32, sampler: &SamplerSettings, prompt: &[u32], reply: &[u32]) -> Result<()> {
        let chooser = self.chooser(sampler, prompt, reply)?;
        self.state.borrow_mut().places.start(place, chooser)
    }

    fn decode_batch(&self, batch: &Batch<'_>) -> Result<Ticket> {
        self.graph.need_logits()?;
        self.room_for_ticket()?;
        self.batch(batch).map(|ids| self.open_ticket(Ok(ids)))
    }

    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        let (from, to) = (from as usize, to as usize);
        if from.max(to) >= self.n_pages {
            let words = format!("page {} of {}", from.max(to), self.n_pages);
            return Err(Error::new(ErrorKind::InvalidArgument, words));
        }
        self.state.borrow_mut().memory.kv.copy_page(from, to);
        Ok(())
    }

    fn position_bytes(&self) -> usize {
        self.state.borrow().memory.kv.position_bytes()
    }

    fn read_page(&self, page: u32, positions: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            check_page(page, positions, self.n_pages)?;
            Ok(self.state.borrow().memory.kv.read_page(page as usize, positions))
        })
    }

    fn write_page(&self, page: u32, positions: usize, bytes: &[u8]) -> Result<()> {
        check_page(page, positions, self.n_pages)?;
        check_page_bytes(bytes, positions, self.position_bytes())?;
        self.state.borrow_mut().memory.kv.write_page(page as usize, positions, bytes);
        Ok(())
    }

    fn collect(&self, ticket: Ticket) -> LocalFuture<'_, Result<Vec<u32>>> {
        Box::pin(async move {
            let next = self.state.borrow_mut().tickets.pop_front();
            match next {
                Some((number, ids)) if number == ticket.0 => ids,
                _ => Err(Error::new(ErrorKind::Internal, "a ticket that is not the next one")),
            }
        })
    }

    fn add_adapter<'a>(&'a self, deltas: &'a [Delta]) -> LocalFuture<'a, Result<AdapterId>> {
        Box::pin(async move {
            let adapter = Adapter::new(&self.graph, deltas)?;
            let mut state = self.state.borrow_mut();
            let id = AdapterId(state.next_adapter);
            state.next_adapter += 1;
            state.adapters.insert(id, adapter);
            Ok(id)
        })
    }

    fn fill_adapter(&self, id: AdapterId, index: usize, values: &DeltaValues<'_>) -> Result<()> {
        self.state.borrow_mut().adapters.get_mut(&id).ok_or_else(no_adapter)?.fill(index, values)
    }

    fn remove_adapter(&self, id: AdapterId) -> Result<()> {
        let mut state = self.state.borrow_mut();
        state.adapter = state.adapter.filter(|used| used.id != id);
        state.adapters.remove(&id).map(drop).ok_or_else(no_adapter)
    }

    fn use_adapter(&self, adapter: Option<AdapterUse>) -> Result<()> {
        let mut state = self.state.borrow_mut();
        if let Some(used) = adapter {
            state.adapters.get(&used.id).ok_or_else(no_adapter)?.check_loaded()?;
        }
        state.adapter = adapter;
        Ok(())
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

fn no_adapter() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such adapter")
}

/// What a step computes is known at once here; bad logits are told at the collection all the same, as on a GPU.
fn deferred(ids: Result<Vec<u32>>) -> Result<Result<Vec<u32>>> {
    match ids {
        Err(error) if error.kind() != ErrorKind::BadLogits => Err(error),
        ids => Ok(ids),
    }
}
