//! The commands and their flags. Ranges of values are the engine's to judge, so that every edge judges alike.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Open-weight language models on the GPU.
#[derive(Parser)]
#[command(name = "headwater", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What is done.
#[derive(Subcommand)]
pub enum Command {
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
    pub fn common(&self) -> &Common {
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
pub struct Common {
    /// A .gguf file, or a folder with config.json and safetensors
    pub model: String,
    /// What runs the model
    #[arg(long, value_enum, default_value_t = Backend::Gpu)]
    pub backend: Backend,
    /// Float activations, 32-bit keys and values
    #[arg(long)]
    pub exact: bool,
    /// Tokens that prompt and reply may have together
    #[arg(long)]
    pub context: Option<usize>,
    /// One JSON object on standard output, errors included
    #[arg(long)]
    pub json: bool,
}

/// What runs a model.
#[derive(Clone, Copy, ValueEnum)]
pub enum Backend {
    /// Vulkan, Metal or Direct3D
    Gpu,
    /// This processor
    Cpu,
}

/// Flags of `generate`.
#[derive(Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// Most ids of the reply; the rest of the context by default
    #[arg(long, allow_negative_numbers = true)]
    pub max_tokens: Option<f64>,
    /// 0 takes the likeliest id; the model's own by default
    #[arg(long, allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Only the k likeliest ids; 0 = off
    #[arg(long, allow_negative_numbers = true)]
    pub top_k: Option<f64>,
    /// Only the likeliest ids whose probabilities add up to p; 1 = off
    #[arg(long, allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Only ids at least this many times as likely as the likeliest; 0 = off
    #[arg(long, allow_negative_numbers = true)]
    pub min_p: Option<f64>,
    /// Where the randomness starts
    #[arg(long, allow_negative_numbers = true)]
    pub seed: Option<f64>,
    /// A text that ends the reply; may be given several times
    #[arg(long)]
    pub stop: Vec<String>,
    /// Go on after the ids that end a reply
    #[arg(long)]
    pub ignore_eos: bool,
}

/// The prompt, in one of three ways.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct PromptArgs {
    /// A text, continued as it stands
    #[arg(long)]
    pub prompt: Option<String>,
    /// A JSON file with an array of messages, for the chat template
    #[arg(long)]
    pub messages: Option<PathBuf>,
    /// Ids, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub ids: Option<Vec<u32>>,
}

/// Flags of `logits`.
#[derive(Args)]
pub struct LogitsArgs {
    #[command(flatten)]
    pub common: Common,
    /// Ids, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    pub ids: Vec<u32>,
    /// The file to write
    #[arg(long)]
    pub out: PathBuf,
}

/// Flags of `tokenize`.
#[derive(Args)]
pub struct TokenizeArgs {
    #[command(flatten)]
    pub common: Common,
    /// Add the ids that the tokenizer puts around a text
    #[arg(long)]
    pub add_special: bool,
    /// Take special tokens written in the text for text
    #[arg(long)]
    pub plain: bool,
}

/// Flags of `inspect`.
#[derive(Args)]
pub struct InspectArgs {
    #[command(flatten)]
    pub common: Common,
}

/// Flags of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub common: Common,
    /// Ids of the prompt that is timed
    #[arg(long, default_value_t = 512)]
    pub pp: usize,
    /// Ids that are generated and timed
    #[arg(long, default_value_t = 128)]
    pub tg: usize,
    /// Ids that are in the cache before either begins
    #[arg(long, default_value_t = 0)]
    pub depth: usize,
}
