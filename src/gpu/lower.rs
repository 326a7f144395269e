//! Lowers a graph to stages: walks the nodes in order and makes a stage of each that no other node's kernel does on the
//! way (`fuse.rs`), then lets values share buffers (`buffers.rs`). Pure data, no device.

mod adapted;

use std::collections::BTreeMap;

use super::adapter::Joint;
use super::buffers::assign;
use super::fuse::{Analysis, Chain, ExpertProduct, Product, bases, chain, norm_of};
use super::stage::{Class, Domain, ElementOp, Experts, Lowered, Matrix, Norm, Part, Place, Slots, Stage};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Activation, Gates, Graph, Op, ValueId, Weight, WeightId};
use crate::quant::FormatId;

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
        Op::Embed { table, .. } => Some(table),
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
            let taken = |by: &usize| match graph.nodes[*by].op {
                Op::AddBias { x, .. } => x.0 == index,
                _ => analysis.pairs.contains_key(by),
            };
            let inner = analysis.done_by.get(&index).is_some_and(taken);
            if !inner && !of_node.contains_key(&index) {
                add(single(weight), &[index], &mut of_node);
            }
        }
    }
    (matrices, of_node)
}

/// Lowers a graph for one class of steps; `of_node` from [`matrices`], `without` names fusions to leave out. `joints` are
/// an adapter's, by the matrix that they change; `rounded` has the columns of each matrix whose x is rounded.
pub fn lower(
    graph: &Graph,
    formats: &[FormatId],
    of_node: &BTreeMap<usize, usize>,
    (joints, rounded): (&BTreeMap<usize, Joint>, &[Option<usize>]),
    class: Class,
    without: &[&str],
) -> Result<Lowered> {
    let analysis = Analysis::new(graph, formats, class, without);
    let mut emission = Emission {
        graph,
        class,
        analysis,
        of_node,
        joints,
        rounded,
        places: BTreeMap::new(),
        buffers: vec![],
        stages: vec![],
    };
    let mut hidden = None;
    for index in 0..graph.nodes.len() {
        emission.emit(index)?;
        if graph.hidden == Some(ValueId(index)) {
            hidden = emission.places.get(&ValueId(index)).map(|place| (*place, emission.stages.len()));
        }
    }
    let Emission { places, buffers, mut stages, .. } = emission;
    let last = ValueId(graph.nodes.len().saturating_sub(1));
    let mut logits = *places.get(&last).ok_or_else(|| unlowered(graph, last.0))?;
    let assigned = assign(&stages, &buffers, logits.buffer);
    for stage in &mut stages {
        stage.for_places(&mut |place, _| place.buffer = assigned.of[place.buffer]);
    }
    logits.buffer = assigned.of[logits.buffer];
    let hidden = hidden.map(|(place, stages)| (Place { buffer: assigned.of[place.buffer], ..place }, stages));
    Ok(Lowered { stages, buffers: assigned.buffers, logits, hidden })
}

fn unlowered(graph: &Graph, index: usize) -> Error {
    let name = graph.nodes.get(index).map_or("the graph's end", |node| node.name.as_str());
    Error::new(ErrorKind::Internal, "no stage makes a value that another needs").at(name)
}

/// A product to be made.
#[derive(Clone, Copy)]
struct Work {
    matrix: usize,
    x: Place,
    y: Place,
    norm: Option<Norm>,
    bias: Option<WeightId>,
    residual: bool,
    domain: Domain,
}

struct Emission<'a> {
    graph: &'a Graph,
    class: Class,
    analysis: Analysis<'a>,
    of_node: &'a BTreeMap<usize, usize>,
    joints: &'a BTreeMap<usize, Joint>,
    rounded: &'a [Option<usize>],
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

    /// A place for a value: a buffer of its own, but for what one kernel reads in one buffer: queries, keys and values of
    /// an attention, what a convolution is of and its gates.
    fn make(&mut self, value: ValueId, domain: Domain) -> Place {
        if let Some(place) = self.places.get(&value) {
            return *place;
        }
        let together = self.graph.nodes.iter().filter_map(|node| bases(self.graph, &node.op));
        let together = together.into_iter().find(|bases| bases.contains(&value)).unwrap_or_else(|| vec![value]);
        // Whole groups of eight, so that kernels read rows by vectors; nobody looks at what lies behind the last column.
        let stride = together.iter().map(|base| self.graph.width(*base)).sum::<usize>().next_multiple_of(8);
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
            Op::RmsNorm { x: source, .. } if self.analysis.done_by.contains_key(&x.0) => {
                Ok((self.place(source)?, norm_of(self.graph, x.0), self.domain(source)?))
            }
            _ => Ok((self.place(x)?, None, self.domain(x)?)),
        }
    }

    fn matrix(&self, index: usize) -> Result<usize> {
        // A sum that takes its product in does so in one class only, and matrices belong to both.
        let node = match self.graph.nodes[index].op {
            Op::SumParts { x, .. } => x.0,
            _ => index,
        };
        self.of_node.get(&node).copied().ok_or_else(|| unlowered(self.graph, index))
    }

    fn emit(&mut self, index: usize) -> Result<()> {
        let value = ValueId(index);
        if self.analysis.done_by.contains_key(&index) {
            return Ok(());
        }
        match self.graph.nodes[index].op.clone() {
            Op::Embed { by, .. } => {
                let stage = Stage::Embed { matrix: self.matrix(index)?, by, y: self.make(value, Domain::Rows) };
                self.stages.push(stage);
            }
            Op::RmsNorm { x, groups, .. } => {
                let (x, domain) = (self.place(x)?, self.domain(x)?);
                let (y, width) = (self.make(value, domain), self.graph.width(value));
                let norm = norm_of(self.graph, index).ok_or_else(|| unlowered(self.graph, index))?;
                self.stages.push(Stage::Norm { x, y, norm, groups, width, domain });
            }
            Op::LayerNorm { x, weight, bias, eps } => {
                let (x, domain) = (self.place(x)?, self.domain(x)?);
                let (y, width) = (self.make(value, domain), self.graph.width(value));
                self.stages.push(Stage::LayerNorm { x, y, weight, bias, eps, width, domain });
            }
            Op::MatMul { .. } | Op::ExpertMatMul { .. } => self.product(value, index, None)?,
            Op::AddBias { x, bias } => match self.analysis.product(value) {
                Some(_) => self.product(value, index, None)?,
                None => self.elementwise(value, ElementOp::Bias(bias), x, x)?,
            },
            Op::Glu { gate, up, activation } => match self.analysis.pairs.get(&index) {
                Some(_) => {
                    let products = [gate, up].map(|value| self.analysis.product(value));
                    let [Some(gate), Some(up)] = products else { return Err(unlowered(self.graph, index)) };
                    self.push_product(value, (gate, up.bias), self.matrix(index)?, None, Some(activation))?;
                }
                None => {
                    let one_gate = self.graph.width(gate) != self.graph.width(up);
                    let op = if one_gate { ElementOp::GluOneGate } else { ElementOp::Glu };
                    self.elementwise(value, op(activation), gate, up)?;
                }
            },
            Op::Add { a, b } => match self.analysis.residuals.get(&index).copied() {
                Some((product, other)) => {
                    let place = self.place(other)?;
                    self.places.insert(value, place);
                    self.product(ValueId(product), product, Some(place))?;
                }
                None => self.elementwise(value, ElementOp::Add, a, b)?,
            },
            Op::Activate { x, activation } => self.elementwise(value, ElementOp::Activate(activation), x, x)?,
            Op::Scale { x, factor } => self.elementwise(value, ElementOp::Scale(factor), x, x)?,
            Op::SoftCap { x, cap } => self.elementwise(value, ElementOp::SoftCap(cap), x, x)?,
            Op::Route { scores, spec, bias } => {
                let (x, domain) = (self.place(scores)?, self.domain(scores)?);
                if domain != Domain::Rows {
                    return Err(unlowered(self.graph, index));
                }
                let y = self.make(value, domain);
                self.stages.push(Stage::Route { spec, bias, x, y });
            }
            Op::Gather { x: of, route, order } => {
                let (x, domain) = (self.place(of)?, self.domain(of)?);
                let route = route.map(|route| self.place(route)).transpose()?;
                let (cols, width) = (self.graph.weights[order.0].cols, self.graph.width(value));
                if route.is_some() && domain != Domain::Rows {
                    return Err(unlowered(self.graph, index));
                }
                let x_slot = if self.graph.width(of) == cols { 0 } else { cols };
                let y = self.make(value, domain);
                self.stages.push(Stage::Gather { order, cols, slots: width / cols, x, x_slot, route, y, domain });
            }
            Op::SumParts { x, parts } => match self.analysis.product(value) {
                Some(_) => self.product(value, index, None)?,
                None => self.elementwise(value, ElementOp::SumParts(parts), x, x)?,
            },
            Op::OutputRows { x } => {
                let from = self.place(x)?;
                if self.class == Class::Decode {
                    self.places.insert(value, from);
                } else {
                    let y = self.make(value, Domain::Outputs);
                    self.stages.push(Stage::OutputRows { x: from, y });
                }
            }
            Op::Attention { q, k, v, spec } => {
                let (q_chain, k_chain) = (chain(self.graph, q, spec.heads), chain(self.graph, k, spec.kv_heads));
                let (q, k) = (self.place(q_chain.base)?, self.place(k_chain.base)?);
                let v = if spec.latent { k } else { self.place(v)? };
                let turned = |chain: &Chain| (chain.rope, chain.first);
                if turned(&q_chain) != turned(&k_chain) || q.buffer != k.buffer || q.buffer != v.buffer {
                    return Err(unlowered(self.graph, index));
                }
                let y = self.make(value, Domain::Rows);
                let (q_norm, k_norm) = (q_chain.norm, k_chain.norm);
                let rope = q_chain.rope.map(|rope| (rope, q_chain.first));
                self.stages.push(Stage::RopeStore { spec: spec.clone(), q, k, v, q_norm, k_norm, rope });
                self.stages.push(Stage::Attend { spec, q, y });
            }
            Op::ShortConv { x, gates, spec } => {
                let x = self.place(x)?;
                let gates = match gates {
                    Some(Gates { before, after }) => Some([self.place(before)?, self.place(after)?]),
                    None => None,
                };
                if gates.is_some_and(|gates| gates.iter().any(|gate| gate.buffer != x.buffer)) {
                    return Err(unlowered(self.graph, index));
                }
                let (y, width) = (self.make(value, Domain::Rows), self.graph.width(value));
                self.stages.push(Stage::ShortConv { spec, x, gates, y, width });
            }
            Op::GatedDelta { qkv, beta, decay, spec } => {
                let inputs = [self.place(qkv)?, self.place(beta)?, self.place(decay)?];
                let y = self.make(value, Domain::Rows);
                self.stages.push(Stage::GatedDelta { spec, inputs, y });
            }
            Op::Concat { parts, groups: 1 } => {
                // Parts of one group were placed one after another: their place is all there is to do.
                let first = self.place(*parts.first().ok_or_else(|| unlowered(self.graph, index))?)?;
                let mut next = first;
                for part in parts {
                    if self.place(part)? != next {
                        return Err(unlowered(self.graph, index));
                    }
                    next.offset += self.graph.width(part);
                }
                self.places.insert(value, first);
            }
            Op::Concat { parts, groups } => {
                let place = |part: &ValueId| Ok((self.place(*part)?, self.graph.width(*part) / groups));
                let parts = parts.iter().map(place).collect::<Result<Vec<_>>>()?;
                let y = self.make(value, Domain::Rows);
                self.stages.push(Stage::Concat { parts, y, groups });
            }
            Op::Rope { .. } => return Err(unlowered(self.graph, index)),
        }
        Ok(())
    }

    /// A matrix product, into a place of its own or added to what is there.
    fn product(&mut self, value: ValueId, index: usize, onto: Option<Place>) -> Result<()> {
        let product = self.analysis.product(value).ok_or_else(|| unlowered(self.graph, index))?;
        self.push_product(value, (product, None), self.matrix(index)?, onto, None)
    }

    /// The stage of a product (or of a gate, with the bias of its up) that makes `value`.
    fn push_product(
        &mut self,
        value: ValueId,
        (product, up_bias): (Product, Option<WeightId>),
        matrix: usize,
        onto: Option<Place>,
        glu: Option<Activation>,
    ) -> Result<()> {
        let (x, norm, domain) = self.product_input(product.x)?;
        let y = onto.unwrap_or_else(|| self.make(value, domain));
        let (bias, residual) = (product.bias, onto.is_some());
        let Some(ExpertProduct { route, weighted, sum }) = product.experts else {
            let work = Work { matrix, x, y, norm, bias, residual, domain };
            match glu {
                Some(activation) => self.gated(work, activation, self.graph.width(value)),
                None => self.multiply(work, None),
            }
            return Ok(());
        };
        if domain != Domain::Rows {
            return Err(unlowered(self.graph, value.0));
        }
        let Weight { cols, stacked, .. } = self.graph.weights[product.weight.0];
        let slots = Slots {
            count: route.map_or(stacked, |route| self.graph.width(route) / 2),
            stacked,
            route: route.map(|route| self.place(route)).transpose()?,
            weighted,
        };
        let x_slot = if self.graph.width(product.x) == cols { 0 } else { cols };
        let biases = [bias, up_bias];
        let adapt = None;
        let product = Experts { matrix, slots, x, x_slot, y, norm, biases, sum, residual, glu, adapt };
        self.multiply_experts(product, self.graph.width(value));
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
