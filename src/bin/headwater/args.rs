//! The commands and their flags. Ranges of values are the engine's to judge, so that every edge judges alike.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Open-weight language models on the GPU.
#[derive(Parser)]
#[command(name = "headwater", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What is done.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Continues a prompt
    Generate(Box<GenerateArgs>),
    /// Writes the logits after every id to a safetensors file (`logits`, f32, tokens x vocabulary)
    Logits(LogitsArgs),
    /// Makes the vectors of texts: lines {"text": ...} from standard input become lines {"embedding": [...]}, in order
    ///
    /// With --json all of them are one object: {"embeddings": [[...]], "dimensions", "pooling", "prompt_tokens"}.
    Embed(EmbedArgs),
    /// Ranks documents, lines {"text": ...} from standard input, by how well they answer a query
    ///
    /// Best first, a line {"index", "score", "logit"} each; the index counts the documents from 0. With --json all of them
    /// are one object: {"results": [...], "prompt_tokens"}.
    Rerank(RerankArgs),
    /// Tells how likely the model finds continuations, lines {"context", "continuation"} from standard input
    ///
    /// A line {"logprob", "is_greedy", "perplexity", "tokens", "token_logprobs"} each, in their order: what the requests
    /// loglikelihood and loglikelihood_rolling of lm-evaluation-harness ask for. Context and continuation are texts or arrays
    /// of ids.
    Score(ScoreArgs),
    /// Turns lines {"text": ...} from standard input into lines {"ids": ..., "text": ...}
    Tokenize(TokenizeArgs),
    /// Tells what a model is, reading no weight
    Inspect(InspectArgs),
    /// Tells whether a model fits this machine, in figures, reading no weight
    Fit(FitArgs),
    /// Measures prefill and decode
    Bench(BenchArgs),
    /// Fetches a model from a hub, verified, to be kept on this machine
    Pull(PullArgs),
    /// Lists or removes what is kept
    Store(StoreArgs),
}

impl Command {
    /// Whether errors are to be told in JSON.
    pub(crate) fn json(&self) -> bool {
        match self {
            Command::Generate(args) => args.common.json,
            Command::Logits(args) => args.common.json,
            Command::Embed(args) => args.common.json,
            Command::Rerank(args) => args.common.json,
            Command::Score(args) => args.common.json,
            Command::Tokenize(args) => args.common.json,
            Command::Inspect(args) => args.common.json,
            Command::Fit(args) => args.common.json,
            Command::Bench(args) => args.common.json,
            Command::Pull(args) => args.json,
            Command::Store(args) => args.verb.flags().json,
        }
    }
}

/// What all commands take.
#[derive(Args)]
pub(crate) struct Common {
    /// A .gguf file, a folder with config.json and safetensors, or a reference: hf:owner/name:Q4_K_M, an https address,
    /// or owner/name with --endpoint
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// What runs the model
    #[arg(long, value_enum, default_value_t = Backend::Gpu)]
    pub(crate) backend: Backend,
    /// Float activations, 32-bit keys and values
    #[arg(long)]
    pub(crate) exact: bool,
    /// Tokens that prompt and reply may have together
    #[arg(long)]
    pub(crate) context: Option<usize>,
    /// How keys and values are stored: f16, f32, q8_0, q4_0
    #[arg(long)]
    pub(crate) kv: Option<String>,
    /// What decoding on the GPU multiplies integer weights with: f32, int8
    #[arg(long)]
    pub(crate) activations: Option<String>,
    /// Quantise matrices of floats while loading: q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k
    #[arg(long)]
    pub(crate) quantize: Option<String>,
    /// Read the files as this architecture, whatever they call themselves
    #[arg(long)]
    pub(crate) architecture: Option<String>,
    /// One JSON object on standard output, errors included
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where models come from, and what of them is allowed.
#[derive(Clone, Args)]
#[command(next_help_heading = "Models from a hub")]
pub(crate) struct HubArgs {
    /// A mirror with the hub's layout
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// For the hub's own origin and nobody else; HF_TOKEN is used for the default hub
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The folder of what is kept; HEADWATER_STORE, or where programs keep their data
    #[arg(long, value_name = "FOLDER")]
    pub(crate) store: Option<PathBuf>,
    /// Only the bytes that this file pins; `pull` adds to it
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
    /// A JSON file: {"licenses": {"allow": [], "deny": [], "onUnknown": "deny"}, "hosts": [], "maxBytes": 0, "requireHash": true}
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// A host that may be asked beside the hub: host, host:port or *.domain; may be given several times
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,
    /// No request at all
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Flags of `pull`.
#[derive(Args)]
pub(crate) struct PullArgs {
    /// hf:owner/name[@revision][:TAG | /path], an https address, or owner/name with --endpoint
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// One JSON object on standard output, errors included
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `store`.
#[derive(Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) verb: StoreVerb,
}

/// What is done with the store.
#[derive(Subcommand)]
pub(crate) enum StoreVerb {
    /// Every model, the last used first
    List(StoreFlags),
    /// Keeps a model from its files, or from a store's folder, once a lock file or the hub vouches for every byte
    Import {
        /// As it would be pulled
        reference: String,
        /// Its files, or folders that have them
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        flags: StoreFlags,
    },
    /// Frees what a reference has kept
    Remove {
        /// As it was pulled
        reference: String,
        #[command(flatten)]
        flags: StoreFlags,
    },
    /// Removes everything
    Clear(StoreFlags),
}

/// What every verb of `store` takes.
#[derive(Args)]
pub(crate) struct StoreFlags {
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// One JSON object on standard output, errors included
    #[arg(long)]
    pub(crate) json: bool,
}

impl StoreVerb {
    pub(crate) fn flags(&self) -> &StoreFlags {
        match self {
            StoreVerb::List(flags) | StoreVerb::Clear(flags) => flags,
            StoreVerb::Import { flags, .. } | StoreVerb::Remove { flags, .. } => flags,
        }
    }
}

/// What runs a model.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Backend {
    /// Vulkan, Metal or Direct3D
    Gpu,
    /// This processor
    Cpu,
}

/// Flags of `generate`.
#[derive(Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// Most ids of the reply; the rest of the context by default
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) max_tokens: Option<f64>,
    /// 0 takes the likeliest id; the model's own by default
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Only the k likeliest ids; 0 = off
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) top_k: Option<f64>,
    /// Only the likeliest ids whose probabilities add up to p; 1 = off
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) top_p: Option<f64>,
    /// Only ids at least this many times as likely as the likeliest; 0 = off
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) min_p: Option<f64>,
    /// Where the randomness starts
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) seed: Option<f64>,
    /// A text that ends the reply; may be given several times
    #[arg(long)]
    pub(crate) stop: Vec<String>,
    /// Go on after the ids that end a reply
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// What is expected of the reply before it is chosen, which is computed several ids in a step: lookup (what followed the
    /// same ids before) or off
    #[arg(long)]
    pub(crate) speculation: Option<String>,
    #[command(flatten)]
    pub(crate) constraint: ConstraintArgs,
    #[command(flatten)]
    pub(crate) adapter: AdapterArgs,
}

/// What the reply must be, in one of three ways.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct ConstraintArgs {
    /// A file with a JSON Schema: the reply is valid under it
    #[arg(long, value_name = "FILE")]
    pub(crate) json_schema: Option<PathBuf>,
    /// A regular expression: the reply matches it from end to end
    #[arg(long, value_name = "PATTERN")]
    pub(crate) regex: Option<String>,
    /// A file with a grammar, GBNF where its name ends in .gbnf, else Lark's notation: the reply is a sentence of it
    #[arg(long, value_name = "FILE")]
    pub(crate) grammar: Option<PathBuf>,
}

/// An adapter to load beside the model.
#[derive(Args)]
pub(crate) struct AdapterArgs {
    /// A folder as peft writes it, a .gguf file or a reference to a hub, applied; after a colon how much of it
    /// (`my-lora:0.5`)
    #[arg(long, value_name = "ADAPTER[:SCALE]")]
    pub(crate) adapter: Option<String>,
}

/// The prompt, in one of three ways.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PromptArgs {
    /// A text, continued as it stands
    #[arg(long)]
    pub(crate) prompt: Option<String>,
    /// A JSON file with an array of messages, for the chat template
    #[arg(long)]
    pub(crate) messages: Option<PathBuf>,
    /// Ids, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub(crate) ids: Option<Vec<u32>>,
}

/// Flags of `logits`.
#[derive(Args)]
pub(crate) struct LogitsArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Ids, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) ids: Vec<u32>,
    /// The file to write
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) adapter: AdapterArgs,
}

/// Flags of `embed`.
#[derive(Args)]
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How a text's states become one vector: mean, cls or last; as the model's files say by default
    #[arg(long)]
    pub(crate) pooling: Option<String>,
    /// Whether vectors are divided by their length; as the model's files say by default
    #[arg(long)]
    pub(crate) normalize: Option<bool>,
    /// Only so many of the first elements, for models that were trained for it
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) dimensions: Option<f64>,
    /// Take the beginning of a text that is too long, which is an error otherwise
    #[arg(long)]
    pub(crate) truncate: bool,
    #[command(flatten)]
    pub(crate) adapter: AdapterArgs,
}

/// Flags of `rerank`.
#[derive(Args)]
pub(crate) struct RerankArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// What is asked
    #[arg(long)]
    pub(crate) query: String,
    /// Only so many of the best
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) top_k: Option<f64>,
    /// Take the beginnings of a query and a document that are too long together, which is an error otherwise
    #[arg(long)]
    pub(crate) truncate: bool,
    #[command(flatten)]
    pub(crate) adapter: AdapterArgs,
}

/// Flags of `score`.
#[derive(Args)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Leave out what the tokenizer puts before a text
    #[arg(long)]
    pub(crate) no_special: bool,
    /// Score what is longer than the context in windows, each with so many ids more than the one before
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) stride: Option<f64>,
    #[command(flatten)]
    pub(crate) adapter: AdapterArgs,
}

/// Flags of `tokenize`.
#[derive(Args)]
pub(crate) struct TokenizeArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Add the ids that the tokenizer puts around a text
    #[arg(long)]
    pub(crate) add_special: bool,
    /// Take special tokens written in the text for text
    #[arg(long)]
    pub(crate) plain: bool,
}

/// Flags of `inspect`.
#[derive(Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Flags of `fit`.
#[derive(Args)]
pub(crate) struct FitArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Memory that the model may take, in GiB; what this machine has free by default
    #[arg(long)]
    pub(crate) memory: Option<f64>,
}

/// Flags of `bench`.
#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Ids of the prompt that is timed
    #[arg(long, default_value_t = 512)]
    pub(crate) pp: usize,
    /// Ids that are generated and timed
    #[arg(long, default_value_t = 128)]
    pub(crate) tg: usize,
    /// Ids that are in the cache before either begins
    #[arg(long, default_value_t = 0)]
    pub(crate) depth: usize,
    /// Replies that are generated side by side and timed after that, where it is more than one
    #[arg(long, default_value_t = 1)]
    pub(crate) replies: usize,
    /// Time replies with drafts and without too: one that copies, one that does not
    #[arg(long)]
    pub(crate) speculation: bool,
    /// Tell the time of each kernel too, of a chunk of the prompt and of one generated id
    #[arg(long)]
    pub(crate) profile: bool,
}
