//! Builds a [`Graph`]: one short method an operation, shapes worked out and checked as the model is written down.
//!
//! A mismatch is a fault of a model file or of a configuration whose numbers do not fit together, so the first one
//! is kept and [`Builder::finish`] reports it; the methods themselves stay free of results and read as mathematics.

use std::collections::BTreeMap;

use super::{
    Activation, Attention, EmbedBy, GatedDelta, Gates, Graph, KvWidths, Node, Op, Orders, Output, Rope, RopeId,
    Routing, ShortConv, ValueId, Weight, WeightId, WeightKind,
};
use crate::error::{Error, ErrorKind, Result};

/// Writes the nodes of a graph one after another.
#[derive(Default)]
pub struct Builder {
    pub(super) graph: Graph,
    declared: BTreeMap<String, WeightId>,
    /// Orders of the columns of matrices, and what was put in them.
    pub(super) orders: Orders,
    pub(super) gathered: BTreeMap<(ValueId, Option<ValueId>, WeightId), ValueId>,
    error: Option<Error>,
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty graph whose matrices have these orders.
    pub fn with_orders(orders: Orders) -> Self {
        Self { orders, ..Self::default() }
    }

    pub(super) fn expect(&mut self, holds: bool, name: &str, problem: impl FnOnce() -> String) {
        if !holds && self.error.is_none() {
            self.error = Some(Error::new(ErrorKind::MalformedModel, problem()).at(name));
        }
    }

    pub(super) fn push(&mut self, name: impl Into<String>, op: Op, width: usize) -> ValueId {
        self.graph.nodes.push(Node { name: name.into(), op, width });
        ValueId(self.graph.nodes.len() - 1)
    }

    fn declare(&mut self, weight: Weight) -> WeightId {
        if let Some(known) = self.declared.get(&weight.name).copied() {
            let same = self.graph.weights[known.0] == weight;
            self.expect(same, &weight.name, || "declared twice with different shapes".into());
            return known;
        }
        let id = WeightId(self.graph.weights.len());
        self.declared.insert(weight.name.clone(), id);
        self.graph.weights.push(weight);
        id
    }

    /// Declares a matrix `(rows, cols)`, or finds it when it was declared before.
    pub fn matrix(&mut self, name: impl Into<String>, rows: usize, cols: usize) -> WeightId {
        self.matrices(name, 1, rows, cols)
    }

    /// Declares `count` matrices `(rows, cols)` one above another.
    pub fn matrices(&mut self, name: impl Into<String>, count: usize, rows: usize, cols: usize) -> WeightId {
        let rows = rows.saturating_mul(count);
        self.declare(Weight { name: name.into(), rows, cols, kind: WeightKind::Matrix, stacked: count })
    }

    /// Declares a vector of `cols` elements.
    pub fn vector(&mut self, name: impl Into<String>, cols: usize) -> WeightId {
        self.table(name, 1, cols)
    }

    /// Declares `cols` numbers for each of `rows` channels or experts.
    pub fn table(&mut self, name: impl Into<String>, rows: usize, cols: usize) -> WeightId {
        self.declare(Weight { name: name.into(), rows, cols, kind: WeightKind::Vector, stacked: rows })
    }

    /// Layers that keep keys and values so far, so the [`Attention::layer`] of the next one.
    pub fn kv_layers(&self) -> usize {
        self.graph.kv_widths.len()
    }

    /// Operations that keep state so far, so the number of the next one.
    pub fn states(&self) -> usize {
        self.graph.state_widths.len()
    }

    /// Columns of a value.
    pub fn width(&self, value: ValueId) -> usize {
        self.graph.width(value)
    }

    /// Declares a rotary encoding.
    pub fn rotary(&mut self, rope: Rope) -> RopeId {
        self.graph.ropes.push(rope);
        RopeId(self.graph.ropes.len() - 1)
    }

    /// See [`Op::Embed`].
    pub fn embed(&mut self, name: impl Into<String>, table: WeightId) -> ValueId {
        self.embed_by(name, table, EmbedBy::Token)
    }

    /// See [`Op::Embed`].
    pub fn embed_by(&mut self, name: impl Into<String>, table: WeightId, by: EmbedBy) -> ValueId {
        let (name, Weight { rows, cols: width, .. }) = (name.into(), self.graph.weights[table.0].clone());
        if let EmbedBy::Position { offset } = by {
            self.expect(offset < rows, &name, || format!("position 0 is row {offset} of {rows}"));
        }
        self.push(name, Op::Embed { table, by }, width)
    }

    /// See [`Op::LayerNorm`].
    pub fn layer_norm(
        &mut self,
        name: impl Into<String>,
        x: ValueId,
        weight: WeightId,
        bias: Option<WeightId>,
        eps: f32,
    ) -> ValueId {
        let (name, width) = (name.into(), self.graph.width(x));
        for part in [Some(weight), bias].into_iter().flatten() {
            let cols = self.graph.weights[part.0].cols;
            self.expect(cols == width, &name, || format!("a norm of {cols} over a width of {width}"));
        }
        self.push(name, Op::LayerNorm { x, weight, bias, eps }, width)
    }

    /// See [`Op::Activate`].
    pub fn activate(&mut self, name: impl Into<String>, x: ValueId, activation: Activation) -> ValueId {
        let width = self.graph.width(x);
        self.push(name, Op::Activate { x, activation }, width)
    }

    /// See [`Op::RmsNorm`].
    pub fn rms_norm(
        &mut self,
        name: impl Into<String>,
        x: ValueId,
        weight: impl Into<Option<WeightId>>,
        eps: f32,
        groups: usize,
    ) -> ValueId {
        let (name, width, weight) = (name.into(), self.graph.width(x), weight.into());
        let part = if groups > 0 && width % groups == 0 { width / groups } else { 0 };
        let cols = weight.map_or(part, |weight| self.graph.weights[weight.0].cols);
        self.expect(cols > 0 && cols <= part, &name, || format!("a norm of {groups} x {cols} over a width of {width}"));
        self.push(name, Op::RmsNorm { x, weight, eps, groups }, width)
    }

    /// See [`Op::MatMul`].
    pub fn matmul(&mut self, name: impl Into<String>, x: ValueId, weight: WeightId) -> ValueId {
        let (name, width) = (name.into(), self.graph.width(x));
        let (rows, cols) = (self.graph.weights[weight.0].rows, self.graph.weights[weight.0].cols);
        self.expect(cols == width, &name, || format!("a matrix of {rows} x {cols} on a width of {width}"));
        let x = self.in_order(x, None, weight);
        self.push(name, Op::MatMul { x, weight }, rows)
    }

    /// See [`Op::Rope`]; rotates from the first element of a head on.
    pub fn rope(&mut self, name: impl Into<String>, x: ValueId, rope: RopeId, heads: usize) -> ValueId {
        self.rope_from(name, x, rope, heads, 0)
    }

    /// See [`Op::Rope`].
    pub fn rope_from(
        &mut self,
        name: impl Into<String>,
        x: ValueId,
        rope: RopeId,
        heads: usize,
        first: usize,
    ) -> ValueId {
        let (name, width) = (name.into(), self.graph.width(x));
        let rotary_dims = self.graph.ropes[rope.0].inv_freq.len() * 2;
        let fits = heads > 0 && width % heads == 0 && first.saturating_add(rotary_dims) <= width / heads;
        self.expect(fits, &name, || {
            format!("{rotary_dims} rotary dimensions from {first} on in {heads} heads over a width of {width}")
        });
        self.push(name, Op::Rope { x, rope, heads, first }, width)
    }

    /// See [`Attention`].
    pub fn attention(
        &mut self,
        name: impl Into<String>,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        spec: Attention,
    ) -> ValueId {
        let name = name.into();
        let kept = KvWidths {
            heads: spec.kv_heads,
            key_dim: spec.head_dim,
            value_dim: if spec.latent { 0 } else { spec.value_dim },
        };
        let wide = spec.heads.saturating_mul(spec.head_dim);
        let widths = (self.graph.width(q), self.graph.width(k), self.graph.width(v));
        let needed = (wide, kept.keys(), if spec.latent { kept.keys() } else { kept.values() });
        self.expect(widths == needed, &name, || {
            format!("queries, keys and values of widths {widths:?} where {needed:?} are needed")
        });
        let inside = !spec.latent || (k == v && spec.value_dim <= spec.head_dim && spec.kv_heads == 1);
        self.expect(inside, &name, || "values that are no part of the keys".into());
        let grouped = spec.kv_heads > 0 && spec.heads.is_multiple_of(spec.kv_heads);
        self.expect(grouped, &name, || format!("{} heads do not share {} key heads evenly", spec.heads, spec.kv_heads));
        let sinks = spec.sinks.map_or(spec.heads, |sinks| self.graph.weights[sinks.0].cols);
        self.expect(sinks == spec.heads, &name, || format!("{sinks} sinks for {} heads", spec.heads));
        // Where a step has whole texts, nothing of a layer is wanted after it: later ones may use its pages again.
        let again = !spec.causal && self.graph.kv_widths.get(spec.layer) == Some(&kept);
        let in_order = self.graph.kv_widths.len() == spec.layer;
        self.expect(in_order || again, &name, || format!("layer {} out of order", spec.layer));
        if !again {
            self.graph.kv_widths.push(kept);
        }
        let wide = spec.heads.saturating_mul(spec.value_dim);
        self.push(name, Op::Attention { q, k, v, spec }, wide)
    }

    /// See [`ShortConv`].
    pub fn short_conv(
        &mut self,
        name: impl Into<String>,
        x: ValueId,
        gates: Option<Gates>,
        spec: ShortConv,
    ) -> ValueId {
        let (name, width) = (name.into(), self.graph.width(x));
        let weight = &self.graph.weights[spec.weight.0];
        let shape = (weight.rows, weight.cols);
        self.expect(shape == (width, spec.taps) && spec.taps > 1, &name, || {
            format!("{} taps of {shape:?} on a width of {width}", spec.taps)
        });
        let gated =
            gates.is_none_or(|gates| [gates.before, gates.after].map(|gate| self.graph.width(gate)) == [width; 2]);
        self.expect(gated, &name, || "gates of another width".into());
        self.keep_state(&name, spec.state, spec.taps.saturating_sub(1).saturating_mul(width));
        self.push(name, Op::ShortConv { x, gates, spec }, width)
    }

    /// See [`GatedDelta`].
    pub fn gated_delta(
        &mut self,
        name: impl Into<String>,
        qkv: ValueId,
        [beta, decay]: [ValueId; 2],
        spec: GatedDelta,
    ) -> ValueId {
        let name = name.into();
        let widths = [qkv, beta, decay].map(|value| self.graph.width(value));
        let needed = [spec.qkv_width(), spec.value_heads, spec.value_heads];
        self.expect(widths == needed, &name, || format!("widths {widths:?} where {needed:?} are needed"));
        let grouped = spec.key_heads > 0 && spec.value_heads.is_multiple_of(spec.key_heads);
        self.expect(grouped, &name, || {
            format!("{} heads do not share {} key heads evenly", spec.value_heads, spec.key_heads)
        });
        let vectors = [spec.a_log, spec.dt].map(|weight| self.graph.weights[weight.0].cols);
        self.expect(vectors == [spec.value_heads; 2], &name, || {
            format!("vectors of {vectors:?} for {} heads", spec.value_heads)
        });
        let width = spec.value_heads.saturating_mul(spec.value_dim);
        self.keep_state(&name, spec.state, width.saturating_mul(spec.key_dim));
        self.push(name, Op::GatedDelta { qkv, beta, decay, spec }, width)
    }

    /// See [`Op::Concat`].
    pub fn concat(&mut self, name: impl Into<String>, parts: &[ValueId], groups: usize) -> ValueId {
        let name = name.into();
        let widths: Vec<usize> = parts.iter().map(|part| self.graph.width(*part)).collect();
        let even = groups > 0 && widths.iter().all(|width| width.is_multiple_of(groups));
        self.expect(even && !widths.is_empty(), &name, || format!("widths {widths:?} in {groups} groups"));
        self.push(name, Op::Concat { parts: parts.to_vec(), groups }, widths.iter().sum())
    }

    fn keep_state(&mut self, name: &str, state: usize, width: usize) {
        let in_order = self.graph.state_widths.len() == state;
        self.expect(in_order, name, || format!("state {state} out of order"));
        self.graph.state_widths.push(width);
    }

    /// See [`Op::Glu`].
    pub fn glu(&mut self, name: impl Into<String>, gate: ValueId, up: ValueId, activation: Activation) -> ValueId {
        let (name, width, gates) = (name.into(), self.graph.width(up), self.graph.width(gate));
        self.expect(gates == width || gates == 1, &name, || format!("{gates} gates for a width of {width}"));
        self.push(name, Op::Glu { gate, up, activation }, width)
    }

    /// See [`Op::AddBias`].
    pub fn add_bias(&mut self, name: impl Into<String>, x: ValueId, bias: WeightId) -> ValueId {
        let (name, width) = (name.into(), self.graph.width(x));
        let cols = self.graph.weights[bias.0].cols;
        self.expect(cols == width, &name, || format!("a bias of {cols} on a width of {width}"));
        self.push(name, Op::AddBias { x, bias }, width)
    }

    /// See [`Op::Scale`].
    pub fn scale(&mut self, name: impl Into<String>, x: ValueId, factor: f32) -> ValueId {
        let width = self.graph.width(x);
        self.push(name, Op::Scale { x, factor }, width)
    }

    /// See [`Op::SoftCap`].
    pub fn soft_cap(&mut self, name: impl Into<String>, x: ValueId, cap: f32) -> ValueId {
        let name = name.into();
        let width = self.graph.width(x);
        self.expect(cap > 0.0, &name, || format!("a soft cap of {cap}"));
        self.push(name, Op::SoftCap { x, cap }, width)
    }

    /// See [`Op::Add`].
    pub fn add(&mut self, name: impl Into<String>, a: ValueId, b: ValueId) -> ValueId {
        let (name, width) = (name.into(), self.graph.width(a));
        let same = self.graph.width(b) == width;
        self.expect(same, &name, || "a sum of different widths".into());
        self.push(name, Op::Add { a, b }, width)
    }

    /// See [`Op::Route`].
    pub fn route(
        &mut self,
        name: impl Into<String>,
        scores: ValueId,
        spec: Routing,
        bias: Option<WeightId>,
    ) -> ValueId {
        let (name, width, used) = (name.into(), self.graph.width(scores), spec.used);
        let problem = spec.problem();
        self.expect(problem.is_none(), &name, || problem.unwrap_or_default());
        let biases = bias.map_or(width, |bias| self.graph.weights[bias.0].cols);
        self.expect(width == spec.experts && biases == width, &name, || {
            format!("{width} scores and {biases} biases for {} experts", spec.experts)
        });
        self.push(name, Op::Route { scores, spec, bias }, 2 * used)
    }

    /// See [`Op::ExpertMatMul`].
    pub fn expert_matmul(
        &mut self,
        name: impl Into<String>,
        x: ValueId,
        route: Option<ValueId>,
        (weight, bias): (WeightId, Option<WeightId>),
        weighted: bool,
    ) -> ValueId {
        let (name, width) = (name.into(), self.graph.width(x));
        let Weight { rows, cols, stacked, .. } = self.graph.weights[weight.0];
        let slots = route.map_or(stacked, |route| self.graph.width(route) / 2);
        self.expect(width == cols || cols.checked_mul(slots) == Some(width), &name, || {
            format!("{stacked} matrices of {cols} columns for {slots} slots on a width of {width}")
        });
        let biases = bias.map_or(rows, |bias| self.graph.weights[bias.0].rows * self.graph.weights[bias.0].cols);
        self.expect(biases == rows, &name, || format!("{biases} biases for {rows} rows"));
        self.expect(!weighted || route.is_some(), &name, || "weights without a route".into());
        let out = (rows / stacked.max(1)).saturating_mul(slots);
        let x = self.in_order(x, route, weight);
        self.push(name, Op::ExpertMatMul { x, route, weight, bias, weighted }, out)
    }

    /// See [`Op::SumParts`].
    pub fn sum_parts(&mut self, name: impl Into<String>, x: ValueId, parts: usize) -> ValueId {
        let (name, width) = (name.into(), self.graph.width(x));
        let fits = parts > 0 && width.is_multiple_of(parts);
        self.expect(fits, &name, || format!("{parts} parts of a width of {width}"));
        self.push(name, Op::SumParts { x, parts }, width / parts.max(1))
    }

    /// See [`Op::OutputRows`].
    pub fn output_rows(&mut self, name: impl Into<String>, x: ValueId) -> ValueId {
        let width = self.graph.width(x);
        self.push(name, Op::OutputRows { x }, width)
    }

    /// Says that these are the final hidden states; see [`Graph::hidden`].
    pub fn hidden(&mut self, states: ValueId) {
        self.graph.hidden = Some(states);
    }

    /// Says what the last node is; without a word it is the logits.
    pub fn output(&mut self, output: Output) {
        self.graph.output = output;
    }

    /// The graph, or the first mismatch.
    pub fn finish(self) -> Result<Graph> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.graph),
        }
    }
}
