//! Headwater: open-weight language models in the browser tab, on WebGPU.
#![forbid(unsafe_code)]

pub mod cache;
pub mod cpu;
pub mod engine;
pub mod chat;
pub mod error;
pub mod format;
pub mod gpu;
pub mod graph;
pub mod kernel;
pub mod model;
pub mod quant;
pub mod sample;
pub mod source;
pub mod tokenizer;
#[cfg(target_arch = "wasm32")]
pub mod web;
