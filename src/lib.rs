//! Headwater: open-weight language models in the browser tab, on WebGPU.
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cpu;
pub mod error;
pub mod format;
pub mod gpu;
pub mod graph;
pub mod kernel;
pub mod model;
pub mod quant;
pub mod sample;
pub mod source;
