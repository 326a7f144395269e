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
mod bert;
mod decoder;
mod deepseek_v2;
mod deepseek_v3;
mod encoder;
mod experts;
mod family;
mod gemma2;
mod gemma3;
mod gpt_oss;
mod hyper;
mod lfm2;
mod llama;
mod llama4;
mod locate;
mod longrope;
mod mistral;
mod mixtral;
mod modernbert;
mod names;
mod nomic_bert;
mod olmo2;
mod options;
mod order;
mod phi3;
mod pooling;
mod quantize;
mod qwen2;
mod qwen3;
mod qwen3_next;
mod qwen3moe;
mod rotary;
mod rows;
mod smollm3;
mod weights;
mod xlm_roberta;

pub use adapter::{AdapterKind, AdapterPlan, MAX_RANK, plan_adapter, read_adapter};
pub use deepseek_v2::Latent;
pub use encoder::Encoder;
pub use experts::Experts;
pub use hyper::{Hyper, Layer};
pub use longrope::LongRope;
pub use options::{DEFAULT_CONTEXT, PlanOptions};
pub use pooling::{Embedding, Pooling};
pub use qwen3_next::Delta;
pub use weights::{WeightSink, read_weight, read_weights};

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Checkpoint, Dialect};
use crate::graph::{Builder, Graph, Output, WeightId, WeightKind};
use crate::quant::FormatId;
use locate::{Fused, Location, Locator};
use names::Name;
use order::Ordered;

/// One row of the table: what an architecture is called and its two functions.
struct Architecture {
    /// `general.architecture` of GGUF files, where there are such.
    gguf: Option<&'static str>,
    /// `model_type` of `config.json`, where there are such.
    hub: Option<&'static str>,
    /// Names of tensors that go before the common ones.
    names: &'static [Name],
    /// Tensors that hold several weights of a layer, or one that lies otherwise.
    fused: &'static [Fused],
    /// Reads the hyperparameters.
    hyper: fn(&Checkpoint) -> Result<Hyper>,
    /// Declares the weights and writes the computation down.
    graph: fn(&Hyper, &mut Builder),
}

/// Every architecture that is computed.
const ARCHITECTURES: &[Architecture] = &[
    llama::LLAMA,
    bert::BERT,
    gemma2::GEMMA2,
    gemma3::GEMMA3,
    deepseek_v2::DEEPSEEK_V2,
    deepseek_v3::DEEPSEEK_V3,
    gpt_oss::GPT_OSS,
    lfm2::LFM2,
    llama4::LLAMA4,
    mistral::MISTRAL,
    mixtral::MIXTRAL,
    modernbert::MODERNBERT,
    nomic_bert::NOMIC_BERT,
    olmo2::OLMO2,
    phi3::PHI3,
    qwen2::QWEN2,
    qwen3::QWEN3,
    qwen3_next::QWEN3_NEXT,
    qwen3moe::QWEN3MOE,
    smollm3::SMOLLM3,
    xlm_roberta::XLM_ROBERTA,
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
    /// What becomes of its hidden states where a caller wants embeddings.
    pub embedding: Embedding,
    /// How each weight arrives at a [`WeightSink`], by `WeightId`: matrices as stored or as they are quantised, vectors
    /// always as f32.
    pub formats: Vec<FormatId>,
    /// How the files store what is quantised while it is read.
    quantized: BTreeMap<WeightId, FormatId>,
    /// Of matrices whose columns stand in an order of their own that order.
    orders: BTreeMap<WeightId, WeightId>,
    /// Where each weight lies in the files, by `WeightId`.
    locations: Vec<Location>,
}

impl Plan {
    /// Names of the tensors that are read, as the files have them; some of them several times.
    fn tensors(&self) -> impl Iterator<Item = &str> {
        self.locations.iter().flat_map(Location::tensors)
    }

    /// Bytes of all weights as they arrive.
    pub fn resident_bytes(&self) -> u64 {
        let weights = self.graph.weights.iter().zip(&self.formats);
        let bytes = weights.map(|(weight, format)| {
            let row_bytes = format.row_bytes(weight.cols).unwrap_or(0);
            (weight.rows as u64).saturating_mul(row_bytes as u64)
        });
        bytes.fold(0, u64::saturating_add)
    }

    /// Bytes that [`read_weights`] reads.
    pub fn weight_bytes(&self) -> u64 {
        weights::size_bytes(&self.locations)
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
    let mut hyper = (architecture.hyper)(checkpoint)?;
    let embedding = Embedding::read(&checkpoint.metadata, &hyper)?;
    let cut = embedding.max_tokens.filter(|_| hyper.ends != Output::Logits);
    let context = options.context_of(hyper.context, cut)?;
    hyper.choose_rope(context);
    let declare = |mut builder: Builder| {
        (architecture.graph)(&hyper, &mut builder);
        builder.finish()
    };
    let mut graph = declare(Builder::new())?;
    let mut locations = locate(checkpoint, &graph, architecture, &hyper, &Ordered::default())?;
    let ordered = Ordered::new(checkpoint, &graph, &locations)?;
    if !ordered.of_matrix.is_empty() {
        // Where the files have orders of columns is known only now.
        graph = declare(Builder::with_orders(ordered.of_matrix.clone()))?;
        locations = locate(checkpoint, &graph, architecture, &hyper, &ordered)?;
    }
    let formats = graph.weights.iter().zip(&locations).map(|(weight, location)| match weight.kind {
        WeightKind::Matrix => location.format,
        WeightKind::Vector => FormatId::F32,
    });
    let mut formats: Vec<FormatId> = formats.collect();
    let quantized = match &options.quantize {
        None => BTreeMap::new(),
        Some(name) => quantize::choose(&graph, &mut formats, quantize::target(name)?, hyper.tied)?,
    };
    let orders = ordered.of_weight(&graph);
    Ok(Plan { architecture: name, hyper, context, graph, embedding, formats, quantized, orders, locations })
}

/// Where every weight of a graph lies.
fn locate(
    checkpoint: &Checkpoint,
    graph: &Graph,
    architecture: &Architecture,
    hyper: &Hyper,
    ordered: &Ordered,
) -> Result<Vec<Location>> {
    let tables = (architecture.names, architecture.fused);
    let mut locator = Locator::new(checkpoint, graph, tables, hyper.norm_offset);
    let mut locations = Vec::with_capacity(graph.weights.len());
    for weight in &graph.weights {
        locations.push(match ordered.locate(checkpoint, weight)? {
            Some(order) => order,
            None => locator.locate(weight)?,
        });
    }
    locator.refuse_other_biases()?;
    Ok(locations)
}
