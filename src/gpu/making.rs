//! Makes the programs of a model, and those that an adapter brings beside them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::adapter::Joint;
use super::device::Device;
use super::lower::lower;
use super::pipelines::Pipelines;
use super::planes::Bank;
use super::program::{PARAMS_STRIDE, Parts, Program, Shared, activations};
use super::sizes::n_programs;
use super::stage::Class;
use crate::error::Result;
use crate::graph::{Graph, MAX_BATCH, Output, RopeId, WeightId};
use crate::kernel::{Context, Teams, launches, sample};
use crate::quant::FormatId;

/// What programs of a model are made from, beside its buffers; adapters bring programs of their own.
pub(super) struct Recipe {
    pub(super) formats: Vec<FormatId>,
    /// The matrix of each node that has one.
    pub(super) of_node: BTreeMap<usize, usize>,
    /// Elements of all vectors.
    pub(super) norm_elements: usize,
    pub(super) rope_offsets: Vec<usize>,
    pub(super) pipelines: Pipelines,
    /// Who makes an output.
    pub(super) teams: Teams,
    /// Whether activations that are decoded are rounded to bytes.
    pub(super) rounds: bool,
    pub(super) without: Vec<String>,
    /// Of prefilling and of decoding: programs of a class run one after another, so they share them.
    pub(super) activations: [RefCell<Vec<wgpu::Buffer>>; 2],
}

/// Makes programs.
pub(super) struct Making<'a> {
    pub(super) device: &'a Device,
    pub(super) graph: &'a Graph,
    pub(super) recipe: &'a Recipe,
    pub(super) norm_offsets: &'a BTreeMap<WeightId, usize>,
    pub(super) max_rows: usize,
    pub(super) max_outputs: usize,
}

/// A program to be made: of a class, for so many rows and outputs, with where its steps are written.
struct Kind<'a> {
    class: Class,
    max_rows: usize,
    max_outputs: usize,
    state: &'a wgpu::Buffer,
    kept: &'a RefCell<Vec<wgpu::Buffer>>,
    /// Rows of other replies that it takes, for a batch.
    batch: Option<usize>,
}

impl Making<'_> {
    /// The program that prefills and, where the model decodes, the one that does so.
    pub(super) async fn programs(
        &self,
        matrices: Bank<'_>,
        joints: &BTreeMap<usize, Joint>,
        shared: &Shared,
        prefill_state: &wgpu::Buffer,
    ) -> Result<Vec<Program>> {
        let [of_prefill, of_decode] = &self.recipe.activations;
        let (max_rows, max_outputs) = (self.max_rows, self.max_outputs);
        let prefill =
            Kind { class: Class::Prefill, max_rows, max_outputs, state: prefill_state, kept: of_prefill, batch: None };
        let decode = Kind {
            class: Class::Decode,
            max_rows: 1,
            max_outputs: 1,
            state: &shared.decode_state,
            kept: of_decode,
            batch: None,
        };
        let mut programs = vec![];
        for kind in [prefill, decode].into_iter().take(n_programs(self.graph)) {
            programs.push(self.program(kind, matrices, joints, shared).await?);
        }
        Ok(programs)
    }

    /// The program that decodes one row of each of up to `most` sequences, lowered as for one.
    pub(super) async fn batch(
        &self,
        matrices: Bank<'_>,
        shared: &Shared,
        kept: &RefCell<Vec<wgpu::Buffer>>,
        most: usize,
    ) -> Result<Program> {
        let kind = Kind {
            class: Class::Decode,
            max_rows: MAX_BATCH,
            max_outputs: MAX_BATCH,
            state: &shared.decode_state,
            kept,
            batch: Some(most),
        };
        self.program(kind, matrices, &BTreeMap::new(), shared).await
    }

    async fn program(
        &self,
        kind: Kind<'_>,
        matrices: Bank<'_>,
        joints: &BTreeMap<usize, Joint>,
        shared: &Shared,
    ) -> Result<Program> {
        let Self { device, graph, recipe, .. } = *self;
        let Kind { class, max_rows, max_outputs, state, kept, batch } = kind;
        let without: Vec<&str> = recipe.without.iter().map(String::as_str).collect();
        let shapes = matrices.shapes();
        let rounds = recipe.rounds && class == Class::Decode;
        let rounded = if rounds { matrices.rounded() } else { vec![] };
        let lowered = lower(graph, &recipe.formats, &recipe.of_node, (joints, &rounded), class, &without)?;
        let context = Context {
            graph,
            class,
            max_rows,
            teams: recipe.teams,
            together: batch.unwrap_or(1),
            matrices: &shapes,
            norm_offset: &|weight| self.norm_offsets.get(&weight).copied().unwrap_or(0),
            rope_offset: &|RopeId(index)| recipe.rope_offsets.get(index).copied().unwrap_or(0),
        };
        let stages: Vec<_> = lowered.stages.iter().map(|stage| launches(stage, &context)).collect();
        let activations = activations(device, class, &lowered, (max_rows, max_outputs), kept).await?;
        let sampler = || sample(lowered.logits, graph.vocab().max(1), batch.map(|_| max_rows));
        let parts = Parts {
            lowered: &lowered,
            graph,
            stages: &stages,
            sampler: (graph.output == Output::Logits).then(sampler),
            matrices,
            shared,
            pipelines: &recipe.pipelines,
            state: state.clone(),
            activations,
        };
        // Pipelines are made inside, so a shader that does not compile is found here.
        let launches: usize = stages.iter().map(Vec::len).sum();
        let bytes = PARAMS_STRIDE * launches as u64;
        let made = device.guarded(bytes, || Program::new(device, parts)).await;
        if made.is_err() {
            device.made().forget();
        }
        made
    }
}
