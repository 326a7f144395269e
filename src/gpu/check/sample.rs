//! The little graph of a model's check: of everything that the model has kernels for one, on numbers that are any.

use super::{Needs, TOKENS};
use crate::error::Result;
use crate::graph::{
    Activation, Attention, Builder, GatedDelta, Gates, Graph, Op, Routing, ShortConv, ValueId, WeightId,
};
use crate::quant::FormatId;

/// Rows of each matrix: a whole tile of no kernel.
const ROWS: usize = 40;

/// Rows of each expert's matrix: there are many of them.
const EXPERT_ROWS: usize = 8;

/// Columns of each matrix at least: the largest workgroups go through them in several rounds, the last of which is not whole.
const COLS: usize = 1100;

/// Channels of a convolution: a whole workgroup of none.
const CHANNELS: usize = 200;

/// Experts whose matrices are multiplied, where the choice allows so few: making their weights takes time.
const EXPERTS: [usize; 3] = [16, 32, 64];

/// A graph, its weights' formats, and the widths of what it ends in, each of which has an error of its own.
pub(super) struct Sample {
    pub(super) graph: Graph,
    pub(super) formats: Vec<FormatId>,
    pub(super) parts: Vec<usize>,
}

/// What of a mixture of experts decides which kernels it needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mixture {
    /// The choice, and whether it has a bias.
    pub(super) routing: (Routing, bool),
    /// The formats of the matrices and whether biases are added to what they make.
    pub(super) products: Vec<(FormatId, bool)>,
    /// Between two of them.
    pub(super) activation: Option<Activation>,
}

/// What of a recurrence by the delta rule decides which kernels it needs: elements of keys and values, and how many
/// value heads share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delta {
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
    pub(super) shared: usize,
}

impl Delta {
    pub(super) fn of(spec: &GatedDelta) -> Self {
        Self { key_dim: spec.key_dim, value_dim: spec.value_dim, shared: spec.value_heads / spec.key_heads.max(1) }
    }
}

impl Mixture {
    /// That of a graph, if it has one.
    pub(super) fn of(graph: &Graph, formats: &[FormatId]) -> Option<Self> {
        let mut routing = None;
        let (mut products, mut activation) = (vec![], None);
        let of_experts =
            |value: ValueId| graph.nodes.get(value.0).is_some_and(|node| matches!(node.op, Op::ExpertMatMul { .. }));
        for node in &graph.nodes {
            match &node.op {
                Op::Route { spec, bias, .. } if routing.is_none() => routing = Some((*spec, bias.is_some())),
                Op::ExpertMatMul { weight, bias, .. } => {
                    products.extend(formats.get(weight.0).map(|format| (*format, bias.is_some())));
                }
                Op::Glu { gate, activation: by, .. } if of_experts(*gate) => activation = Some(*by),
                _ => {}
            }
        }
        products.sort_unstable();
        products.dedup();
        Some(Self { routing: routing?, products, activation })
    }
}

/// Whether keys and values of so many heads are whole groups of eight.
fn eights(spec: &Attention, heads: usize) -> bool {
    [spec.head_dim, spec.value_dim].iter().all(|elements| (heads * elements).is_multiple_of(8))
}

/// The same choice of another number of experts, if that can be: tables give whole groups of eight columns.
fn resized(spec: &Routing, experts: usize) -> Option<Routing> {
    let resized = Routing { experts, ..*spec };
    (experts.is_multiple_of(8) && resized.problem().is_none()).then_some(resized)
}

impl Needs {
    /// The little graph.
    pub(super) fn sample(&self) -> Result<Sample> {
        let mut spec = self.attention.clone().unwrap_or(Attention::new(0, (1, 1), 64, 0.125));
        let experts = self.mixture.iter().flat_map(|mixture| mixture.products.iter().map(|(format, _)| *format));
        let all: Vec<FormatId> = self.formats.iter().copied().chain(experts).collect();
        let whole = |cols: usize| all.iter().all(|format| cols.is_multiple_of(format.format().block_weights));
        // Tables give whole groups of eight columns, so keys and values have as many heads as that takes.
        let (group, step) = (spec.heads.max(1), [1, 2, 4].into_iter().find(|n| eights(&spec, *n)).unwrap_or(8));
        let wide = |n: &usize| n * group * spec.value_dim >= COLS && whole(n * group * spec.value_dim);
        spec.kv_heads = (step..=COLS * step).step_by(step).find(wide).unwrap_or(COLS * step);
        spec.heads = spec.kv_heads * group;
        let (heads, key, value) = (spec.heads, spec.kv_heads * spec.head_dim, spec.kv_heads * spec.value_dim);
        let cols = heads * spec.value_dim;
        let mut making = Making { builder: Builder::new(), formats: vec![] };
        let [q, k, v] =
            [("q", heads * spec.head_dim), ("k", key), ("v", value)].map(|(name, width)| making.numbers(name, width));
        let mut x = making.builder.attention("attention", q, k, v, spec);
        if self.rms_norms {
            let factors = making.builder.vector("factors", cols);
            x = making.builder.rms_norm("norm", x, factors, 1e-5, 1);
        }
        let mut parts = vec![];
        for format in &self.formats {
            let weight = making.builder.matrix(format.format().name, ROWS, cols);
            making.formats.push((weight, *format));
            parts.push(making.builder.matmul("product", x, weight));
        }
        if let Some((spec, gated)) = &self.conv {
            parts.push(making.conv(spec, *gated));
        }
        if let Some(delta) = self.delta {
            parts.push(making.delta(delta));
        }
        if let Some(mixture) = &self.mixture {
            making.experts(mixture, x, cols, &mut parts);
        }
        let Making { mut builder, formats: stored } = making;
        let widths =
            if parts.is_empty() { vec![cols] } else { parts.iter().map(|part| builder.width(*part)).collect() };
        let y = match parts.as_slice() {
            [] => x,
            [one] => *one,
            several => builder.concat("parts", several, 1),
        };
        builder.output_rows("output", y);
        let graph = builder.finish()?;
        let mut formats = vec![FormatId::F32; graph.weights.len()];
        for (WeightId(index), format) in stored {
            if let Some(slot) = formats.get_mut(index) {
                *slot = format;
            }
        }
        Ok(Sample { graph, formats, parts: widths })
    }
}

/// The little graph, half done.
struct Making {
    builder: Builder,
    /// Of matrices that are not stored as floats.
    formats: Vec<(WeightId, FormatId)>,
}

impl Making {
    /// A value of any numbers.
    fn numbers(&mut self, name: &str, width: usize) -> ValueId {
        let table = self.builder.matrix(name, TOKENS, width);
        self.builder.embed(name, table)
    }

    fn conv(&mut self, spec: &ShortConv, gated: bool) -> ValueId {
        let x = self.numbers("channels", CHANNELS);
        let gates =
            gated.then(|| Gates { before: self.numbers("before", CHANNELS), after: self.numbers("after", CHANNELS) });
        let weight = self.builder.table("taps", CHANNELS, spec.taps);
        let spec = ShortConv { state: self.builder.states(), weight, ..spec.clone() };
        self.builder.short_conv("convolution", x, gates, spec)
    }

    fn delta(&mut self, Delta { key_dim, value_dim, shared }: Delta) -> ValueId {
        // So that all tables give whole groups of eight columns.
        let (key_heads, value_heads) = (8, 8 * shared.max(1));
        let [a_log, dt] = ["fading", "steps"].map(|name| self.builder.vector(name, value_heads));
        let state = self.builder.states();
        let spec = GatedDelta { state, key_heads, value_heads, key_dim, value_dim, a_log, dt };
        let qkv = self.numbers("remembered", spec.qkv_width());
        let gates = ["beta", "decay"].map(|name| self.numbers(name, value_heads));
        self.builder.gated_delta("recurrence", qkv, gates, spec)
    }

    /// A choice of all experts, and products by those of a choice of fewer.
    fn experts(&mut self, mixture: &Mixture, x: ValueId, cols: usize, parts: &mut Vec<ValueId>) {
        let (spec, biased) = mixture.routing;
        let eights = 8 * spec.groups.map_or(1, |groups| groups.count.max(1));
        let all = resized(&spec, spec.experts.next_multiple_of(eights)).unwrap_or(spec);
        let few = EXPERTS.into_iter().filter(|few| *few < all.experts).find_map(|few| resized(&spec, few));
        let few = few.unwrap_or(all);
        let [told, chosen] = [("all", all), ("few", few)].map(|(name, spec)| {
            let scores = self.numbers(&format!("{name} scores"), spec.experts);
            let bias = biased.then(|| self.builder.vector(format!("{name} biases"), spec.experts));
            self.builder.route(name, scores, spec, bias)
        });
        for (index, (format, with_bias)) in mixture.products.iter().enumerate() {
            let [first, second, last] = ["gate", "up", "down"].map(|name| {
                let name = format!("{name} {index}");
                let weight = self.builder.matrices(&*name, few.experts, EXPERT_ROWS, cols);
                self.formats.push((weight, *format));
                let bias = with_bias.then(|| self.builder.table(format!("{name} biases"), few.experts, EXPERT_ROWS));
                self.builder.expert_matmul(&*name, x, Some(chosen), (weight, bias), name.starts_with("down"))
            });
            let activation = mixture.activation.unwrap_or(Activation::Silu);
            parts.push(self.builder.glu(format!("unit {index}"), first, second, activation));
            parts.push(self.builder.sum_parts(format!("sum {index}"), last, few.used));
        }
        // Last, since it need not be a whole group of eight.
        parts.push(told);
    }
}
