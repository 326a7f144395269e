//! Headwater: open-weight language models in the browser tab, on WebGPU.
//!
//! # The map
//!
//! Bytes flow one way, from a source to text; each module may use only those above it (a test checks it).
//!
//! | module | what it is |
//! |---|---|
//! | [`error`] | the one error type: a kind for programs, a place for people |
//! | `digest` | hashes as hexadecimal digits |
//! | [`quant`] | how numbers are stored: one file a block format, and their table |
//! | [`source`] | ranged reads of files, wherever they are |
//! | [`format`](mod@format) | GGUF files and safetensors folders to names, shapes and metadata |
//! | [`tokenizer`] | text to ids and back; which ids end a reply |
//! | [`chat`] | messages to text, by the model's own template |
//! | [`graph`] | the computation as plain data, and what a backend promises |
//! | [`model`] | one file an architecture: its hyperparameters, weights and graph |
//! | [`sample`] | how the next id is chosen: options, checked, and the choosing itself |
//! | [`cpu`] | the interpreter of a graph: the oracle of the tests, and the fallback; its loops are `cpu-kernels/` |
//! | [`gpu`] | lowers a graph to a list of dispatches once, then replays it; the only module that names wgpu |
//! | [`kernel`] | one file a GPU operation, beside its shader in `shaders/` |
//! | [`cache`] | keys and values in pages |
//! | [`engine`] | a loaded model that answers: prefill, decode, stop, events |
//! | [`hub`] | references to files that were judged, fetched, verified and kept; logic only, for the edges |
//! | `web` | the border with JavaScript (wasm only); the package around it is in `pkg/` |
//!
//! # Glossary
//!
//! - *prefill*: computing the prompt, many positions at a time; *decode*: computing one position after another.
//! - *step*: one run of the graph; its *rows* are tokens at their positions; its *outputs* the rows whose logits matter.
//! - *logits*: a score for every id of the vocabulary, before any softmax.
//! - *chain*: several decode steps submitted at once, each feeding its id to the next on the device.
//! - *page*: keys and values of [`graph::PAGE_TOKENS`] positions of every layer; a sequence is a list of pages.
//! - *team*: the invocations that make an output on the GPU together: those of a workgroup, or one alone.
//! - *plane*: an aligned array that the blocks of a quantised matrix were repacked into on the GPU.
//! - *shapes*: matrices are `(rows, cols)` with `cols` contracted; activations `(tokens, width)`.
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// The text of a file below `shaders/`, without its comments, as `build.rs` writes it.
macro_rules! wgsl {
    ($name:expr) => {
        include_str!(concat!(env!("OUT_DIR"), "/shaders/", $name))
    };
}

pub mod cache;
pub mod chat;
pub mod cpu;
pub(crate) mod digest;
pub mod engine;
pub mod error;
pub mod format;
pub mod gpu;
pub mod graph;
pub mod hub;
pub mod kernel;
pub mod model;
pub mod quant;
pub mod sample;
pub mod source;
pub mod tokenizer;
#[cfg(target_arch = "wasm32")]
pub mod web;
