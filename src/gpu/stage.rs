//! What lowering makes of a graph: stages, each one kernel's work, over places in buffers. Pure data, no device.

use super::buffers::Access;
use crate::graph::{Activation, Attention, EmbedBy, GatedDelta, RopeId, Routing, ShortConv, WeightId};
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

/// An RMS norm, of its own or done by another kernel on the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// The factors, where there are any.
    pub weight: Option<WeightId>,
    /// The first elements of a part, which are normalised.
    pub cols: usize,
    /// Added to the mean square.
    pub eps: f32,
}

/// What an adapter does to a product, before a bias or what is there already is added. The numbers are those of an
/// adapter that is applied as it was trained; the scale of a reply multiplies them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Adapt {
    /// Times this factor.
    Times(f32),
    /// Row `r` times `1 + gain[r]`.
    Gain {
        /// Where the gains start in the buffer of vectors, in elements.
        offset: usize,
    },
}

/// Which of several stacked matrices a product takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// How many products a row goes through.
    pub count: usize,
    /// How many matrices there are.
    pub stacked: usize,
    /// The route that names them, where slot `s` does not take matrix `s`.
    pub route: Option<Place>,
    /// Whether the route's weights are factors of the results.
    pub weighted: bool,
}

/// Products by the matrices of chosen experts, with what is fused into them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "as in [`Stage`]")]
pub struct Experts {
    pub matrix: usize,
    pub slots: Slots,
    pub x: Place,
    /// Elements from one slot's part of x to the next; 0 where all slots have the same.
    pub x_slot: usize,
    pub y: Place,
    pub norm: Option<Norm>,
    /// Of the weight, or of gate and up, whose rows alternate.
    pub biases: [Option<WeightId>; 2],
    /// The result is the sum over the slots.
    pub sum: bool,
    pub residual: bool,
    pub glu: Option<Activation>,
    /// The factor of an adapter's first product.
    pub adapt: Option<Adapt>,
}

/// One kernel's work.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant says what its operands are")]
pub enum Stage {
    /// Rows of the table.
    Embed { matrix: usize, by: EmbedBy, y: Place },
    /// A norm of its own.
    Norm { x: Place, y: Place, norm: Norm, groups: usize, width: usize, domain: Domain },
    /// A layer norm.
    LayerNorm { x: Place, y: Place, weight: WeightId, bias: Option<WeightId>, eps: f32, width: usize, domain: Domain },
    /// A matrix product, with what is fused into it.
    MatMul {
        matrix: usize,
        x: Place,
        y: Place,
        norm: Option<Norm>,
        bias: Option<WeightId>,
        residual: bool,
        glu: Option<Activation>,
        adapt: Option<Adapt>,
        domain: Domain,
        rounded: bool,
    },
    /// Rows of x, normalised where that is said, as bytes, for products whose `rounded` is set.
    Round { x: Place, y: Place, norm: Option<Norm>, cols: usize, domain: Domain },
    /// The choice of experts for each row.
    Route { spec: Routing, bias: Option<WeightId>, x: Place, y: Place },
    /// Products by the matrices of chosen experts.
    Experts(Experts),
    /// Norms and rotation of queries and keys, and the write of keys and values into their pages.
    RopeStore {
        spec: Attention,
        q: Place,
        k: Place,
        v: Place,
        q_norm: Option<Norm>,
        k_norm: Option<Norm>,
        /// With the first element of a head that is rotated.
        rope: Option<(RopeId, usize)>,
    },
    /// Attention over the pages.
    Attend { spec: Attention, q: Place, y: Place },
    /// A short convolution; its gates lie in the buffer of x.
    ShortConv { spec: ShortConv, x: Place, gates: Option<[Place; 2]>, y: Place, width: usize },
    /// The gated delta rule of queries, keys and values, of beta and of decay.
    GatedDelta { spec: GatedDelta, inputs: [Place; 3], y: Place },
    /// Parts with their columns in a group, side by side in each group.
    Concat { parts: Vec<(Place, usize)>, y: Place, groups: usize },
    /// Columns of every slot's part of x in the order that the slot has.
    Gather {
        order: WeightId,
        /// Columns of a slot.
        cols: usize,
        slots: usize,
        x: Place,
        /// Elements from one slot's part of x to the next; 0 where all slots have the same.
        x_slot: usize,
        /// The route that names the slots' orders, where there is not one for all.
        route: Option<Place>,
        y: Place,
        domain: Domain,
    },
    /// What nothing took in; `b` is `a` where there is one operand.
    Elementwise { op: ElementOp, a: Place, b: Place, y: Place, width: usize, domain: Domain },
    /// The wanted rows of x.
    OutputRows { x: Place, y: Place },
}

/// What works element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ElementOp {
    /// `a + b`.
    Add,
    /// `activation(a) * b`.
    Glu(Activation),
    /// The same where the even columns of `a` are a and the odd ones b.
    GluPairs(Activation),
    /// The same where `a` has one column, for all of `b`.
    GluOneGate(Activation),
    /// `a + bias`.
    Bias(WeightId),
    /// `factor * a`.
    Scale(f32),
    /// `cap * tanh(a / cap)`.
    SoftCap(f32),
    /// The sum of so many equal parts of a.
    SumParts(usize),
    /// `activation(a)`.
    Activate(Activation),
}

/// A lowered graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// In order.
    pub stages: Vec<Stage>,
    /// Elements of one row of each activation buffer, and which rows it has.
    pub buffers: Vec<(usize, Domain)>,
    /// Where the last node is.
    pub logits: Place,
    /// Where the final hidden states are after how many stages, if they are anywhere.
    pub hidden: Option<(Place, usize)>,
}

impl Stage {
    /// Calls back with every place it touches and how.
    pub fn for_places(&mut self, see: &mut dyn FnMut(&mut Place, Access)) {
        match self {
            Stage::Embed { y, .. } => see(y, Access::Write),
            Stage::Norm { x, y, .. }
            | Stage::LayerNorm { x, y, .. }
            | Stage::Round { x, y, .. }
            | Stage::OutputRows { x, y, .. } => {
                see(x, Access::Read);
                see(y, Access::Write);
            }
            Stage::MatMul { x, y, residual, .. } => {
                see(x, Access::Read);
                see(y, if *residual { Access::ReadWrite } else { Access::Write });
            }
            Stage::Route { x, y, .. } => {
                see(x, Access::Read);
                see(y, Access::Write);
            }
            Stage::Experts(Experts { slots, x, y, residual, .. }) => {
                see(x, Access::Read);
                if let Some(route) = &mut slots.route {
                    see(route, Access::Read);
                }
                see(y, if *residual { Access::ReadWrite } else { Access::Write });
            }
            Stage::Gather { x, route, y, .. } => {
                see(x, Access::Read);
                route.iter_mut().for_each(|route| see(route, Access::Read));
                see(y, Access::Write);
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
            Stage::ShortConv { x, gates, y, .. } => {
                see(x, Access::Read);
                gates.iter_mut().flatten().for_each(|gate| see(gate, Access::Read));
                see(y, Access::Write);
            }
            Stage::GatedDelta { inputs, y, .. } => {
                inputs.iter_mut().for_each(|input| see(input, Access::Read));
                see(y, Access::Write);
            }
            Stage::Concat { parts, y, .. } => {
                parts.iter_mut().for_each(|(part, _)| see(part, Access::Read));
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
