//! The computation as plain data: operations over named values. No device, no storage format, no tactic.
//!
//! Every value is a matrix of float32 of shape `(tokens, width)`; `tokens` is known only when a step runs.

mod adapter;
mod attention;
mod backend;
mod build;
mod experts;
mod held;
mod kv;
mod order;
mod recurrent;
mod state;
mod step;

pub use adapter::{AdapterId, AdapterUse, Delta, DeltaValues};
pub use attention::{Attention, Temperature};
pub use backend::{
    BAD_LOGITS, Backend, BackendInfo, Batch, BatchRow, Counters, Decode, Footprint, KernelTime, MAX_BATCH, Ticket,
};
pub use build::Builder;
pub use experts::{GroupScore, Groups, RouterScore, Routing};
pub use held::{Change, HeldChoice, MAX_TOP, Top, TopAsk};
pub use kv::{KvFormat, KvWidths, check_page, check_page_bytes};
pub use order::Orders;
pub use recurrent::{GatedDelta, Gates, ShortConv};
pub use state::{STATE_SLOTS, SlotBook, StateSlots};
pub use step::{PAGE_TOKENS, Row, SamplerSettings, Step};

use crate::error::{Error, ErrorKind, Result};

/// A value: the result of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// A declared weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub usize);

/// A declared rotary position encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RopeId(pub usize);

/// A weight as the model declares it: a matrix `(rows, cols)` with `cols` contracted, a vector `(1, cols)`, or a few
/// numbers for each of many channels `(rows, cols)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// The project's name, for example `blk.0.attn_q.weight`.
    pub name: String,
    /// Outputs; 1 for a vector.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Matrices may be stored in any format, vectors are float32 on every backend.
    pub kind: WeightKind,
    /// How many equal matrices stand one above another in it: one for each expert, or for each head; 1 for all other
    /// matrices. Of vectors, how many rows there are.
    pub stacked: usize,
}

/// See [`Weight::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightKind {
    /// Used by `Embed`, `MatMul` and `ExpertMatMul`.
    Matrix,
    /// Used by norms, biases and other small things that kernels read element by element.
    Vector,
}

/// Which elements of a head a rotation pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// `(i, i + rotary_dims / 2)`, as transformers does it (GGUF's NEOX).
    Halves,
    /// `(2i, 2i + 1)`, for weights whose rows were permuted to that order (GGUF's NORM, in llama files).
    Adjacent,
}

/// A rotary position encoding (RoFormer, arXiv 2104.09864).
///
/// The pair `i` of a head turns by `position * inv_freq[i]`; elements from `2 * inv_freq.len()` on stay as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// One angular frequency a pair, in radians per position.
    pub inv_freq: Vec<f32>,
    /// Which elements are paired.
    pub pairs: RopePairs,
    /// Factor on the cosines and sines, 1 but for encodings that also scale attention (YaRN, arXiv 2309.00071).
    pub scale: f32,
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))` (arXiv 1606.08415).
    GeluTanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Of a gate that is at most `limit`, `x / (1 + exp(-slope * x))`, and the other factor is not `up` but
    /// `1 + clamp(up, -limit, limit)` (gpt-oss).
    Clamped {
        /// Largest gate, and largest size of `up`.
        limit: f32,
        /// Of the sigmoid.
        slope: f32,
    },
    /// `x / 2 * (1 + erf(x / sqrt(2)))` (arXiv 1606.08415).
    Gelu,
    /// `tanh(x)`.
    Tanh,
}

/// What of a row chooses a row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EmbedBy {
    /// Its token.
    Token,
    /// Its position, plus `offset` (RoBERTa's tables begin with rows that stand for no position).
    Position {
        /// Rows of the table before that of position 0.
        offset: usize,
    },
    /// Its segment: which of two texts it belongs to (BERT, arXiv 1810.04805).
    Segment,
}

/// What the last node of a graph is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// A score for every id of the vocabulary: the model continues texts.
    #[default]
    Logits,
    /// The final hidden states: the model makes embeddings.
    Hidden,
    /// A score for every label, of a whole text or pair of texts by its first row: the model judges.
    Scores,
}

/// An operation.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant says what its operands are")]
pub enum Op {
    /// `y[t] = table[by(t)]`; `(tokens, cols)`.
    Embed { table: WeightId, by: EmbedBy },
    /// Each row is cut into `groups` equal parts; `y = x / sqrt(mean(x^2) + eps) * weight`, with the weight `(1, n)` for
    /// every part (Zhang & Sennrich, arXiv 1910.07467). What a part has beyond `n` elements stays as it is; without a
    /// weight the whole part is normalised.
    RmsNorm { x: ValueId, weight: Option<WeightId>, eps: f32, groups: usize },
    /// `y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias` of each row, weight and bias `(1, width)` (arXiv 1607.06450).
    LayerNorm { x: ValueId, weight: WeightId, bias: Option<WeightId>, eps: f32 },
    /// `y[t, r] = sum_c weight[r, c] * x[t, c]`; `(tokens, rows)`.
    MatMul { x: ValueId, weight: WeightId },
    /// Rotates every head of `x` by its row's position; `heads` equal parts. The rotation's first element is element
    /// `first` of a head.
    Rope { x: ValueId, rope: RopeId, heads: usize, first: usize },
    /// See [`Attention`]; `(tokens, heads * value_dim)`.
    Attention { q: ValueId, k: ValueId, v: ValueId, spec: Attention },
    /// See [`ShortConv`]; `x` and the gates `before` and `after` are of one width.
    ShortConv { x: ValueId, gates: Option<Gates>, spec: ShortConv },
    /// See [`GatedDelta`]; `(tokens, value_heads * value_dim)`.
    GatedDelta { qkv: ValueId, beta: ValueId, decay: ValueId, spec: GatedDelta },
    /// `activation(gate) * up`, element by element (Shazeer, arXiv 2002.05202); a gate of one column is for all of them.
    Glu { gate: ValueId, up: ValueId, activation: Activation },
    /// `activation(x)`, element by element.
    Activate { x: ValueId, activation: Activation },
    /// `y[t, c] = x[t, c] + bias[c]`.
    AddBias { x: ValueId, bias: WeightId },
    /// `factor * x`.
    Scale { x: ValueId, factor: f32 },
    /// `cap * tanh(x / cap)`.
    SoftCap { x: ValueId, cap: f32 },
    /// `a + b`, element by element.
    Add { a: ValueId, b: ValueId },
    /// Chooses experts by their scores `(tokens, experts)`, see [`Routing`]; `(tokens, 2 * used)`: first the numbers of
    /// the chosen ones, the best first, then their weights. The bias is added to the scores for the choice alone.
    Route { scores: ValueId, spec: Routing, bias: Option<WeightId> },
    /// Products by the matrices of the chosen experts. Of a weight `(experts * rows, cols)` slot `s` of a token takes the
    /// matrix of `e`, its route's expert number `s`, or, without a route, of `e = s`:
    /// `y[t, s, r] = f * (sum_c weight[e, r, c] * x[t, s, c] + bias[e, r])`, where `f` is 1, or the route's weight of
    /// that expert if `weighted`. `x` is `(tokens, cols)`, the same for all slots, or `(tokens, slots * cols)`; y is
    /// `(tokens, slots * rows)`.
    ExpertMatMul { x: ValueId, route: Option<ValueId>, weight: WeightId, bias: Option<WeightId>, weighted: bool },
    /// `y[t, s, c] = x[t, s, order[e, c]]`, what matrices multiply whose columns stand in that order (a vector of numbers
    /// of columns for each `e`). Slots and `e` are as in `ExpertMatMul`, but without a route there is one order for all
    /// slots, and as many slots as x has room for; y is `(tokens, slots * cols)`.
    Gather { x: ValueId, route: Option<ValueId>, order: WeightId },
    /// The sum of `parts` equal parts of each row; `(tokens, width of x / parts)`.
    SumParts { x: ValueId, parts: usize },
    /// Each of the values is cut into `groups` equal parts; the first parts of all of them stand side by side, then the
    /// second ones, and so on.
    Concat { parts: Vec<ValueId>, groups: usize },
    /// Only the rows whose logits were asked for, in that order; `(outputs, width)`.
    OutputRows { x: ValueId },
}

impl Op {
    /// Whether steps after this one depend on what it did to the pages or the state.
    pub fn remembers(&self) -> bool {
        matches!(self, Op::Attention { .. } | Op::ShortConv { .. } | Op::GatedDelta { .. })
    }

    /// The values it reads.
    pub fn inputs(&self) -> Vec<ValueId> {
        match self {
            Op::Embed { .. } => vec![],
            Op::RmsNorm { x, .. }
            | Op::LayerNorm { x, .. }
            | Op::Activate { x, .. }
            | Op::MatMul { x, .. }
            | Op::Rope { x, .. }
            | Op::AddBias { x, .. }
            | Op::Scale { x, .. }
            | Op::SoftCap { x, .. }
            | Op::SumParts { x, .. }
            | Op::OutputRows { x } => vec![*x],
            Op::Route { scores, .. } => vec![*scores],
            Op::ExpertMatMul { x, route, .. } | Op::Gather { x, route, .. } => {
                std::iter::once(*x).chain(*route).collect()
            }
            Op::Attention { q, k, v, .. } => vec![*q, *k, *v],
            Op::ShortConv { x, gates: Some(gates), .. } => vec![gates.before, *x, gates.after],
            Op::ShortConv { x, gates: None, .. } => vec![*x],
            Op::GatedDelta { qkv, beta, decay, .. } => vec![*qkv, *beta, *decay],
            Op::Concat { parts, .. } => parts.clone(),
            Op::Glu { gate, up, .. } => vec![*gate, *up],
            Op::Add { a, b } => vec![*a, *b],
        }
    }
}

/// One step of the computation; its result is the value of the same index.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The project's name for the result, for example `blk.0.attn_norm`.
    pub name: String,
    /// What is done.
    pub op: Op,
    /// Columns of the result.
    pub width: usize,
}

/// A whole model: nodes in the order of computation. The last node is what `output` says, `(outputs, width)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// In the order of computation; node `i` makes `ValueId(i)`.
    pub nodes: Vec<Node>,
    /// What must be loaded.
    pub weights: Vec<Weight>,
    /// The rotary encodings in use.
    pub ropes: Vec<Rope>,
    /// One entry for each layer that keeps keys and values.
    pub kv_widths: Vec<KvWidths>,
    /// One entry for each operation that keeps state from position to position: its elements of float32.
    pub state_widths: Vec<usize>,
    /// What the last node is.
    pub output: Output,
    /// The final hidden states of the rows that were asked for, `(outputs, dim)`, from which embeddings are made.
    pub hidden: Option<ValueId>,
}

impl Graph {
    /// Columns of a value.
    pub fn width(&self, value: ValueId) -> usize {
        self.nodes.get(value.0).map_or(0, |node| node.width)
    }

    /// Whether rows see later ones, so that a sequence is computed in one step or not at all.
    pub fn bidirectional(&self) -> bool {
        self.nodes.iter().any(|node| matches!(&node.op, Op::Attention { spec, .. } if !spec.causal))
    }

    /// Slots of state that a backend of this graph has.
    pub fn n_states(&self) -> usize {
        if self.state_widths.is_empty() { 0 } else { STATE_SLOTS }
    }

    /// Columns of the last node: those of the logits, of the hidden states, or the number of labels.
    pub fn output_width(&self) -> usize {
        self.nodes.last().map_or(0, |node| node.width)
    }

    /// The final hidden states. Fails with `InvalidArgument` where the model does not say which they are.
    pub fn need_hidden(&self) -> Result<ValueId> {
        self.hidden.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "this model gives no hidden states"))
    }

    /// Fails with `InvalidArgument` unless the graph ends in logits, which choosing ids needs.
    pub fn need_logits(&self) -> Result<()> {
        match self.output {
            Output::Logits => Ok(()),
            _ => Err(Error::new(ErrorKind::InvalidArgument, "this model makes no logits")),
        }
    }

    /// Rows that a step may ask of the tables that are read by `by`, whatever its offset; `None` where there are none.
    fn rows_by(&self, part: impl Fn(EmbedBy) -> Option<usize>) -> Option<usize> {
        let rows = |node: &Node| match node.op {
            Op::Embed { table, by } => {
                let rows = self.weights.get(table.0).map_or(0, |table| table.rows);
                part(by).map(|offset| rows.saturating_sub(offset))
            }
            _ => None,
        };
        self.nodes.iter().filter_map(rows).min()
    }

    /// Ids that have an embedding: those below this.
    pub fn vocab(&self) -> usize {
        self.rows_by(|by| (by == EmbedBy::Token).then_some(0)).unwrap_or(0)
    }

    /// Positions that have an embedding, where positions have embeddings.
    pub fn positions(&self) -> Option<usize> {
        self.rows_by(|by| match by {
            EmbedBy::Position { offset } => Some(offset),
            _ => None,
        })
    }

    /// Whether the segments of rows matter.
    pub fn reads_segments(&self) -> bool {
        self.rows_by(|by| (by == EmbedBy::Segment).then_some(0)).is_some()
    }

    /// Segments that a row may be of; 1 where segments have no embeddings.
    pub fn segments(&self) -> usize {
        self.rows_by(|by| (by == EmbedBy::Segment).then_some(0)).unwrap_or(1)
    }
}
