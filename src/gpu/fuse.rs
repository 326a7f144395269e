//! Fusion is a table ([`FUSIONS`]): each entry looks at the graph and marks nodes that another node's kernel does on the
//! way. Any entry can be left out, and the result must be the same up to rounding: that is how a test checks each of them.

use std::collections::BTreeMap;

use super::stage::{Class, Norm};
use crate::graph::{Gates, Graph, Op, RopeId, ValueId, Weight, WeightId, WeightKind};
use crate::quant::FormatId;

/// What the entries of the table find out about a graph.
pub struct Analysis<'a> {
    graph: &'a Graph,
    formats: &'a [FormatId],
    /// For each value the nodes that read it.
    users: Vec<Vec<usize>>,
    /// For each weight how many nodes use it.
    weight_uses: Vec<usize>,
    /// Nodes that make no stage: done by the node of that index.
    pub(super) done_by: BTreeMap<usize, usize>,
    /// Matrices of several weights, by their first node; the other nodes are `done_by` it or by the node that consumes.
    pub(super) joined: BTreeMap<usize, Vec<usize>>,
    /// Pairs of gate and up, by the node of the gated unit.
    pub(super) pairs: BTreeMap<usize, (usize, usize)>,
    /// Products and sums of products done in place, by the Add node: (product, the other addend).
    pub(super) residuals: BTreeMap<usize, (usize, ValueId)>,
}

/// An entry of the table.
pub struct Fusion {
    /// For tests and reports.
    pub name: &'static str,
    /// The classes it applies to.
    pub classes: &'static [Class],
    mark: fn(&mut Analysis<'_>),
}

/// Every fusion, in the order in which they look: what is added in place depends on who reads late.
pub const FUSIONS: &[Fusion] = &[
    Fusion { name: "bias into its product", classes: &[Class::Decode, Class::Prefill], mark: bias_into_product },
    Fusion { name: "what one node reads as one matrix", classes: &[Class::Decode, Class::Prefill], mark: join_bases },
    Fusion {
        name: "gate|up with activation(gate) * up",
        classes: &[Class::Decode, Class::Prefill],
        mark: join_gate_up,
    },
    Fusion { name: "sum of experts into their product", classes: &[Class::Decode], mark: sum_into_product },
    Fusion { name: "norm into its products", classes: &[Class::Decode], mark: norm_into_products },
    Fusion { name: "product added in place", classes: &[Class::Decode, Class::Prefill], mark: add_in_place },
];

impl<'a> Analysis<'a> {
    pub(super) fn new(graph: &'a Graph, formats: &'a [FormatId], class: Class, without: &[&str]) -> Self {
        let mut users = vec![Vec::new(); graph.nodes.len()];
        let mut weight_uses = vec![0; graph.weights.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            for input in node.op.inputs() {
                users[input.0].push(index);
            }
            if let Op::Embed { table: weight, .. } | Op::MatMul { weight, .. } | Op::ExpertMatMul { weight, .. } =
                node.op
            {
                weight_uses[weight.0] += 1;
            }
        }
        let mut analysis = Self {
            graph,
            formats,
            users,
            weight_uses,
            done_by: BTreeMap::new(),
            joined: BTreeMap::new(),
            pairs: BTreeMap::new(),
            residuals: BTreeMap::new(),
        };
        analysis.mark_attention_inputs();
        for fusion in FUSIONS {
            if fusion.classes.contains(&class) && !without.contains(&fusion.name) {
                (fusion.mark)(&mut analysis);
            }
        }
        analysis
    }

    /// The norms and rotations between the products and an attention are always done by `RopeStore`.
    fn mark_attention_inputs(&mut self) {
        for index in 0..self.graph.nodes.len() {
            let Op::Attention { q, k, spec, .. } = &self.graph.nodes[index].op else { continue };
            for (end, heads) in [(*q, spec.heads), (*k, spec.kv_heads)] {
                for node in chain(self.graph, end, heads).nodes {
                    self.done_by.insert(node, index);
                }
            }
        }
    }

    /// The product that a value is, with the bias that is added or the sum that is made on the way.
    pub(super) fn product(&self, value: ValueId) -> Option<Product> {
        let on_the_way = |x: ValueId| self.done_by.get(&x.0) == Some(&value.0);
        match self.graph.nodes[value.0].op {
            Op::MatMul { x, weight } => Some(Product { x, weight, bias: None, experts: None }),
            Op::ExpertMatMul { x, route, weight, bias, weighted } => {
                Some(Product { x, weight, bias, experts: Some(ExpertProduct { route, weighted, sum: false }) })
            }
            Op::AddBias { x, bias } if on_the_way(x) => Some(Product { bias: Some(bias), ..self.product(x)? }),
            Op::SumParts { x, .. } if on_the_way(x) => {
                let product = self.product(x)?;
                Some(Product {
                    experts: product.experts.map(|experts| ExpertProduct { sum: true, ..experts }),
                    ..product
                })
            }
            _ => None,
        }
    }

    /// Whether `second` follows `first` in the buffer of vectors.
    fn adjacent(&self, first: WeightId, second: WeightId) -> bool {
        let between = self.graph.weights.get(first.0 + 1..second.0);
        let fills = self.graph.weights[first.0].cols.is_multiple_of(4);
        fills && between.is_some_and(|between| between.iter().all(|weight| weight.kind != WeightKind::Vector))
    }

    /// What a norm reads that its products do on the way.
    fn normed(&self, value: ValueId) -> Option<ValueId> {
        match self.graph.nodes[value.0].op {
            Op::RmsNorm { x, .. } if self.done_by.contains_key(&value.0) => Some(x),
            _ => None,
        }
    }

    /// The last node that reads a value, seen through nodes that others do for them.
    fn last_read(&self, value: ValueId) -> usize {
        // A product is done earlier or later, at the node that does it; a norm or a rotation is done where its value is read.
        let through = |&user: &usize| {
            let mut node = user;
            if matches!(self.graph.nodes[node].op, Op::Concat { groups: 1, .. }) {
                return self.last_read(ValueId(node));
            }
            while let Some(&by) = self.done_by.get(&node) {
                if matches!(self.graph.nodes[node].op, Op::RmsNorm { .. } | Op::Rope { .. }) {
                    return self.last_read(ValueId(node));
                }
                node = by;
            }
            node
        };
        self.users[value.0].iter().map(through).max().unwrap_or(value.0)
    }
}

/// `x W^T + bias`, or the same by the matrices of experts.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) x: ValueId,
    pub(super) weight: WeightId,
    pub(super) bias: Option<WeightId>,
    pub(super) experts: Option<ExpertProduct>,
}

/// What of [`Op::ExpertMatMul`] a plain product does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ExpertProduct {
    pub(super) route: Option<ValueId>,
    pub(super) weighted: bool,
    /// Whether the slots are added up.
    pub(super) sum: bool,
}

/// What stands between a product and an attention.
pub(super) struct Chain {
    pub(super) base: ValueId,
    pub(super) norm: Option<Norm>,
    pub(super) rope: Option<RopeId>,
    /// The first element of a head that is rotated.
    pub(super) first: usize,
    nodes: Vec<usize>,
}

/// The norm that a node is.
pub(super) fn norm_of(graph: &Graph, node: usize) -> Option<Norm> {
    let Op::RmsNorm { weight, eps, groups, .. } = graph.nodes[node].op else { return None };
    let cols = weight.map_or(graph.nodes[node].width / groups.max(1), |weight| graph.weights[weight.0].cols);
    Some(Norm { weight, cols, eps })
}

/// Follows `Rope(RmsNorm(base))`, each optional, from its end; the norm is one of each of `heads` heads.
pub(super) fn chain(graph: &Graph, end: ValueId, heads: usize) -> Chain {
    let mut chain = Chain { base: end, norm: None, rope: None, first: 0, nodes: vec![] };
    if let Op::Rope { x, rope, first, .. } = graph.nodes[chain.base.0].op {
        chain.nodes.push(chain.base.0);
        chain.rope = Some(rope);
        chain.first = first;
        chain.base = x;
    }
    if let Op::RmsNorm { x, groups, .. } = graph.nodes[chain.base.0].op
        && groups == heads
    {
        chain.nodes.push(chain.base.0);
        chain.norm = norm_of(graph, chain.base.0);
        chain.base = x;
    }
    chain
}

/// The values that a node's kernel reads in one buffer: what queries, keys and values of an attention start from (values
/// that are keys are not named twice), what is convolved and its gates, and what stands side by side.
pub(super) fn bases(graph: &Graph, op: &Op) -> Option<Vec<ValueId>> {
    match op {
        Op::Attention { q, k, v, spec } => {
            let mut bases = vec![chain(graph, *q, spec.heads).base, chain(graph, *k, spec.kv_heads).base];
            bases.extend((!spec.latent).then_some(*v));
            Some(bases)
        }
        Op::ShortConv { x, gates: Some(Gates { before, after }), .. } => Some(vec![*before, *after, *x]),
        Op::GatedDelta { beta, decay, .. } => Some(vec![*beta, *decay]),
        Op::Concat { parts, groups: 1 } => Some(parts.clone()),
        _ => None,
    }
}

fn bias_into_product(analysis: &mut Analysis<'_>) {
    for (index, node) in analysis.graph.nodes.iter().enumerate() {
        let Op::AddBias { x, .. } = node.op else { continue };
        if analysis.users[x.0].len() == 1 && matches!(analysis.graph.nodes[x.0].op, Op::MatMul { .. }) {
            analysis.done_by.insert(x.0, index);
        }
    }
}

fn join_bases(analysis: &mut Analysis<'_>) {
    for node in &analysis.graph.nodes {
        let Some(bases) = bases(analysis.graph, &node.op) else { continue };
        let mut run: Vec<usize> = vec![];
        let mut runs = vec![];
        for base in bases {
            let alone = |product: &Product| {
                let uses = (analysis.weight_uses[product.weight.0], analysis.users[base.0].len());
                uses == (1, 1) && product.experts.is_none()
            };
            let Some(product) = analysis.product(base).filter(alone) else {
                runs.push(std::mem::take(&mut run));
                continue;
            };
            let before = run.last().and_then(|&last| analysis.product(ValueId(last)));
            let joins = before.is_none_or(|before| {
                let biases = match (before.bias, product.bias) {
                    (None, None) => true,
                    (Some(first), Some(second)) => analysis.adjacent(first, second),
                    _ => false,
                };
                let formats = [before, product].map(|product| analysis.formats[product.weight.0]);
                // Rows that share something must begin where their windows do.
                let window = formats[0].format().planes.shared.window();
                let aligned = analysis.graph.weights[before.weight.0].rows.is_multiple_of(window);
                biases && before.x == product.x && formats[0] == formats[1] && aligned
            });
            if !joins {
                runs.push(std::mem::take(&mut run));
            }
            run.push(base.0);
        }
        runs.push(run);
        for run in runs.into_iter().filter(|run| run.len() > 1) {
            for &other in &run[1..] {
                analysis.done_by.insert(other, run[0]);
            }
            analysis.joined.insert(run[0], run);
        }
    }
}

fn join_gate_up(analysis: &mut Analysis<'_>) {
    for (index, node) in analysis.graph.nodes.iter().enumerate() {
        let Op::Glu { gate, up, .. } = node.op else { continue };
        let (Some(gate_product), Some(up_product)) = (analysis.product(gate), analysis.product(up)) else { continue };
        let products = [gate_product, up_product];
        let alike = gate_product.x == up_product.x
            && analysis.graph.width(gate) == analysis.graph.width(up)
            && gate_product.experts == up_product.experts
            && gate_product.bias.is_some() == up_product.bias.is_some()
            && analysis.formats[gate_product.weight.0] == analysis.formats[up_product.weight.0];
        let single = [gate, up].iter().all(|value| analysis.users[value.0].len() == 1)
            && products.iter().all(|product| analysis.weight_uses[product.weight.0] == 1);
        // Of the kernels only that of experts has two biases.
        let biases = gate_product.bias.is_none() || gate_product.experts.is_some();
        if alike && single && biases {
            analysis.done_by.insert(gate.0, index);
            analysis.done_by.insert(up.0, index);
            analysis.pairs.insert(index, (gate.0, up.0));
        }
    }
}

fn add_in_place(analysis: &mut Analysis<'_>) {
    for (index, node) in analysis.graph.nodes.iter().enumerate() {
        let Op::Add { a, b } = node.op else { continue };
        for (product, other) in [(b, a), (a, b)] {
            let free = !analysis.done_by.contains_key(&product.0) && !analysis.joined.contains_key(&product.0);
            let alone = analysis.users[product.0].len() == 1 && product != other;
            let source = analysis.product(product).map(|product| product.x);
            let reads_other = source.is_some_and(|x| x == other || analysis.normed(x) == Some(other));
            // The product is computed where the sum stands: the other addend may be overwritten there if nobody reads it later.
            if free && alone && source.is_some() && !reads_other && analysis.last_read(other) == index {
                analysis.done_by.insert(product.0, index);
                analysis.residuals.insert(index, (product.0, other));
                break;
            }
        }
    }
}

fn sum_into_product(analysis: &mut Analysis<'_>) {
    for (index, node) in analysis.graph.nodes.iter().enumerate() {
        let Op::SumParts { x, parts } = node.op else { continue };
        let Op::ExpertMatMul { weight, .. } = analysis.graph.nodes[x.0].op else { continue };
        let Weight { rows, stacked, .. } = analysis.graph.weights[weight.0];
        let slots = analysis.graph.width(x) * stacked.max(1) / rows.max(1);
        if slots == parts && analysis.users[x.0].len() == 1 {
            analysis.done_by.insert(x.0, index);
        }
    }
}

fn norm_into_products(analysis: &mut Analysis<'_>) {
    for (index, node) in analysis.graph.nodes.iter().enumerate() {
        let Op::RmsNorm { groups: 1, weight: Some(weight), .. } = node.op else { continue };
        if analysis.graph.weights[weight.0].cols != node.width {
            continue;
        }
        let users = &analysis.users[index];
        let value = ValueId(index);
        let takes = |&user: &usize| {
            let product = analysis.product(ValueId(user)).filter(|product| product.x == value);
            let by = analysis.done_by.get(&user).map(|&by| &analysis.graph.nodes[by].op);
            let summed = matches!(by, Some(Op::SumParts { .. }));
            match product {
                Some(Product { experts: Some(_), weight, .. }) => {
                    analysis.graph.weights[weight.0].cols == analysis.graph.width(value) && !summed
                }
                product => product.is_some(),
            }
        };
        let only_products = users.iter().all(takes);
        if only_products && !users.is_empty() && !analysis.done_by.contains_key(&index) {
            let user = users[0];
            analysis.done_by.insert(index, user);
        }
    }
}
