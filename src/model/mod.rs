//! Models: which tensors an architecture has and what it computes, as a [`Graph`]; nothing runs here.
//!
//! To add an architecture: a file named after its `model_type` with `hyper` and `graph`, a line in `ARCHITECTURES`,
//! lines in `names.rs` for tensors that no other model has, a folder of goldens.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

mod adapter;
mod decoder;
mod family;
mod gemma2;
mod gemma3;
mod hyper;
mod lfm2;
mod llama;
mod longrope;
mod mistral;
mod names;
mod olmo2;
mod options;
mod phi3;
mod qwen2;
mod qwen3;
mod rotary;
mod smollm3;
mod weights;

pub use adapter::{AdapterKind, AdapterPlan, MAX_RANK, plan_adapter, read_adapter};
pub use hyper::{Hyper, Layer};
pub use longrope::LongRope;
pub use options::{DEFAULT_CONTEXT, PlanOptions};
pub use weights::{WeightSink, read_weight, read_weights};

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Checkpoint, Dialect, TensorInfo};
use crate::graph::{Builder, Graph, Weight, WeightKind};
use crate::quant::FormatId;
use names::Name;
use weights::{Location, Slice};

/// One row of the table: what an architecture is called and its two functions.
struct Architecture {
    /// `general.architecture` of GGUF files, where there are such.
    gguf: Option<&'static str>,
    /// `model_type` of `config.json`, where there are such.
    hub: Option<&'static str>,
    /// Names of tensors that go before the common ones.
    names: &'static [Name],
    /// Tensors that hold several weights of a layer.
    fused: &'static [Fused],
    /// Reads the hyperparameters.
    hyper: fn(&Checkpoint) -> Result<Hyper>,
    /// Declares the weights and writes the computation down.
    graph: fn(&Hyper, &mut Builder),
}

/// A tensor of a layer whose rows are those of several weights, one after another.
struct Fused {
    /// After `blk.{i}.`, as the project calls tensors.
    whole: &'static str,
    /// The weights, likewise.
    parts: &'static [&'static str],
}

/// Every architecture that is computed.
const ARCHITECTURES: &[Architecture] = &[
    llama::LLAMA,
    lfm2::LFM2,
    gemma2::GEMMA2,
    gemma3::GEMMA3,
    mistral::MISTRAL,
    olmo2::OLMO2,
    phi3::PHI3,
    qwen2::QWEN2,
    qwen3::QWEN3,
    smollm3::SMOLLM3,
];

impl Architecture {
    /// What files of `dialect` call it.
    fn name(&self, dialect: Dialect) -> Option<&'static str> {
        match dialect {
            Dialect::Gguf => self.gguf,
            Dialect::Hub => self.hub,
        }
    }

    /// The row of that name, in whichever dialect.
    fn find(name: &str) -> Result<&'static Self> {
        let found = ARCHITECTURES.iter().find(|known| known.gguf == Some(name) || known.hub == Some(name));
        found.ok_or_else(|| Error::new(ErrorKind::Internal, format!("no architecture is called {name}")))
    }
}

/// A checkpoint understood: what it computes, and where each weight lies.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The architecture's name.
    pub architecture: &'static str,
    /// Its hyperparameters.
    pub hyper: Hyper,
    /// Tokens that prompt and reply may have together.
    pub context: usize,
    /// Its computation.
    pub graph: Graph,
    /// How each weight arrives at a [`WeightSink`], by `WeightId`: matrices as stored, vectors always as f32.
    pub formats: Vec<FormatId>,
    /// Where each weight lies in the files, by `WeightId`.
    locations: Vec<Location>,
}

impl Plan {
    /// Names of the tensors that are read, as the files have them; some of them several times.
    fn tensors(&self) -> impl Iterator<Item = &str> {
        self.locations.iter().map(Location::tensor)
    }

    /// Bytes that [`read_weights`] reads.
    pub fn weight_bytes(&self) -> u64 {
        self.locations.iter().map(Location::size_bytes).fold(0, u64::saturating_add)
    }
}

/// Reads the hyperparameters, builds the graph and checks every declared tensor. Reads no weight byte.
///
/// Fails with `UnsupportedFormat` for an architecture or setting that is not computed here (naming the nearest one that
/// is), with `MalformedModel` (naming the key or the tensor) where the numbers or the tensors do not fit the architecture.
pub fn plan(checkpoint: &Checkpoint) -> Result<Plan> {
    plan_with(checkpoint, &PlanOptions::default())
}

/// As [`plan`], with what the caller chose. Fails with `InvalidArgument` for a choice that cannot be met.
pub fn plan_with(checkpoint: &Checkpoint, options: &PlanOptions) -> Result<Plan> {
    if checkpoint.metadata.dialect == Dialect::Gguf && checkpoint.metadata.text("general.type")? == Some("adapter") {
        let problem = "this is an adapter; load the model that it was made for, and then the adapter beside it";
        return Err(Error::new(ErrorKind::UnsupportedFormat, problem).at("general.type"));
    }
    family::plan(checkpoint, options)
}

/// The plan of a checkpoint as one architecture, which the files call `name`.
fn build(
    checkpoint: &Checkpoint,
    name: &'static str,
    architecture: &Architecture,
    options: &PlanOptions,
) -> Result<Plan> {
    let dialect = checkpoint.metadata.dialect;
    let mut hyper = (architecture.hyper)(checkpoint)?;
    let context = options.context_of(hyper.context)?;
    hyper.choose_rope(context);
    let mut builder = Builder::new();
    (architecture.graph)(&hyper, &mut builder);
    let graph = builder.finish()?;

    let tensors: BTreeMap<&str, &TensorInfo> =
        checkpoint.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let rows = graph.weights.iter().map(|weight| (weight.name.as_str(), weight.rows)).collect();
    let mut used = BTreeSet::new();
    let mut formats = Vec::with_capacity(graph.weights.len());
    let mut locations = Vec::with_capacity(graph.weights.len());
    for weight in &graph.weights {
        let slice = Slice::of(weight, &rows, architecture.fused);
        let tensor = find(&tensors, weight, &slice, |ours| names::in_file(ours, dialect, architecture.names))?;
        used.insert(tensor.name.as_str());
        locations.push(Location::of(tensor, weight, &slice, hyper.norm_offset)?);
        formats.push(match weight.kind {
            WeightKind::Matrix => tensor.format,
            WeightKind::Vector => FormatId::F32,
        });
    }
    refuse_other_biases(&tensors, &used)?;
    Ok(Plan { architecture: name, hyper, context, graph, formats, locations })
}

/// The tensor of a declared weight, its shape checked.
fn find<'a>(
    tensors: &BTreeMap<&str, &'a TensorInfo>,
    weight: &Weight,
    slice: &Slice,
    in_file: impl Fn(&str) -> Option<String>,
) -> Result<&'a TensorInfo> {
    let malformed = |name: &str, problem: String| Error::new(ErrorKind::MalformedModel, problem).at(name);
    let name = in_file(&slice.tensor)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "no table line names this weight").at(weight.name.as_str()))?;
    let expected = match weight.kind {
        WeightKind::Matrix => vec![slice.rows, weight.cols],
        WeightKind::Vector if weight.rows > 1 => vec![weight.rows, weight.cols],
        WeightKind::Vector => vec![weight.cols],
    };
    let tensor = *tensors
        .get(name.as_str())
        .ok_or_else(|| malformed(&name, format!("the tensor is missing; its shape would be {expected:?}")))?;
    if !same_shape(&tensor.shape, &expected, weight.kind) {
        return Err(malformed(&name, format!("shape {:?} where {expected:?} is needed", tensor.shape)));
    }
    Ok(tensor)
}

/// Whether a tensor has the shape of a weight. The hub keeps a convolution's numbers as (channels, 1, taps).
fn same_shape(found: &[usize], expected: &[usize], kind: WeightKind) -> bool {
    match (found, expected) {
        ([channels, 1, taps], [rows, cols]) if kind == WeightKind::Vector => channels == rows && taps == cols,
        _ => found == expected,
    }
}

/// A bias that nobody adds would be a wrong answer.
fn refuse_other_biases(tensors: &BTreeMap<&str, &TensorInfo>, used: &BTreeSet<&str>) -> Result<()> {
    let mut biases = used.iter().filter_map(|name| Some(format!("{}.bias", name.strip_suffix(".weight")?)));
    match biases.find(|bias| tensors.contains_key(bias.as_str()) && !used.contains(bias.as_str())) {
        Some(bias) => Err(Error::new(ErrorKind::UnsupportedFormat, "this bias is not supported").at(bias)),
        None => Ok(()),
    }
}
