//! Lowers a graph to stages: what is fused with what, and which values share a buffer. Pure data, no device.
//!
//! Fusion is a table ([`FUSIONS`]): each entry looks at the graph and marks nodes that another node's kernel will do on
//! the way. Emission then walks the nodes in order; a marked node makes no stage of its own. Any entry can be left
//! out, and the result must be the same up to rounding: that is how a test checks each of them.

use std::collections::BTreeMap;

use super::buffers::{Access, assign};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Activation, Attention, Graph, Op, RopeId, ValueId, WeightId, WeightKind};
use crate::quant::FormatId;

/// For which kind of step stages are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// One row, its logits wanted.
    Decode,
    /// Many rows, some logits wanted.
    Prefill,
}

/// Where rows of a value lie: elements of float32 in one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the activation buffer.
    pub buffer: usize,
    /// First element of a row.
    pub offset: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

/// Which rows a stage works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// All rows of the step.
    Rows,
    /// The rows whose logits are wanted.
    Outputs,
}

/// One weight inside a matrix: its row `r` is the matrix' row `first_row + r * row_step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The declared weight.
    pub weight: WeightId,
    /// Where its first row goes.
    pub first_row: usize,
    /// 1 for rows one after another, 2 for rows that alternate with a sibling's.
    pub row_step: usize,
}

/// What one kernel multiplies by: one weight or several of the same format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// How all parts are stored.
    pub format: FormatId,
    /// Rows of all parts together.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// The weights in it.
    pub parts: Vec<Part>,
}

/// A norm done by another kernel on the way: its weight and epsilon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// The factors.
    pub weight: WeightId,
    /// Added to the mean square.
    pub eps: f32,
}

/// One kernel's work.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant says what its operands are")]
pub enum Stage {
    /// Rows of the table by token.
    Embed { matrix: usize, y: Place },
    /// A norm of its own.
    Norm { x: Place, y: Place, norm: Norm, groups: usize, width: usize, domain: Domain },
    /// A matrix product, with what is fused into it.
    MatMul {
        matrix: usize,
        x: Place,
        y: Place,
        norm: Option<Norm>,
        bias: Option<WeightId>,
        residual: bool,
        glu: Option<Activation>,
        domain: Domain,
    },
    /// Norms and rotation of queries and keys, and the write of keys and values into their pages.
    RopeStore {
        spec: Attention,
        q: Place,
        k: Place,
        v: Place,
        q_norm: Option<Norm>,
        k_norm: Option<Norm>,
        rope: Option<RopeId>,
    },
    /// Attention over the pages.
    Attend { spec: Attention, q: Place, y: Place },
    /// What nothing took in; `b` is `a` where there is one operand.
    Elementwise { op: ElementOp, a: Place, b: Place, y: Place, width: usize, domain: Domain },
    /// The wanted rows of x.
    OutputRows { x: Place, y: Place, width: usize },
}

/// What works element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ElementOp {
    /// `a + b`.
    Add,
    /// `activation(a) * b`.
    Glu(Activation),
    /// `a + bias`.
    Bias(WeightId),
    /// `factor * a`.
    Scale(f32),
    /// `cap * tanh(a / cap)`.
    SoftCap(f32),
}

/// A lowered graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// In order.
    pub stages: Vec<Stage>,
    /// Elements of one row of each activation buffer, and which rows it has.
    pub buffers: Vec<(usize, Domain)>,
    /// Where the logits are.
    pub logits: Place,
}

/// What the entries of the table find out about a graph.
pub struct Analysis<'a> {
    graph: &'a Graph,
    formats: &'a [FormatId],
    /// For each value the nodes that read it.
    users: Vec<Vec<usize>>,
    /// For each weight how many nodes use it.
    weight_uses: Vec<usize>,
    /// Nodes that make no stage: done by the node of that index.
    done_by: BTreeMap<usize, usize>,
    /// Matrices of several weights, by their first node; the other nodes are `done_by` it or by the node that consumes.
    joined: BTreeMap<usize, Vec<usize>>,
    /// Pairs of gate and up, by the node of the gated unit.
    pairs: BTreeMap<usize, (usize, usize)>,
    /// Matrix products done in place, by the Add node: (product, the other addend).
    residuals: BTreeMap<usize, (usize, ValueId)>,
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
    Fusion { name: "q|k|v as one matrix", classes: &[Class::Decode, Class::Prefill], mark: join_qkv },
    Fusion {
        name: "gate|up with activation(gate) * up",
        classes: &[Class::Decode, Class::Prefill],
        mark: join_gate_up,
    },
    Fusion { name: "norm into its products", classes: &[Class::Decode], mark: norm_into_products },
    Fusion { name: "product added in place", classes: &[Class::Decode, Class::Prefill], mark: add_in_place },
];

impl<'a> Analysis<'a> {
    fn new(graph: &'a Graph, formats: &'a [FormatId], class: Class, without: &[&str]) -> Self {
        let mut users = vec![Vec::new(); graph.nodes.len()];
        let mut weight_uses = vec![0; graph.weights.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            for input in node.op.inputs() {
                users[input.0].push(index);
            }
            if let Op::Embed { table: weight } | Op::MatMul { weight, .. } | Op::RmsNorm { weight, .. } = node.op {
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

    /// The product that a value is, with the bias that is added on the way.
    fn product(&self, value: ValueId) -> Option<Product> {
        match self.graph.nodes[value.0].op {
            Op::MatMul { x, weight } => Some(Product { x, weight, bias: None }),
            Op::AddBias { x, bias } if self.done_by.get(&x.0) == Some(&value.0) => {
                Some(Product { bias: Some(bias), ..self.product(x)? })
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

/// `x W^T + bias`.
#[derive(Clone, Copy)]
struct Product {
    x: ValueId,
    weight: WeightId,
    bias: Option<WeightId>,
}

/// What stands between a product and an attention.
struct Chain {
    base: ValueId,
    norm: Option<Norm>,
    rope: Option<RopeId>,
    nodes: Vec<usize>,
}

/// Follows `Rope(RmsNorm(base))`, each optional, from its end; the norm is one of each of `heads` heads.
fn chain(graph: &Graph, end: ValueId, heads: usize) -> Chain {
    let mut chain = Chain { base: end, norm: None, rope: None, nodes: vec![] };
    if let Op::Rope { x, rope, .. } = graph.nodes[chain.base.0].op {
        chain.nodes.push(chain.base.0);
        chain.rope = Some(rope);
        chain.base = x;
    }
    if let Op::RmsNorm { x, weight, eps, groups } = graph.nodes[chain.base.0].op
        && groups == heads
    {
        chain.nodes.push(chain.base.0);
        chain.norm = Some(Norm { weight, eps });
        chain.base = x;
    }
    chain
}

/// The values that an attention's queries, keys and values start from.
fn bases(graph: &Graph, op: &Op) -> Option<[ValueId; 3]> {
    let Op::Attention { q, k, v, spec } = op else { return None };
    Some([chain(graph, *q, spec.heads).base, chain(graph, *k, spec.kv_heads).base, *v])
}

fn bias_into_product(analysis: &mut Analysis<'_>) {
    for (index, node) in analysis.graph.nodes.iter().enumerate() {
        let Op::AddBias { x, .. } = node.op else { continue };
        if analysis.users[x.0].len() == 1 && matches!(analysis.graph.nodes[x.0].op, Op::MatMul { .. }) {
            analysis.done_by.insert(x.0, index);
        }
    }
}

fn join_qkv(analysis: &mut Analysis<'_>) {
    for node in &analysis.graph.nodes {
        let Some(bases) = bases(analysis.graph, &node.op) else { continue };
        let mut run: Vec<usize> = vec![];
        let mut runs = vec![];
        for base in bases {
            let alone =
                |product: &Product| analysis.weight_uses[product.weight.0] == 1 && analysis.users[base.0].len() == 1;
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
                biases && before.x == product.x && formats[0] == formats[1]
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
            && analysis.formats[gate_product.weight.0] == analysis.formats[up_product.weight.0];
        let single = [gate, up].iter().all(|value| analysis.users[value.0].len() == 1)
            && products.iter().all(|product| analysis.weight_uses[product.weight.0] == 1 && product.bias.is_none());
        if alike && single {
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

fn norm_into_products(analysis: &mut Analysis<'_>) {
    for (index, node) in analysis.graph.nodes.iter().enumerate() {
        let Op::RmsNorm { groups: 1, .. } = node.op else { continue };
        let users = &analysis.users[index];
        let only_products = users.iter().all(|&user| matches!(analysis.graph.nodes[user].op, Op::MatMul { .. }));
        if only_products && !users.is_empty() && !analysis.done_by.contains_key(&index) {
            let user = users[0];
            analysis.done_by.insert(index, user);
        }
    }
}

/// Which matrices a graph needs. The same for both classes, since they share the weights on the device.
pub fn matrices(graph: &Graph, formats: &[FormatId], without: &[&str]) -> (Vec<Matrix>, BTreeMap<usize, usize>) {
    let analysis = Analysis::new(graph, formats, Class::Prefill, without);
    let mut matrices: Vec<Matrix> = vec![];
    let mut of_node = BTreeMap::new();
    let mut add = |parts: Vec<Part>, nodes: &[usize], of_node: &mut BTreeMap<usize, usize>| {
        let known = matrices.iter().position(|matrix| matrix.parts == parts);
        let index = known.unwrap_or_else(|| {
            let first = parts[0].weight.0;
            let rows = parts.iter().map(|part| graph.weights[part.weight.0].rows).sum();
            matrices.push(Matrix { format: formats[first], rows, cols: graph.weights[first].cols, parts });
            matrices.len() - 1
        });
        of_node.extend(nodes.iter().map(|&node| (node, index)));
    };
    let weight_of = |node: usize| match graph.nodes[node].op {
        Op::Embed { table } => Some(table),
        _ => analysis.product(ValueId(node)).map(|product| product.weight),
    };
    let single = |weight| vec![Part { weight, first_row: 0, row_step: 1 }];
    for index in 0..graph.nodes.len() {
        if let Some(run) = analysis.joined.get(&index) {
            let mut first_row = 0;
            let parts = run.iter().filter_map(|&node| weight_of(node)).map(|weight| {
                let part = Part { weight, first_row, row_step: 1 };
                first_row += graph.weights[weight.0].rows;
                part
            });
            add(parts.collect(), run, &mut of_node);
        } else if let Some(&(gate, up)) = analysis.pairs.get(&index) {
            let parts = [gate, up].into_iter().filter_map(weight_of).enumerate();
            let parts = parts.map(|(first_row, weight)| Part { weight, first_row, row_step: 2 });
            add(parts.collect(), &[index], &mut of_node);
        } else if let Some(weight) = weight_of(index) {
            // A product that a gated unit or a bias takes in has its matrix under that node.
            let inner = analysis.done_by.get(&index).is_some_and(|by| {
                analysis.pairs.contains_key(by) || matches!(graph.nodes[*by].op, Op::AddBias { x, .. } if x.0 == index)
            });
            if !inner && !of_node.contains_key(&index) {
                add(single(weight), &[index], &mut of_node);
            }
        }
    }
    (matrices, of_node)
}

/// Lowers a graph for one class of steps; `of_node` from [`matrices`], `without` names fusions to leave out.
pub fn lower(
    graph: &Graph,
    formats: &[FormatId],
    of_node: &BTreeMap<usize, usize>,
    class: Class,
    without: &[&str],
) -> Result<Lowered> {
    let analysis = Analysis::new(graph, formats, class, without);
    let mut emission =
        Emission { graph, class, analysis, of_node, places: BTreeMap::new(), buffers: vec![], stages: vec![] };
    for index in 0..graph.nodes.len() {
        emission.emit(index)?;
    }
    let Emission { places, buffers, mut stages, .. } = emission;
    let last = ValueId(graph.nodes.len().saturating_sub(1));
    let mut logits = *places.get(&last).ok_or_else(|| unlowered(graph, last.0))?;
    let assigned = assign(&stages, &buffers, logits.buffer);
    for stage in &mut stages {
        stage.for_places(&mut |place, _| place.buffer = assigned.of[place.buffer]);
    }
    logits.buffer = assigned.of[logits.buffer];
    Ok(Lowered { stages, buffers: assigned.buffers, logits })
}

fn unlowered(graph: &Graph, index: usize) -> Error {
    let name = graph.nodes.get(index).map_or("the graph's end", |node| node.name.as_str());
    Error::new(ErrorKind::Internal, "no stage makes a value that another needs").at(name)
}

struct Emission<'a> {
    graph: &'a Graph,
    class: Class,
    analysis: Analysis<'a>,
    of_node: &'a BTreeMap<usize, usize>,
    places: BTreeMap<ValueId, Place>,
    buffers: Vec<(usize, Domain)>,
    stages: Vec<Stage>,
}

impl Emission<'_> {
    fn place(&self, value: ValueId) -> Result<Place> {
        self.places.get(&value).copied().ok_or_else(|| unlowered(self.graph, value.0))
    }

    fn domain(&self, value: ValueId) -> Result<Domain> {
        Ok(self.buffers[self.place(value)?.buffer].1)
    }

    /// A place for a value: a buffer of its own, but for what an attention starts from. Queries, keys and values of one
    /// attention share a buffer.
    fn make(&mut self, value: ValueId, domain: Domain) -> Place {
        if let Some(place) = self.places.get(&value) {
            return *place;
        }
        let together = self.graph.nodes.iter().filter_map(|node| bases(self.graph, &node.op));
        let together = together.into_iter().find(|bases| bases.contains(&value)).map_or(vec![value], Vec::from);
        let stride = together.iter().map(|base| self.graph.width(*base)).sum();
        self.buffers.push((stride, domain));
        let mut made = Place { buffer: self.buffers.len() - 1, offset: 0, stride };
        let mut next = made;
        for base in together {
            self.places.insert(base, next);
            if base == value {
                made = next;
            }
            next.offset += self.graph.width(base);
        }
        made
    }

    /// What a product reads: its x, or what the x's norm reads when the product does the norm.
    fn product_input(&self, x: ValueId) -> Result<(Place, Option<Norm>, Domain)> {
        match self.graph.nodes[x.0].op {
            Op::RmsNorm { x: source, weight, eps, .. } if self.analysis.done_by.contains_key(&x.0) => {
                Ok((self.place(source)?, Some(Norm { weight, eps }), self.domain(source)?))
            }
            _ => Ok((self.place(x)?, None, self.domain(x)?)),
        }
    }

    fn matrix(&self, index: usize) -> Result<usize> {
        self.of_node.get(&index).copied().ok_or_else(|| unlowered(self.graph, index))
    }

    fn emit(&mut self, index: usize) -> Result<()> {
        let value = ValueId(index);
        if self.analysis.done_by.contains_key(&index) {
            return Ok(());
        }
        match self.graph.nodes[index].op.clone() {
            Op::Embed { .. } => {
                let stage = Stage::Embed { matrix: self.matrix(index)?, y: self.make(value, Domain::Rows) };
                self.stages.push(stage);
            }
            Op::RmsNorm { x, weight, eps, groups } => {
                let (x, domain) = (self.place(x)?, self.domain(x)?);
                let (y, width) = (self.make(value, domain), self.graph.width(value));
                self.stages.push(Stage::Norm { x, y, norm: Norm { weight, eps }, groups, width, domain });
            }
            Op::MatMul { .. } => self.product(value, index, None)?,
            Op::AddBias { x, bias } => match self.analysis.product(value) {
                Some(_) => self.product(value, index, None)?,
                None => self.elementwise(value, ElementOp::Bias(bias), x, x)?,
            },
            Op::Glu { gate, up, activation } => match self.analysis.pairs.get(&index) {
                Some(_) => {
                    let product = self.analysis.product(gate).ok_or_else(|| unlowered(self.graph, index))?;
                    let (x, norm, domain) = self.product_input(product.x)?;
                    let (matrix, y) = (self.matrix(index)?, self.make(value, domain));
                    let glu = Some(activation);
                    self.stages.push(Stage::MatMul { matrix, x, y, norm, bias: None, residual: false, glu, domain });
                }
                None => self.elementwise(value, ElementOp::Glu(activation), gate, up)?,
            },
            Op::Add { a, b } => match self.analysis.residuals.get(&index).copied() {
                Some((product, other)) => {
                    let place = self.place(other)?;
                    self.places.insert(value, place);
                    self.product(ValueId(product), product, Some(place))?;
                }
                None => self.elementwise(value, ElementOp::Add, a, b)?,
            },
            Op::Scale { x, factor } => self.elementwise(value, ElementOp::Scale(factor), x, x)?,
            Op::SoftCap { x, cap } => self.elementwise(value, ElementOp::SoftCap(cap), x, x)?,
            Op::OutputRows { x } => {
                let from = self.place(x)?;
                if self.class == Class::Decode {
                    self.places.insert(value, from);
                } else {
                    let (y, width) = (self.make(value, Domain::Outputs), self.graph.width(value));
                    self.stages.push(Stage::OutputRows { x: from, y, width });
                }
            }
            Op::Attention { q, k, v, spec } => {
                let (q_chain, k_chain) = (chain(self.graph, q, spec.heads), chain(self.graph, k, spec.kv_heads));
                let (q, k, v) = (self.place(q_chain.base)?, self.place(k_chain.base)?, self.place(v)?);
                if q_chain.rope != k_chain.rope || q.buffer != k.buffer || q.buffer != v.buffer {
                    return Err(unlowered(self.graph, index));
                }
                let y = self.make(value, Domain::Rows);
                let (q_norm, k_norm, rope) = (q_chain.norm, k_chain.norm, q_chain.rope);
                self.stages.push(Stage::RopeStore { spec: spec.clone(), q, k, v, q_norm, k_norm, rope });
                self.stages.push(Stage::Attend { spec, q, y });
            }
            Op::Rope { .. } => return Err(unlowered(self.graph, index)),
        }
        Ok(())
    }

    /// A matrix product, into a place of its own or added to what is there.
    fn product(&mut self, value: ValueId, index: usize, onto: Option<Place>) -> Result<()> {
        let product = self.analysis.product(value).ok_or_else(|| unlowered(self.graph, index))?;
        let (x, norm, domain) = self.product_input(product.x)?;
        let matrix = self.matrix(index)?;
        let y = onto.unwrap_or_else(|| self.make(value, domain));
        let (bias, residual) = (product.bias, onto.is_some());
        self.stages.push(Stage::MatMul { matrix, x, y, norm, bias, residual, glu: None, domain });
        Ok(())
    }

    fn elementwise(&mut self, value: ValueId, op: ElementOp, a: ValueId, b: ValueId) -> Result<()> {
        let (domain, width) = (self.domain(a)?, self.graph.width(value));
        let (a, b) = (self.place(a)?, self.place(b)?);
        let y = self.make(value, domain);
        self.stages.push(Stage::Elementwise { op, a, b, y, width, domain });
        Ok(())
    }
}

impl Stage {
    /// Calls back with every place it touches and how.
    pub fn for_places(&mut self, see: &mut dyn FnMut(&mut Place, Access)) {
        match self {
            Stage::Embed { y, .. } => see(y, Access::Write),
            Stage::Norm { x, y, .. } | Stage::OutputRows { x, y, .. } => {
                see(x, Access::Read);
                see(y, Access::Write);
            }
            Stage::MatMul { x, y, residual, .. } => {
                see(x, Access::Read);
                see(y, if *residual { Access::ReadWrite } else { Access::Write });
            }
            Stage::RopeStore { q, k, v, .. } => {
                see(q, Access::ReadWrite);
                see(k, Access::Read);
                see(v, Access::Read);
            }
            Stage::Attend { q, y, .. } => {
                see(q, Access::Read);
                see(y, Access::Write);
            }
            Stage::Elementwise { a, b, y, .. } => {
                see(a, Access::Read);
                see(b, Access::Read);
                see(y, Access::Write);
            }
        }
    }
}
