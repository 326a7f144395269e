//! Headwater: open-weight language models in the browser tab, on WebGPU.
#![forbid(unsafe_code)]

pub mod error;
pub mod format;
pub mod graph;
pub mod quant;
pub mod source;
#[cfg(target_arch = "wasm32")]
pub mod web;
