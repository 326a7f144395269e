//! What can be told about a model: from its headers alone, and once it is loaded.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;

use super::defaults;
use super::json::invalid;
use super::options::{INT8, LoadOptions};
use crate::chat::Template;
use crate::error::Result;
use crate::format::{Checkpoint, Dialect};
use crate::graph::Output;
use crate::model::{self, Plan};
use crate::sample::SampleOptions;
use crate::source::Source;
use crate::tokenizer::Tokenizer;

/// The file of a folder that is left out where a model is only looked at.
const TOKENIZER: &str = "tokenizer.json";
/// The same of GGUF.
const VOCABULARY: &str = "tokenizer.ggml.tokens";

/// One file of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileInfo {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
}

/// The chat template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateInfo {
    /// The file or key it came from.
    pub source: String,
    /// A short hash of its text, to tell templates apart.
    pub hash: String,
}

/// What runs a loaded model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// `webgpu`, `gpu` or `cpu`.
    pub name: String,
    /// The adapter's own name, where it tells one.
    pub device: String,
    /// What is used of the device.
    pub features: Vec<String>,
    /// How keys and values are stored.
    pub kv_format: String,
}

impl Runtime {
    /// What activations are rounded to while decoding, where that was asked for and the backend does it.
    pub(super) fn activations(&self) -> Option<&'static str> {
        self.features.iter().any(|feature| feature == INT8).then_some(INT8)
    }
}

/// What a model is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Continues texts; makes embeddings too.
    #[default]
    Generator,
    /// Makes embeddings.
    Embedder,
    /// Judges how well a document answers a query.
    Reranker,
}

impl Kind {
    /// What the graph's end allows.
    pub(super) fn of(output: Output) -> Self {
        match output {
            Output::Logits => Kind::Generator,
            Output::Hidden => Kind::Embedder,
            Output::Scores => Kind::Reranker,
        }
    }

    /// Fails with `InvalidArgument`, naming what the model can do, unless it can do what a model of the kind `wanted` does.
    pub(super) fn needs(self, wanted: Kind) -> Result<()> {
        if self == wanted || (self, wanted) == (Kind::Generator, Kind::Embedder) {
            return Ok(());
        }
        let (is, can) = match self {
            Kind::Generator => ("continues texts", "generate, embed"),
            Kind::Embedder => ("is for embeddings", "embed"),
            Kind::Reranker => ("judges pairs of texts", "rerank"),
        };
        let cannot = match wanted {
            Kind::Generator => "continue texts",
            Kind::Embedder => "make embeddings",
            Kind::Reranker => "rank documents",
        };
        Err(invalid(format!("this model {is} and cannot {cannot}; it can: {can}")))
    }
}

/// What is known of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// Its own name, or its first file's.
    pub name: String,
    /// The architecture.
    pub architecture: String,
    /// What it is for.
    pub kind: Kind,
    /// How it makes one vector of a text's states: `mean`, `cls` or `last`; `None` where it makes no embeddings.
    pub pooling: Option<String>,
    /// Elements of an embedding; 0 where it makes none.
    pub embedding_size: usize,
    /// Numbers in all tensors.
    pub parameters: u64,
    /// Transformer blocks.
    pub layers: usize,
    /// Ids that the model knows.
    pub vocab_size: usize,
    /// Tokens that prompt and reply may have together; when only inspected, what a load makes ready.
    pub context: usize,
    /// Positions that the model was made for.
    pub trained_context: usize,
    /// Bytes of tensors by the format they are stored in.
    pub formats: BTreeMap<String, u64>,
    /// The files that hold tensors.
    pub files: Vec<FileInfo>,
    /// Ids that end a reply.
    pub stop_ids: Vec<u32>,
    /// Its chat template, where it has one.
    pub template: Option<TemplateInfo>,
    /// Its licence, where the files tell it.
    pub license: Option<String>,
    /// Sampling where a request is silent, from `generation_config.json`.
    pub sampling: SampleOptions,
    /// What runs it; absent when it was only inspected.
    pub backend: Option<Runtime>,
    /// What its user should know.
    pub warnings: Vec<String>,
}

/// Reads headers only: what the model is, its tokenizer and template checked, no weight byte read.
pub fn inspect(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Info> {
    let plan = model::plan_with(checkpoint, &options.plan())?;
    let tokenizer = Tokenizer::from_metadata(&checkpoint.metadata)?;
    let template = Template::from_metadata(&checkpoint.metadata, &tokenizer)?;
    describe(checkpoint, &plan, &tokenizer, template.as_ref(), defaults::sampling(&checkpoint.metadata)?)
}

/// The same of a checkpoint that was only looked at ([`Checkpoint::look`]): where its tokenizer was not read, nothing is told
/// that only a tokenizer knows, and a warning says so.
pub fn look(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Info> {
    let metadata = &checkpoint.metadata;
    let (whole, place) = match metadata.dialect {
        Dialect::Gguf => (metadata.values.contains_key(VOCABULARY), VOCABULARY),
        Dialect::Hub => (metadata.companions.contains_key(TOKENIZER), TOKENIZER),
    };
    if whole {
        return inspect(checkpoint, options);
    }
    let plan = model::plan_with(checkpoint, &options.plan())?;
    let template = Template::look(metadata)?.map(|(source, hash)| TemplateInfo { source, hash });
    let warning = format!("{place} is large and was not read, or is missing: what it tells is left out");
    let info = facts(checkpoint, &plan, defaults::sampling(metadata)?)?;
    Ok(Info { template, warnings: vec![warning], ..info })
}

/// Elements of a final hidden state.
pub(super) fn hidden_width(plan: &Plan) -> usize {
    plan.graph.hidden.map_or(0, |hidden| plan.graph.width(hidden))
}

/// The description of a model whose parts are made already.
pub(super) fn describe(
    checkpoint: &Checkpoint,
    plan: &Plan,
    tokenizer: &Tokenizer,
    template: Option<&Template>,
    sampling: SampleOptions,
) -> Result<Info> {
    let template = template
        .map(|template| TemplateInfo { source: template.source().to_owned(), hash: template.fingerprint().to_owned() });
    Ok(Info { stop_ids: tokenizer.stop_ids().to_vec(), template, ..facts(checkpoint, plan, sampling)? })
}

/// What is known without a tokenizer.
fn facts(checkpoint: &Checkpoint, plan: &Plan, sampling: SampleOptions) -> Result<Info> {
    let mut formats: BTreeMap<String, u64> = BTreeMap::new();
    let mut parameters = 0_u64;
    for tensor in &checkpoint.tensors {
        let stored = formats.entry(tensor.format.format().name.to_owned()).or_default();
        *stored = stored.saturating_add(tensor.size_bytes);
        let numbers = tensor.shape.iter().fold(1_u64, |product, len| product.saturating_mul(*len as u64));
        parameters = parameters.saturating_add(numbers);
    }
    let file = |file: &Rc<dyn Source>| FileInfo { name: file.name().to_owned(), size_bytes: file.size_bytes() };
    let files: Vec<FileInfo> = checkpoint.files.iter().filter(|file| file.is_given()).map(file).collect();
    let metadata = &checkpoint.metadata;
    let kind = Kind::of(plan.graph.output);
    let embeds = kind.needs(Kind::Embedder).is_ok();
    let own_name = metadata.text("general.name")?.or(files.first().map(|file| file.name.as_str()));
    Ok(Info {
        name: own_name.unwrap_or_default().to_owned(),
        architecture: metadata.architecture.clone(),
        kind,
        pooling: embeds.then(|| plan.embedding.pooling.name().to_owned()),
        embedding_size: if embeds { hidden_width(plan) } else { 0 },
        parameters,
        layers: plan.hyper.n_layers,
        vocab_size: plan.graph.vocab(),
        context: plan.context,
        trained_context: plan.hyper.context,
        formats,
        files,
        stop_ids: Vec::new(),
        template: None,
        license: metadata.text("general.license")?.map(str::to_owned),
        sampling,
        backend: None,
        warnings: Vec::new(),
    })
}
