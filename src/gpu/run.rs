//! Runs steps: writes a step's rows with one upload, replays a program, several decode steps to a submit.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::device::Device;
use super::lower::{lower, matrices};
use super::pipelines::Pipelines;
use super::planes::Matrices;
use super::program::{Program, Shared, Size};
use super::readback::{IdRing, MAX_CHAIN, Pending};
use super::rope;
use super::stage::Class;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{
    Backend, BackendInfo, Counters, Decode, Graph, KvFormat, KvWidths, PAGE_TOKENS, RopeId, Row, SamplerSettings, Step,
    Ticket, WeightId, WeightKind,
};
use crate::kernel::{BAD_LOGITS, Context, MAX_HEAD_DIM, launches, reply_words, sample, word};
use crate::model::{Plan, WeightSink};
use crate::source::LocalFuture;

/// Rows of one prefill chunk: four tiles of the matrix product.
const PREFILL_ROWS: usize = 128;

/// Bytes that the logits of one chunk may take.
const LOGITS_BYTES: usize = 16 << 20;

/// Decode steps of one submit: enough to hide the way back of the ids, few enough that stopping wastes little.
const CHAIN: u32 = 8;

/// Words of a state's header.
const HEADER: usize = 8;

/// A model on a GPU.
pub struct Gpu {
    device: Device,
    graph: Graph,
    matrices: Matrices,
    shared: Shared,
    norm_offsets: BTreeMap<WeightId, usize>,
    prefill: Program,
    /// Not there where rows see later ones, which decoding has none of.
    decode: Option<Program>,
    n_pages: usize,
    /// Rows of one step.
    max_rows: usize,
    max_outputs: usize,
    kv: KvFormat,
    ids: RefCell<IdRing>,
    logits_readback: RefCell<Option<wgpu::Buffer>>,
}

impl Gpu {
    /// Makes the buffers, pipelines and programs of a model; its weights come through [`WeightSink`].
    ///
    /// Fails with `GpuOutOfMemory`, or with `GpuFeatureMissing` where a limit of the device does not allow the model.
    pub async fn new(device: &Device, plan: &Plan, kv: KvFormat, n_pages: usize) -> Result<Self> {
        Self::without(device, plan, kv, n_pages, &[]).await
    }

    /// As [`Gpu::new`], leaving out fusions by name ([`super::FUSIONS`]); slower, for tests of each of them.
    pub async fn without(device: &Device, plan: &Plan, kv: KvFormat, n_pages: usize, without: &[&str]) -> Result<Self> {
        device.check()?;
        let graph = plan.graph.clone();
        check_heads(&graph)?;
        let vocab = graph.vocab().max(1);
        let bidirectional = graph.bidirectional();
        let max_rows = if bidirectional { n_pages * PAGE_TOKENS } else { PREFILL_ROWS };
        let max_outputs = if bidirectional { max_rows } else { (LOGITS_BYTES / (vocab * 4)).clamp(1, max_rows) };
        let pipelines = Pipelines::new(device, kv);
        let (matrix_list, of_node) = matrices(&graph, &plan.formats, without);
        let matrices = Matrices::new(device, matrix_list, pipelines.weights_layout()).await?;

        let (norm_offsets, norm_elements) = norm_layout(&graph);
        let (rope_offsets, rope_pairs) = rope_layout(&graph, n_pages * PAGE_TOKENS);
        let kv_sizes = kv_sizes(&graph, kv, n_pages, device.max_binding_bytes())?;
        let kv_bytes = kv_sizes.iter().sum();
        // Tables of pages have their sequence's length before them, and there are no more sequences than rows.
        let state_bytes = |rows: usize| ((rows * 4 + HEADER + n_pages + 2 * rows) * 4) as u64;
        let shared = device
            .guarded(kv_bytes, || {
                Ok(Shared {
                    norms: device.storage("norms", norm_elements as u64 * 4),
                    ropes: device.storage("rotations", rope_pairs as u64 * 8),
                    kv: kv_sizes.iter().map(|size| device.storage("keys and values", *size)).collect(),
                    reply: device.storage("reply", 32),
                    history: device.storage("history", vocab as u64 * 4),
                    decode_state: device.storage("decode state", state_bytes(1)),
                    ids: device.storage("ids", u64::from(MAX_CHAIN) * 4),
                })
            })
            .await?;
        for (rope, offset) in graph.ropes.iter().zip(&rope_offsets) {
            let table = rope::table(rope, n_pages * PAGE_TOKENS);
            device.write(&shared.ropes, *offset as u64 * 8, bytemuck::cast_slice(&table));
        }

        let shapes = matrices.shapes();
        let mut programs = vec![];
        let classes = [(Class::Prefill, max_rows, max_outputs), (Class::Decode, 1, 1)];
        for (class, rows, outputs) in classes.into_iter().take(if bidirectional { 1 } else { 2 }) {
            let lowered = lower(&graph, &plan.formats, &of_node, class, without)?;
            let context = Context {
                graph: &graph,
                class,
                max_rows: rows,
                matrices: &shapes,
                norm_offset: &|weight| norm_offsets.get(&weight).copied().unwrap_or(0),
                rope_offset: &|RopeId(index)| rope_offsets.get(index).copied().unwrap_or(0),
            };
            let mut list: Vec<_> = lowered.stages.iter().flat_map(|stage| launches(stage, &context)).collect();
            list.push(sample(lowered.logits, vocab));
            let state = match class {
                Class::Prefill => device.storage("prefill state", state_bytes(rows)),
                Class::Decode => shared.decode_state.clone(),
            };
            // Pipelines are made inside, so a shader that does not compile is found here.
            let validation = device.raw().push_error_scope(wgpu::ErrorFilter::Validation);
            let sizes = (rows, outputs);
            let made = Program::new(device, class, &lowered, &list, &matrices, &shared, &pipelines, sizes, state).await;
            if let Some(error) = validation.pop().await {
                device.made().forget();
                return Err(Error::new(ErrorKind::Internal, error.to_string()).at("GPU"));
            }
            programs.push(made?);
        }
        let mut programs = programs.into_iter();
        let (Some(prefill), decode) = (programs.next(), programs.next()) else {
            return Err(Error::new(ErrorKind::Internal, "a model without programs"));
        };
        Ok(Self {
            device: device.clone(),
            graph,
            matrices,
            shared,
            norm_offsets,
            prefill,
            decode,
            n_pages,
            max_rows,
            max_outputs,
            kv,
            ids: RefCell::new(IdRing::new(device)),
            logits_readback: RefCell::new(None),
        })
    }

    /// Uploads a step to the prefill program.
    fn write_step(&self, rows: &[Row], pages: &[Vec<u32>], outputs: &[u32]) -> Result<()> {
        let most = self.max_rows;
        let mut state = Vec::with_capacity(rows.len() + HEADER + 3 * most);
        state.extend(rows.iter().rev().map(|row| row.token));
        state.extend([word(rows.len()), word(outputs.len()), 0, 0, 0, 0, 0, 0]);
        let page_tables = most + HEADER + 3 * most;
        let mut starts = Vec::with_capacity(pages.len());
        let mut next = page_tables;
        for table in pages {
            starts.push(word(next + 1));
            next += 1 + table.len();
        }
        if (next as u64) * 4 > self.prefill.state.size() {
            return Err(Error::new(ErrorKind::LimitExceeded, "the page tables of a step are too long"));
        }
        let padded = |values: &mut dyn Iterator<Item = u32>, state: &mut Vec<u32>| {
            let from = state.len();
            state.extend(values);
            state.resize(from + most, 0);
        };
        padded(&mut rows.iter().map(|row| row.position), &mut state);
        padded(&mut rows.iter().filter_map(|row| starts.get(row.sequence as usize).copied()), &mut state);
        padded(&mut outputs.iter().copied(), &mut state);
        // Positions ascend within a sequence.
        let mut lengths = vec![0; pages.len()];
        for row in rows {
            if let Some(length) = lengths.get_mut(row.sequence as usize) {
                *length = row.position + 1;
            }
        }
        for (table, length) in pages.iter().zip(lengths) {
            state.push(length);
            state.extend(table);
        }
        let offset = (most - rows.len()) as u64 * 4;
        self.device.write(&self.prefill.state, offset, bytemuck::cast_slice(&state));
        Ok(())
    }

    /// Uploads where a chain starts; without a token the last chosen one stays.
    fn write_decode_state(&self, token: Option<u32>, position: u32, index: u32, pages: &[u32]) {
        let mut state = Vec::with_capacity(1 + HEADER + 4 + pages.len());
        state.extend(token);
        state.extend([1, 1, index, 0, 0, 0, 0, 0]);
        let page_table = 1 + HEADER + 4;
        // The length that stands before the table is not looked at: a decoded row sees what is before it.
        state.extend([position, word(page_table), 0, 0]);
        state.extend(pages);
        let offset = if token.is_some() { 0 } else { 4 };
        self.device.write(&self.shared.decode_state, offset, bytemuck::cast_slice(&state));
    }

    /// Ends a submit that chooses `count` ids.
    fn submit_ids(&self, mut encoder: wgpu::CommandEncoder, count: u32) -> Result<Ticket> {
        let size_bytes = u64::from(count) * 4;
        let mut ids = self.ids.borrow_mut();
        let buffer = ids.claim()?;
        encoder.copy_buffer_to_buffer(&self.shared.ids, 0, &buffer, 0, size_bytes);
        let submission = self.device.submit(encoder);
        Ok(ids.issue(Pending::new(&buffer, size_bytes, submission)))
    }

    async fn forward_chunk(&self, rows: &[Row], pages: &[Vec<u32>], outputs: &[u32]) -> Result<Vec<f32>> {
        self.write_step(rows, pages, outputs)?;
        let mut encoder = self.device.encoder();
        let size = Size { rows: word(rows.len()), outputs: word(outputs.len()) };
        self.prefill.encode(&self.device, &mut encoder, size, false);
        if outputs.is_empty() {
            self.device.submit(encoder);
            return Ok(vec![]);
        }
        let stride = self.prefill.logits_place.stride;
        let size_bytes = (outputs.len() * stride * 4) as u64;
        let readback = {
            use wgpu::BufferUsages as U;
            let mut kept = self.logits_readback.borrow_mut();
            let most_bytes = (self.max_outputs * stride * 4) as u64;
            let make = || self.device.buffer("logits", most_bytes, U::MAP_READ | U::COPY_DST);
            kept.get_or_insert_with(make).clone()
        };
        let from = self.prefill.logits_place.offset as u64 * 4;
        encoder.copy_buffer_to_buffer(&self.prefill.logits, from, &readback, 0, size_bytes);
        let submission = self.device.submit(encoder);
        let words = Pending::new(&readback, size_bytes, submission).words(&self.device).await?;
        let mut logits: Vec<f32> = bytemuck::cast_vec(words);
        let vocab = self.graph.vocab();
        if stride != vocab {
            logits = logits.chunks_exact(stride).flat_map(|row| &row[..vocab]).copied().collect();
        }
        Ok(logits)
    }
}

fn bad_logits() -> Error {
    Error::new(ErrorKind::BadLogits, "the model's logits are not numbers")
}

/// The kernels stage a head in workgroup memory.
fn check_heads(graph: &Graph) -> Result<()> {
    for node in &graph.nodes {
        if let crate::graph::Op::Attention { spec, .. } = &node.op
            && let Some(elements) =
                [spec.head_dim, spec.value_dim].into_iter().find(|n| *n > MAX_HEAD_DIM || !n.is_multiple_of(4))
        {
            let words = format!("heads of {elements} elements; up to {MAX_HEAD_DIM}, in steps of 4");
            return Err(Error::new(ErrorKind::UnsupportedFormat, words).at(node.name.as_str()));
        }
    }
    Ok(())
}

/// Where each vector starts in their common buffer, in elements, and how many there are.
fn norm_layout(graph: &Graph) -> (BTreeMap<WeightId, usize>, usize) {
    let mut offsets = BTreeMap::new();
    let mut next = 0usize;
    for (index, weight) in graph.weights.iter().enumerate() {
        if weight.kind == WeightKind::Vector {
            offsets.insert(WeightId(index), next);
            next += weight.cols.next_multiple_of(4);
        }
    }
    (offsets, next)
}

/// Where each rotary table starts, in pairs, and how many there are.
fn rope_layout(graph: &Graph, context: usize) -> (Vec<usize>, usize) {
    graph.ropes.iter().fold((vec![], 0), |(mut offsets, next), encoding| {
        offsets.push(next);
        (offsets, next + rope::table_pairs(encoding, context))
    })
}

/// Bytes of each layer's pages. Fails when one layer's are more than the device binds.
fn kv_sizes(graph: &Graph, kv: KvFormat, n_pages: usize, limit: u64) -> Result<Vec<u64>> {
    let element_bytes = if kv == KvFormat::F16 { 2 } else { 4 };
    let page_bytes = |layer: KvWidths| (PAGE_TOKENS * layer.elements() * element_bytes) as u64;
    let sizes: Vec<u64> = graph.kv_widths.iter().map(|layer| n_pages as u64 * page_bytes(*layer)).collect();
    match sizes.iter().copied().max() {
        Some(largest) if largest > limit => {
            let words = format!(
                "keys and values of one layer take {largest} bytes for {} positions, and this device binds {limit}",
                n_pages * PAGE_TOKENS
            );
            Err(Error::new(ErrorKind::GpuFeatureMissing, words))
        }
        _ => Ok(sizes),
    }
}

impl WeightSink for Gpu {
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        self.device.check()?;
        match self.norm_offsets.get(&weight) {
            Some(offset) => {
                self.device.write(&self.shared.norms, *offset as u64 * 4, bytes);
                Ok(())
            }
            None => self.matrices.rows(weight, first_row, bytes),
        }
    }
}

impl Backend for Gpu {
    fn info(&self) -> BackendInfo {
        let web = cfg!(target_arch = "wasm32");
        let subgroups = self.device.dialect().subgroups.then(|| "subgroups".to_owned());
        let kv = format!("kv {}", if self.kv == KvFormat::F16 { "f16" } else { "f32" });
        BackendInfo {
            name: if web { "webgpu" } else { "gpu" }.into(),
            device: self.device.name().into(),
            features: subgroups.into_iter().chain([kv]).collect(),
        }
    }

    fn max_rows(&self) -> usize {
        self.max_rows
    }

    fn n_pages(&self) -> usize {
        self.n_pages
    }

    fn decode_chain(&self) -> u32 {
        CHAIN
    }

    fn forward<'a>(&'a self, step: &'a Step<'a>) -> LocalFuture<'a, Result<Vec<f32>>> {
        Box::pin(async move {
            self.device.check()?;
            let vocab = self.graph.vocab();
            step.check(vocab, self.n_pages, self.max_rows)?;
            if step.outputs.len() > step.rows.len() {
                return Err(Error::new(ErrorKind::InvalidArgument, "more outputs than rows"));
            }
            let mut logits = vec![0.0; step.outputs.len() * vocab];
            // Rows in chunks whose outputs have room; keys and values of earlier chunks are in their pages.
            for (index, rows) in step.rows.chunks(self.max_outputs).enumerate() {
                let first = word(index * self.max_outputs);
                let last = first + word(rows.len());
                let inside = |(_, output): &(usize, u32)| (first..last).contains(output);
                let wanted: Vec<(usize, u32)> = step.outputs.iter().copied().enumerate().filter(inside).collect();
                for wanted in wanted.chunks(self.max_outputs) {
                    let outputs: Vec<u32> = wanted.iter().map(|(_, output)| output - first).collect();
                    let found = self.forward_chunk(rows, step.pages, &outputs).await?;
                    for ((slot, _), row) in wanted.iter().zip(found.chunks_exact(vocab)) {
                        logits[slot * vocab..][..vocab].copy_from_slice(row);
                    }
                }
                if wanted.is_empty() {
                    self.forward_chunk(rows, step.pages, &[]).await?;
                }
            }
            match logits.iter().all(|logit| logit.is_finite()) {
                true => Ok(logits),
                false => Err(bad_logits()),
            }
        })
    }

    fn start_reply(&self, sampler: &SamplerSettings, prompt: &[u32]) -> Result<()> {
        self.device.check()?;
        self.ids.borrow_mut().forget();
        self.device.write(&self.shared.reply, 0, bytemuck::cast_slice(&reply_words(sampler)));
        if sampler.penalises() {
            let mut history = vec![0u32; self.graph.vocab()];
            for &id in prompt {
                if let Some(seen) = history.get_mut(id as usize) {
                    *seen = 1 << 31;
                }
            }
            self.device.write(&self.shared.history, 0, bytemuck::cast_slice(&history));
        }
        Ok(())
    }

    fn prefill(&self, step: &Step<'_>) -> Result<Option<Ticket>> {
        self.device.check()?;
        step.check(self.graph.vocab(), self.n_pages, self.max_rows)?;
        if step.outputs.len() > 1 {
            let words = format!("{} outputs in one prefill", step.outputs.len());
            return Err(Error::new(ErrorKind::InvalidArgument, words));
        }
        self.write_step(step.rows, step.pages, step.outputs)?;
        let choose = !step.outputs.is_empty();
        if choose {
            self.write_decode_state(None, 0, 0, &[]);
        }
        let mut encoder = self.device.encoder();
        let size = Size { rows: word(step.rows.len()), outputs: word(step.outputs.len()) };
        self.prefill.encode(&self.device, &mut encoder, size, choose);
        if choose {
            return self.submit_ids(encoder, 1).map(Some);
        }
        self.device.submit(encoder);
        Ok(None)
    }

    fn decode(&self, chain: &Decode<'_>) -> Result<Ticket> {
        self.device.check()?;
        let Some(program) = &self.decode else {
            return Err(Error::new(ErrorKind::InvalidArgument, "a model whose rows see later ones does not decode"));
        };
        let end = u64::from(chain.position) + u64::from(chain.count);
        if chain.count == 0 || chain.count > MAX_CHAIN || end > (chain.pages.len() * PAGE_TOKENS) as u64 {
            let words =
                format!("{} steps from position {} in {} pages", chain.count, chain.position, chain.pages.len());
            return Err(Error::new(ErrorKind::InvalidArgument, words));
        }
        let vocab = self.graph.vocab();
        if let Some(id) = chain.token.filter(|id| *id as usize >= vocab) {
            let words = format!("token id {id} is outside the vocabulary of {vocab}");
            return Err(Error::new(ErrorKind::InvalidArgument, words));
        }
        if let Some(page) = chain.pages.iter().find(|page| **page as usize >= self.n_pages) {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("page {page} of {}", self.n_pages)));
        }
        self.write_decode_state(chain.token, chain.position, chain.index, chain.pages);
        let mut encoder = self.device.encoder();
        for _ in 0..chain.count {
            program.encode(&self.device, &mut encoder, Size { rows: 1, outputs: 1 }, true);
        }
        self.submit_ids(encoder, chain.count)
    }

    fn collect(&self, ticket: Ticket) -> LocalFuture<'_, Result<Vec<u32>>> {
        Box::pin(async move {
            let pending = self.ids.borrow_mut().take(&ticket)?;
            let ids = pending.words(&self.device).await?;
            match ids.contains(&BAD_LOGITS) {
                true => Err(bad_logits()),
                false => Ok(ids),
            }
        })
    }

    fn counters(&self) -> Counters {
        self.device.counters()
    }
}
