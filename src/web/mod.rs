//! The edge to JavaScript, and the only folder that names wasm-bindgen, js-sys and web-sys: the engine's verbs as
//! exports, JSON texts in and out, errors as `Error` objects with the same kinds. It adds no behaviour of its own.
//!
//! The package's `host.ts` is its only caller.

mod engine;
mod environment;
mod fault;
mod grammar;
mod hub;
mod hub_edge;
mod source;

pub use engine::WebEngine;
pub use grammar::use_grammars;
pub use hub::WebHub;

use wasm_bindgen::prelude::wasm_bindgen;

/// Runs once when the module is started: a panic's words go to the console before the trap.
#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}
