//! The interpreter: runs the nodes of a graph in their order and lets go of each value after its last use.

use headwater_cpu_kernels::elementwise;

use super::adapter::Adapter;
use super::attention::{Inputs, attention};
use super::delta::gated_delta;
use super::experts::{self, Experts};
use super::kv::Kv;
use super::ops;
use super::product::matmul;
use super::state::{ConvInputs, States, short_conv};
use super::weights::Weights;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Op, Output, Step, ValueId, Weight};

/// What is known of a graph before it runs.
pub(super) struct Schedule {
    /// For each node the values that nobody reads after it.
    done: Vec<Vec<ValueId>>,
    /// Nodes up to the last that fills pages or changes state; the rest is of no use without outputs.
    filling: usize,
}

impl Schedule {
    pub(super) fn new(graph: &Graph) -> Self {
        let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
        let mut filling = 0;
        for (index, node) in graph.nodes.iter().enumerate() {
            for input in node.op.inputs() {
                last_use[input.0] = index;
            }
            if node.op.remembers() {
                filling = index + 1;
            }
        }
        let mut done = vec![Vec::new(); graph.nodes.len()];
        for (value, index) in last_use.into_iter().enumerate().take(graph.nodes.len().saturating_sub(1)) {
            done[index].push(ValueId(value));
        }
        Self { done, filling }
    }

    /// For each node the values that nobody reads after it.
    pub(super) fn done(&self) -> &[Vec<ValueId>] {
        &self.done
    }
}

/// What a step finds of the steps before it, and adds to.
pub(super) struct Memory {
    pub kv: Kv,
    pub states: States,
}

/// Runs a step that was checked, with so much of an adapter, as far as the value `wanted`, and returns that for the outputs,
/// `(outputs, width)`; fails with `BadLogits` where one of its elements is no number.
pub(super) fn run(
    graph: &Graph,
    schedule: &Schedule,
    weights: &Weights,
    adapter: Option<(&Adapter, f32)>,
    memory: &mut Memory,
    (step, wanted): (&Step<'_>, ValueId),
    observe: &mut dyn FnMut(&str, usize, &[f32]),
) -> Result<Vec<f32>> {
    weights.check_loaded()?;
    let angles: Vec<_> = graph.ropes.iter().map(|rope| ops::angles(rope, step.rows)).collect();
    let end = if step.outputs.is_empty() { schedule.filling } else { wanted.0 + 1 };
    let mut values: Vec<Vec<f32>> = vec![Vec::new(); graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().take(end) {
        let value = |id: &ValueId| values[id.0].as_slice();
        let made = match &node.op {
            Op::Embed { table, by } => ops::embed(weights, *table, *by, step.rows, node.width),
            Op::RmsNorm { x, weight, eps, groups } => {
                let factors = weight.map(|weight| weights.vector(weight));
                ops::rms_norm(value(x), factors.as_deref(), *eps, node.width / groups)
            }
            Op::LayerNorm { x, weight, bias, eps } => {
                let factors = weights.vector(*weight);
                let addends = bias.map_or_else(|| vec![0.0; node.width], |bias| weights.vector(bias));
                ops::layer_norm(value(x), &factors, &addends, *eps)
            }
            Op::MatMul { x, weight } => {
                let mut y = matmul(weights, *weight, value(x), graph.width(*x));
                if let Some((adapter, scale)) = adapter {
                    adapter.apply(*weight, value(x), graph.width(*x), scale, &mut y);
                }
                y
            }
            Op::Rope { x, rope, heads, first } => {
                let pairs = graph.ropes[rope.0].pairs;
                ops::rope(value(x), pairs, &angles[rope.0], (step.rows.len(), *heads), *first)
            }
            Op::Attention { q, k, v, spec } => {
                let sinks = spec.sinks.map(|sinks| weights.vector(sinks));
                let inputs = Inputs { q: value(q), k: value(k), v: value(v), sinks: sinks.as_deref() };
                attention(&mut memory.kv, spec, step, &inputs)
            }
            Op::ShortConv { x, gates, spec } => {
                let gates = gates.as_ref().map(|gates| (value(&gates.before), value(&gates.after)));
                let inputs = ConvInputs { x: value(x), gates, width: node.width };
                short_conv(&mut memory.states, weights, spec, step, &inputs)
            }
            Op::GatedDelta { qkv, beta, decay, spec } => {
                gated_delta(&mut memory.states, weights, spec, step, [qkv, beta, decay].map(value))
            }
            Op::Concat { parts, groups } => {
                let parts: Vec<&[f32]> = parts.iter().map(value).collect();
                ops::concat(&parts, step.rows.len() * groups)
            }
            Op::Glu { gate, up, activation } => ops::glu(value(gate), value(up), *activation),
            Op::Activate { x, activation } => ops::activate_all(*activation, value(x)),
            Op::AddBias { x, bias } => ops::add_bias(value(x), &weights.vector(*bias)),
            Op::Scale { x, factor } => value(x).iter().map(|x| factor * x).collect(),
            Op::SoftCap { x, cap } => value(x).iter().map(|x| cap * (x / cap).tanh()).collect(),
            Op::Add { a, b } => elementwise::add(value(a), value(b)),
            Op::Route { scores, spec, bias } => {
                let bias = bias.map(|bias| weights.vector(bias));
                experts::route(value(scores), bias.as_deref(), spec)
            }
            Op::ExpertMatMul { x, route, weight, bias, weighted } => {
                let Weight { cols, stacked, .. } = graph.weights[weight.0];
                let bias = bias.map(|bias| weights.vector(bias));
                let experts = Experts { weight: *weight, stacked, cols, bias: bias.as_deref(), weighted: *weighted };
                let route = route.map(|route| (values[route.0].as_slice(), graph.width(route)));
                let x = (value(x), graph.width(*x));
                let mut y = experts::expert_matmul(weights, &experts, x, route);
                if let Some((adapter, scale)) = adapter {
                    adapter.apply_experts(&experts, x, route, scale, &mut y);
                }
                y
            }
            Op::Gather { x, route, order } => {
                let cols = graph.weights[order.0].cols;
                let route = route.map(|route| (values[route.0].as_slice(), graph.width(route)));
                experts::gather((value(x), graph.width(*x)), route, &weights.vector(*order), (cols, node.width))
            }
            Op::SumParts { x, parts } => experts::sum_parts(value(x), graph.width(*x), *parts),
            Op::OutputRows { x } => ops::output_rows(value(x), step.outputs, node.width),
        };
        observe(&node.name, node.width, &made);
        values[index] = made;
        for value in &schedule.done[index] {
            values[value.0] = Vec::new();
        }
    }
    if step.outputs.is_empty() {
        return Ok(Vec::new());
    }
    let made = values.swap_remove(wanted.0);
    match made.iter().position(|number| !number.is_finite()) {
        Some(at) => {
            let what = if graph.output == Output::Logits && wanted.0 + 1 == graph.nodes.len() {
                format!("the logit of id {}", at % graph.output_width())
            } else {
                graph.nodes[wanted.0].name.clone()
            };
            Err(Error::new(ErrorKind::BadLogits, format!("{what} is {}", made[at])))
        }
        None => Ok(made),
    }
}
