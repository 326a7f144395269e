//! GPU operations as data: for each kernel its shader, its bindings and its variants, and for each stage the launch that
//! does it. Kernels know shapes; they know neither models nor how weights are stored.

mod attention;
mod concat;
mod elementwise;
mod embed;
mod experts;
mod gated_delta;
mod gather;
mod held;
mod matmul;
mod norm;
mod rounded;
mod sample;
mod short_conv;

pub(crate) use attention::MAX_HEAD_DIM;
pub(crate) use experts::MAX_EXPERTS;
pub(crate) use gated_delta::MAX_KEY_DIM;
pub(crate) use held::{ASKED_WORDS, CHANGES, FOUND_WORDS, TOP, TOP_WORDS};
pub(crate) use matmul::adapter_factor;
pub(crate) use rounded::words as rounded_words;
pub use sample::{REPLY_WORDS, reply_words, sample};

use serde::{Deserialize, Serialize};

use crate::gpu::stage::{Class, Domain, Norm, Stage};
use crate::graph::{Graph, Rope, RopeId, WeightId};

/// Who makes an output, or a few of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Teams {
    /// The invocations of a workgroup together: what they read lies side by side, and they wait for each other.
    #[default]
    Workgroup,
    /// Each invocation by itself wherever it can. Where work must be shared, workgroups are small.
    Invocation,
}

impl Teams {
    /// Invocations that work on `items` independent items together: enough, no more than useful.
    fn lanes(self, items: usize, most: u32) -> f64 {
        match self {
            Teams::Workgroup => f64::from(word(items.next_power_of_two()).clamp(32, most)),
            Teams::Invocation => f64::from(SMALL),
        }
    }

    /// Teams of one workgroup of a kernel that has both kinds, and the constant that tells its size.
    fn of(self, items: usize, most: u32) -> (usize, (&'static str, f64)) {
        match self {
            Teams::Workgroup => (1, ("WG", self.lanes(items, most))),
            Teams::Invocation => (SIZE, ("SIZE", f64::from(word(SIZE)))),
        }
    }
}

/// Invocations of a workgroup that has to share work where that is dear: one subgroup of the devices that are so.
const SMALL: u32 = 4;

/// Invocations of a workgroup that share nothing.
const SIZE: usize = 16;

/// How a kernel uses a binding of group 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// `var<uniform>`.
    Uniform,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    Write,
}

/// A shader and what it needs joined to it.
#[derive(Debug)]
pub struct Kernel {
    /// The name of the file in `shaders/`; behind it `_alone` where every invocation is a team of its own.
    pub name: &'static str,
    /// Its text.
    pub source: &'static str,
    /// Group 1 in order.
    pub bindings: &'static [Use],
    /// Whether group 0 is a weight.
    pub weights: bool,
    /// Who sums, where it sums over a team.
    pub reduces: Option<Teams>,
    /// Whether it reads or writes pages of keys and values.
    pub kv: bool,
    /// Whether it is attention.
    pub sees: bool,
    /// Whether it goes through the rows of a sequence and its state.
    pub recurrent: bool,
    /// Whether it makes gated units or activations.
    pub glu: bool,
    /// Whether it is a product of many rows by one matrix.
    pub product: bool,
    /// Whether it multiplies in tiles.
    pub tiles: bool,
    /// Whether it puts numbers in their order.
    pub order: bool,
    /// Whether it multiplies rounded activations.
    pub rounded: bool,
}

impl Kernel {
    /// One that needs nothing.
    const PLAIN: Kernel = Kernel {
        name: "",
        source: "",
        bindings: &[],
        weights: false,
        reduces: None,
        kv: false,
        sees: false,
        recurrent: false,
        glu: false,
        product: false,
        tiles: false,
        order: false,
        rounded: false,
    };
}

/// Every kernel of a step.
pub const KERNELS: &[&Kernel] = &[
    &embed::EMBED,
    &norm::RMS_NORM,
    &norm::LAYER_NORM,
    &matmul::MATVEC,
    &matmul::MATVEC_ALONE,
    &matmul::MATVEC_ROWS,
    &matmul::MATVEC_ROWS_ALONE,
    &matmul::MATMUL,
    &matmul::MATMUL_BLOCKS,
    &rounded::ROUND,
    &rounded::MATVEC_ROUNDED,
    &rounded::MATVEC_ROUNDED_ALONE,
    &experts::ROUTE,
    &experts::EXPERT_MATVEC,
    &experts::EXPERT_MATVEC_ALONE,
    &experts::EXPERT_MATMUL,
    &attention::ROPE_STORE,
    &attention::ATTENTION,
    &attention::ATTENTION_SHARED,
    &short_conv::SHORT_CONV,
    &gated_delta::GATED_DELTA,
    &concat::CONCAT,
    &gather::GATHER,
    &elementwise::ELEMENTWISE,
    &elementwise::OUTPUT_ROWS,
    &sample::SAMPLE,
    &CHANGES,
    &TOP,
];

/// A buffer that a launch binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// The step's rows (`shaders/README.md`, "State").
    State,
    /// All vectors of the model.
    Norms,
    /// All rotary tables.
    Ropes,
    /// Pages of one layer.
    Kv(usize),
    /// Slots of one operation with state.
    Slots(usize),
    /// An activation buffer of the program.
    Activation(usize),
    /// How ids are chosen.
    Reply,
    /// How often each id was seen.
    History,
    /// The state of the decode program.
    DecodeState,
    /// Ids for reading back.
    Ids,
}

/// How the y extent of a grid follows from the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Always this many.
    Fixed(u32),
    /// One for so many rows of the step.
    Rows(u32),
    /// So many for each row of the step.
    RowParts(u32),
    /// One for so many rows whose logits are wanted.
    Outputs(u32),
    /// One for each sequence.
    Sequences,
}

/// One dispatch, before it meets a device.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What runs.
    pub kernel: &'static Kernel,
    /// The matrix of group 0 and which of its shards.
    pub weights: Option<(usize, usize)>,
    /// Values of `override` numbers.
    pub constants: Vec<(&'static str, f64)>,
    /// The kernel's `Params`.
    pub params: Vec<u32>,
    /// Group 1 from binding 1 on.
    pub buffers: Vec<Buffer>,
    /// Workgroups in x.
    pub grid_x: u32,
    /// Workgroups in y.
    pub grid_y: Extent,
}

/// Rows of one shard of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardRows {
    /// First row.
    pub first: usize,
    /// How many.
    pub rows: usize,
}

/// What launches need to know beyond the stage.
pub struct Context<'a> {
    /// The model.
    pub graph: &'a Graph,
    /// The kind of step.
    pub class: Class,
    /// Most rows of a step of this program.
    pub max_rows: usize,
    /// Who makes an output.
    pub teams: Teams,
    /// Rows that a decoding program takes at most: one, or as many as a batch has.
    pub together: usize,
    /// For each matrix its columns and the rows of its shards.
    pub matrices: &'a [(usize, Vec<ShardRows>)],
    /// Where a vector starts in the buffer of vectors, in elements.
    pub norm_offset: &'a dyn Fn(WeightId) -> usize,
    /// Where a rotary table starts in the buffer of tables, in pairs.
    pub rope_offset: &'a dyn Fn(RopeId) -> usize,
}

impl Context<'_> {
    fn rope(&self, id: RopeId) -> Option<&Rope> {
        self.graph.ropes.get(id.0)
    }

    /// Where a norm's factors start among the vectors, in elements; `NO_WEIGHT` where it has none.
    fn norm_weight(&self, norm: Norm) -> u32 {
        norm.weight.map_or(NO_WEIGHT, |weight| word((self.norm_offset)(weight)))
    }

    fn max_rows(&self) -> u32 {
        word(self.max_rows)
    }
}

/// In place of the offset of a vector that is not there; a constant of the shaders too.
const NO_WEIGHT: u32 = u32::MAX;

/// Sizes inside the limits of a device fit 32 bits; what does not is caught there, by the size of its buffer.
pub(crate) fn word(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// Columns that the weights of a matrix have on a device: shaders read eight at once.
pub(crate) fn padded(cols: usize) -> usize {
    cols.next_multiple_of(8)
}

/// A `bool` as an `override` number.
fn switch(on: bool) -> f64 {
    f64::from(u8::from(on))
}

/// The y extent for a domain, `rows` rows a workgroup.
fn extent(domain: Domain, rows: u32) -> Extent {
    match domain {
        Domain::Rows => Extent::Rows(rows),
        Domain::Outputs => Extent::Outputs(rows),
    }
}

/// Workgroups as `(x, y)` where one dimension may not be enough for the limit of 65,535.
pub(crate) fn fold(workgroups: usize) -> (u32, u32) {
    const MOST: usize = 65_535;
    let y = workgroups.div_ceil(MOST).max(1);
    (word(workgroups.div_ceil(y)), word(y))
}

/// The launches of a stage: one, or one a shard of its matrix.
pub fn launches(stage: &Stage, context: &Context<'_>) -> Vec<Launch> {
    match stage {
        Stage::Embed { matrix, by, y } => embed::embed(*matrix, *by, *y, context),
        Stage::Norm { x, y, norm, groups, width, domain } => {
            vec![norm::rms_norm(*x, *y, *norm, *groups, *width, *domain, context)]
        }
        Stage::LayerNorm { x, y, weight, bias, eps, width, domain } => {
            vec![norm::layer_norm([*x, *y], (*weight, *bias, *eps), *width, *domain, context)]
        }
        Stage::Round { x, y, norm, cols, domain } => vec![rounded::round([*x, *y], *norm, *cols, *domain, context)],
        Stage::MatMul { rounded: true, .. } => rounded::matvec(stage, context),
        Stage::MatMul { .. } => match context.class {
            Class::Decode => matmul::matvec(stage, context),
            Class::Prefill => matmul::matmul(stage, context),
        },
        Stage::Route { spec, bias, x, y } => vec![experts::route(spec, *bias, *x, *y, context)],
        Stage::Experts { .. } => experts::experts(stage, context),
        Stage::RopeStore { spec, q, k, v, q_norm, k_norm, rope } => {
            vec![attention::rope_store(spec, [*q, *k, *v], [*q_norm, *k_norm], *rope, context)]
        }
        Stage::Attend { spec, q, y } => vec![attention::attention(spec, *q, *y, context)],
        Stage::ShortConv { spec, x, gates, y, width } => {
            vec![short_conv::short_conv(spec, *x, *gates, *y, *width, context)]
        }
        Stage::GatedDelta { spec, inputs, y } => vec![gated_delta::gated_delta(spec, *inputs, *y, context)],
        Stage::Concat { parts, y, groups } => concat::concat(parts, *y, *groups, context),
        Stage::Gather { .. } => gather::gather(stage, context).into_iter().collect(),
        Stage::Elementwise { op, a, b, y, width, domain } => {
            vec![elementwise::elementwise(*op, [*a, *b, *y], *width, *domain, context)]
        }
        Stage::OutputRows { x, y } => vec![elementwise::output_rows(*x, *y, context)],
    }
}
