//! Runs steps: writes a step's rows with one upload, replays a program, several decode steps to a submit.

mod backend;
mod held;
mod pages;
mod profile;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::adapter::{Adapter, AdapterLayout};
use super::batch::Batches;
use super::choose::{self, Measuring};
use super::device::Device;
use super::lower::matrices;
use super::making::{Making, Recipe};
use super::pipelines::Pipelines;
use super::planes::{Bank, Matrices};
use super::program::{Made, Program, Shared, Size, Wanted};
use super::readback::{IdRing, MAX_IDS, Pending};
use super::rope;
use super::sizes::{
    check_sizes, copy_bytes, history_bytes, kv_sizes, norm_layout, rope_layout, slot_sizes, step_sizes,
};
use super::stage::Class;
use super::state::{Layout, Words};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{AdapterId, Decode, Delta, Graph, KvFormat, PAGE_TOKENS, Row, SlotBook, Step, Ticket, WeightId};
use crate::kernel::{REPLY_WORDS, word};
use crate::model::Plan;
use crate::quant::FormatId;

/// Decode steps of one submit: enough to hide the way back of the ids, few enough that stopping wastes little.
const CHAIN: u32 = 8;

/// A model on a GPU.
pub struct Gpu {
    device: Device,
    graph: Graph,
    matrices: Matrices,
    shared: Shared,
    norm_offsets: BTreeMap<WeightId, usize>,
    recipe: Recipe,
    prefill: Program,
    /// Not there where rows see later ones, which decoding has none of.
    decode: Option<Program>,
    n_pages: usize,
    /// Rows of one step.
    max_rows: usize,
    max_outputs: usize,
    kv: KvFormat,
    slots: RefCell<SlotBook>,
    ids: RefCell<IdRing>,
    logits_readback: RefCell<Option<wgpu::Buffer>>,
    /// Which program's logits wait for a choice.
    held: Cell<Option<Class>>,
    /// What is told of those goes back through this; not there before the first time.
    choice: RefCell<Option<wgpu::Buffer>>,
    /// What finds the largest of them and changes single ones; not there before the first time.
    looking: RefCell<Vec<Rc<held::Looking>>>,
    /// Not there before the first batch.
    batches: RefCell<Option<Rc<Batches>>>,
    /// What a page goes through when it is copied; made with the model, so that no reply makes a buffer.
    page: wgpu::Buffer,
    /// What a page goes through when it is read; not there before the first time.
    page_readback: RefCell<Option<wgpu::Buffer>>,
    adapters: RefCell<BTreeMap<AdapterId, Rc<Adapter>>>,
    adapter: RefCell<Option<Rc<Adapter>>>,
    next_adapter: Cell<u64>,
}

impl Gpu {
    /// Makes the buffers, pipelines and programs of a model; its weights come through [`WeightSink`](crate::model::WeightSink).
    ///
    /// Fails with `GpuOutOfMemory`, or with `GpuFeatureMissing` where a limit of the device does not allow the model.
    pub async fn new(device: &Device, plan: &Plan, kv: KvFormat, n_pages: usize) -> Result<Self> {
        Self::without(device, plan, kv, n_pages, &[]).await
    }

    /// As [`Gpu::new`], with the kernels that are faster here: unless the device was told or knows, or it is kept, they
    /// are measured by a clock (in seconds), and kept. What they compute is held against the interpreter first.
    pub async fn choosing(
        device: &Device,
        plan: &Plan,
        kv: KvFormat,
        n_pages: usize,
        measuring: Measuring<'_>,
    ) -> Result<Self> {
        Self::make(device, (&plan.graph, &plan.formats), kv, n_pages, &[], Some(measuring)).await
    }

    /// As [`Gpu::new`], leaving out fusions by name ([`super::FUSIONS`]); slower, for tests of each of them.
    pub async fn without(device: &Device, plan: &Plan, kv: KvFormat, n_pages: usize, without: &[&str]) -> Result<Self> {
        Self::make(device, (&plan.graph, &plan.formats), kv, n_pages, without, None).await
    }

    /// As [`Gpu::new`], of a graph and the formats of its weights.
    pub(super) async fn of(
        device: &Device,
        model: (&Graph, &[FormatId]),
        kv: KvFormat,
        n_pages: usize,
    ) -> Result<Self> {
        Self::make(device, model, kv, n_pages, &[], None).await
    }

    async fn make(
        device: &Device,
        (graph, formats): (&Graph, &[FormatId]),
        kv: KvFormat,
        n_pages: usize,
        without: &[&str],
        measuring: Option<Measuring<'_>>,
    ) -> Result<Self> {
        device.check()?;
        let graph = graph.clone();
        check_sizes(&graph)?;
        kv.check(&graph)?;
        let vocab = graph.vocab().max(1);
        let (max_rows, max_outputs) = step_sizes(&graph, n_pages);
        let pipelines = Pipelines::new(device, kv);
        let (matrix_list, of_node) = matrices(&graph, formats, without);
        let matrices = Matrices::new(device, matrix_list, pipelines.weights_layout()).await?;

        let (norm_offsets, norm_elements) = norm_layout(&graph);
        let (rope_offsets, rope_pairs) = rope_layout(&graph, n_pages * PAGE_TOKENS);
        let kv_sizes = kv_sizes(&graph, kv, n_pages, device.max_binding_bytes())?;
        let kv_bytes: u64 = kv_sizes.iter().sum();
        let state_bytes = |max_rows: usize| Layout::new(max_rows, &graph).size_bytes(n_pages);
        let slot_sizes = slot_sizes(&graph, device.max_binding_bytes())?;
        let shared = device
            .guarded(kv_bytes + slot_sizes.iter().sum::<u64>(), || {
                Ok(Shared {
                    norms: device.storage("norms", norm_elements as u64 * 4),
                    ropes: device.storage("rotations", rope_pairs as u64 * 8),
                    kv: kv_sizes.iter().map(|size| device.storage("keys and values", *size)).collect(),
                    slots: slot_sizes.iter().map(|size| device.storage("slots", *size)).collect(),
                    reply: device.storage("reply", REPLY_WORDS as u64 * 4),
                    history: device.storage("history", history_bytes(vocab)),
                    decode_state: device.storage("decode state", state_bytes(1)),
                    ids: device.storage("ids", u64::from(MAX_IDS) * 4),
                })
            })
            .await?;
        for (rope, offset) in graph.ropes.iter().zip(&rope_offsets) {
            let table = rope::table(rope, n_pages * PAGE_TOKENS);
            device.write(&shared.ropes, *offset as u64 * 8, bytemuck::cast_slice(&table));
        }

        let teams = match measuring {
            Some(by) => choose::teams(device, (&graph, formats), kv, (&matrices, &pipelines), by).await?,
            None => device.teams().unwrap_or_default(),
        };
        let slots = graph.n_states();
        let recipe = Recipe {
            formats: formats.to_vec(),
            of_node,
            norm_elements,
            rope_offsets,
            pipelines,
            teams,
            rounds: device.rounds(),
            without: without.iter().map(ToString::to_string).collect(),
            activations: Default::default(),
        };
        let prefill_state = device.storage("prefill state", state_bytes(max_rows));
        let page = device.storage("page", copy_bytes(&graph, kv));
        let making =
            Making { device, graph: &graph, recipe: &recipe, norm_offsets: &norm_offsets, max_rows, max_outputs };
        let bank = Bank { model: &matrices, adapter: None };
        let mut programs = making.programs(bank, &BTreeMap::new(), &shared, &prefill_state).await?.into_iter();
        let (Some(prefill), decode) = (programs.next(), programs.next()) else {
            return Err(Error::new(ErrorKind::Internal, "a model without programs"));
        };
        Ok(Self {
            device: device.clone(),
            graph,
            matrices,
            shared,
            norm_offsets,
            recipe,
            prefill,
            decode,
            n_pages,
            max_rows,
            max_outputs,
            kv,
            slots: RefCell::new(SlotBook::new(slots)),
            ids: RefCell::new(IdRing::new(device)),
            logits_readback: RefCell::new(None),
            held: Cell::new(None),
            choice: RefCell::new(None),
            looking: RefCell::default(),
            batches: RefCell::new(None),
            page,
            page_readback: RefCell::new(None),
            adapters: RefCell::default(),
            adapter: RefCell::default(),
            next_adapter: Cell::new(0),
        })
    }

    /// Lays an adapter out and makes its matrices and programs.
    async fn make_adapter(&self, deltas: &[Delta]) -> Result<Adapter> {
        let (device, vectors) = (&self.device, self.recipe.norm_elements);
        device.check()?;
        let model: Vec<_> = self.matrices.list().cloned().collect();
        let layout = AdapterLayout::new(&model, vectors, deltas)?;
        let matrices = layout.matrices.clone();
        let matrices = self.matrices.beside(matrices, self.recipe.pipelines.weights_layout()).await?;
        // Kernels read norms, biases and gains from one buffer, so gains come behind a copy of the model's vectors.
        let (mut shared, mut with_gains) = (self.shared.clone(), None);
        if layout.vectors > vectors {
            let bytes = layout.vectors as u64 * 4;
            let norms = device.guarded(bytes, || Ok(device.storage("norms and gains", bytes))).await?;
            let mut encoder = device.encoder();
            encoder.copy_buffer_to_buffer(&shared.norms, 0, &norms, 0, vectors as u64 * 4);
            device.submit(encoder);
            with_gains = Some(norms.clone());
            shared.norms = norms;
        }
        let bank = Bank { model: &self.matrices, adapter: Some(&matrices) };
        let programs = self.making().programs(bank, &layout.joints, &shared, &self.prefill.state).await?;
        Ok(Adapter::new(layout, matrices, with_gains, vectors, programs))
    }

    /// The program of a class, of the adapter in use if there is one.
    fn program<'a>(&'a self, class: Class, adapter: Option<&'a Adapter>) -> Result<&'a Program> {
        let own = if class == Class::Prefill { Some(&self.prefill) } else { self.decode.as_ref() };
        adapter.map_or(own, |adapter| adapter.program(class)).ok_or_else(no_decoding)
    }

    /// Encodes a run of the program of a class, with the adapter in use.
    fn encode(&self, class: Class, encoder: &mut wgpu::CommandEncoder, size: Size, sample: bool) -> Result<()> {
        let adapter = self.adapter.borrow();
        self.program(class, adapter.as_deref())?.encode(&self.device, encoder, size, sample);
        Ok(())
    }

    /// Uploads a step to the prefill program.
    fn write_step(&self, step: &Step<'_>) -> Result<Size> {
        let Words { words, offset_bytes, size } = self.prefill_layout().step(step, self.prefill.state.size())?;
        self.device.write(&self.prefill.state, offset_bytes, bytemuck::cast_slice(&words));
        Ok(size)
    }

    fn prefill_layout(&self) -> Layout {
        Layout::new(self.max_rows, &self.graph)
    }

    /// Uploads where a chain starts.
    fn write_chain(&self, chain: &Decode<'_>) -> Size {
        let Words { words, offset_bytes, size } = Layout { max_rows: 1, ..self.prefill_layout() }.chain(chain);
        self.device.write(&self.shared.decode_state, offset_bytes, bytemuck::cast_slice(&words));
        size
    }

    /// Ends a submit that chooses `count` ids.
    fn submit_ids(&self, mut encoder: wgpu::CommandEncoder, count: u32, batch: bool) -> Result<Ticket> {
        let size_bytes = u64::from(count) * 4;
        let mut ids = self.ids.borrow_mut();
        let buffer = ids.claim()?;
        encoder.copy_buffer_to_buffer(&self.shared.ids, 0, &buffer, 0, size_bytes);
        let submission = self.device.submit(encoder);
        Ok(ids.issue(Pending::new(&buffer, size_bytes, submission), batch))
    }

    fn making(&self) -> Making<'_> {
        Making {
            device: &self.device,
            graph: &self.graph,
            recipe: &self.recipe,
            norm_offsets: &self.norm_offsets,
            max_rows: self.max_rows,
            max_outputs: self.max_outputs,
        }
    }

    fn batches(&self) -> Result<Rc<Batches>> {
        self.batches.borrow().clone().ok_or_else(unprepared)
    }

    /// The words that penalties look at, one an id.
    fn history(&self, prompt: &[u32], reply: &[u32]) -> Vec<u32> {
        let mut history = vec![0u32; self.graph.vocab()];
        for &id in prompt {
            if let Some(seen) = history.get_mut(id as usize) {
                *seen = 1 << 31;
            }
        }
        for &id in reply {
            if let Some(seen) = history.get_mut(id as usize) {
                *seen += 1;
            }
        }
        history
    }

    /// Runs a step and reads what is wanted of its outputs back, `(outputs, width)`.
    async fn read(&self, step: &Step<'_>, what: Wanted) -> Result<Vec<f32>> {
        self.device.check()?;
        step.check(&self.graph, self.n_pages, self.max_rows)?;
        if step.outputs.len() > step.rows.len() {
            return Err(Error::new(ErrorKind::InvalidArgument, "more outputs than rows"));
        }
        let width = self.prefill.made(what)?.width;
        let mut numbers = vec![0.0; step.outputs.len() * width];
        self.slots.borrow_mut().step(step)?;
        let mut states = step.states.to_vec();
        // Rows in chunks whose outputs have room; keys and values of earlier chunks are in their pages.
        for (index, rows) in step.rows.chunks(self.max_outputs).enumerate() {
            let first = word(index * self.max_outputs);
            let inside = |output: &u32| output.checked_sub(first).filter(|row| (*row as usize) < rows.len());
            let outputs: BTreeSet<u32> = step.outputs.iter().filter_map(inside).collect();
            let outputs: Vec<u32> = outputs.into_iter().collect();
            let found = self.forward_chunk(what, &Step { rows, states: &states, outputs: &outputs, ..*step }).await?;
            let wanted = step.outputs.iter().zip(numbers.chunks_exact_mut(width));
            for (row, slot) in wanted.filter_map(|(output, slot)| Some((inside(output)?, slot))) {
                if let Ok(place) = outputs.binary_search(&row) {
                    slot.copy_from_slice(&found[place * width..][..width]);
                }
            }
            for row in rows {
                if let Some(slots) = states.get_mut(row.sequence as usize) {
                    slots.from = slots.to;
                }
            }
        }
        match numbers.iter().all(|number| number.is_finite()) {
            true => Ok(numbers),
            false => Err(bad_logits()),
        }
    }

    /// Runs a step whose outputs have room and reads what is wanted of them back, `(outputs, width)`.
    async fn forward_chunk(&self, wanted: Wanted, step: &Step<'_>) -> Result<Vec<f32>> {
        let outputs = step.outputs;
        let (class, size) = match wanted {
            Wanted::End => self.write_either(step, 0)?,
            // The decode program hands the norm to the head, and keeps no final states.
            Wanted::Hidden => (Class::Prefill, self.write_step(step)?),
        };
        let mut encoder = self.device.encoder();
        let made = {
            let adapter = self.adapter.borrow();
            self.program(class, adapter.as_deref())?.encode_to(&self.device, &mut encoder, size, wanted)?
        };
        if outputs.is_empty() {
            self.device.submit(encoder);
            return Ok(vec![]);
        }
        self.read_made(encoder, &made, outputs.len()).await
    }

    /// Uploads a step to the program for it: one row of one sequence is what the decode program is made for. `index` is that
    /// of the id after it, where one will be chosen.
    fn write_either(&self, step: &Step<'_>, index: u32) -> Result<(Class, Size)> {
        match (step.rows, step.pages, self.decode.is_some()) {
            ([row], [pages], true) if step.outputs == [0] => {
                let states = step.states.first().copied().unwrap_or_default();
                let Row { token, position, .. } = *row;
                let chain = Decode { token: Some(token), position, count: 1, pages, states, index };
                Ok((Class::Decode, self.write_chain(&chain)))
            }
            _ => Ok((Class::Prefill, self.write_step(step)?)),
        }
    }

    /// Reads the first `outputs` rows of a value back, after what is encoded.
    async fn read_made(&self, mut encoder: wgpu::CommandEncoder, made: &Made, outputs: usize) -> Result<Vec<f32>> {
        let size_bytes = (outputs * made.stride * 4) as u64;
        let readback = {
            use wgpu::BufferUsages as U;
            let mut kept = self.logits_readback.borrow_mut();
            let most_bytes = (self.max_outputs * self.prefill.widest() * 4) as u64;
            let make = || self.device.buffer("logits", most_bytes, U::MAP_READ | U::COPY_DST);
            kept.get_or_insert_with(make).clone()
        };
        encoder.copy_buffer_to_buffer(&made.buffer, made.offset as u64 * 4, &readback, 0, size_bytes);
        let submission = self.device.submit(encoder);
        let words = Pending::new(&readback, size_bytes, submission).words(&self.device).await?;
        let mut numbers: Vec<f32> = bytemuck::cast_vec(words);
        if made.stride != made.width {
            numbers = numbers.chunks_exact(made.stride).flat_map(|row| &row[..made.width]).copied().collect();
        }
        Ok(numbers)
    }
}

fn no_decoding() -> Error {
    Error::new(ErrorKind::InvalidArgument, "this model makes no logits to decode with")
}

fn unprepared() -> Error {
    Error::new(ErrorKind::InvalidArgument, "batches of that size were not prepared")
}

fn no_adapter() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such adapter")
}

fn bad_logits() -> Error {
    Error::new(ErrorKind::BadLogits, "the model's logits are not numbers")
}
