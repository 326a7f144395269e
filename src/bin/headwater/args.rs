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
    Generate(GenerateArgs),
    /// Writes the logits after every id to a safetensors file (`logits`, f32, tokens x vocabulary)
    Logits(LogitsArgs),
    /// Turns lines {"text": ...} from standard input into lines {"ids": ..., "text": ...}
    Tokenize(TokenizeArgs),
    /// Tells what a model is, reading no weight
    Inspect(InspectArgs),
    /// Measures prefill and decode
    Bench(BenchArgs),
}

impl Command {
    /// The flags that all commands have.
    pub(crate) fn common(&self) -> &Common {
        match self {
            Command::Generate(args) => &args.common,
            Command::Logits(args) => &args.common,
            Command::Tokenize(args) => &args.common,
            Command::Inspect(args) => &args.common,
            Command::Bench(args) => &args.common,
        }
    }
}

/// What all commands take.
#[derive(Args)]
pub(crate) struct Common {
    /// A .gguf file, or a folder with config.json and safetensors
    pub(crate) model: String,
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
    #[command(flatten)]
    pub(crate) adapter: AdapterArgs,
}

/// An adapter to load beside the model.
#[derive(Args)]
pub(crate) struct AdapterArgs {
    /// A folder as peft writes it or a .gguf file, applied; after a colon how much of it (`my-lora:0.5`)
    #[arg(long, value_name = "PATH[:SCALE]")]
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
}
