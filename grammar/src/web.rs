//! The border with JavaScript. A fault is thrown as a text: its kind, a line end, its words.

use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::{Fault, FaultKind, Follower, Form, Grammars, Vocabulary};

fn thrown(fault: Fault) -> JsValue {
    let kind = match fault.kind {
        FaultKind::Unsupported => "SchemaUnsupported",
        FaultKind::Limit => "SchemaLimit",
    };
    JsValue::from_str(&format!("{kind}\n{}", fault.message))
}

/// See [`Grammars`].
#[wasm_bindgen]
pub struct WebGrammars(Grammars);

#[wasm_bindgen]
impl WebGrammars {
    /// Makes ready for a vocabulary; see [`Vocabulary`].
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: Vec<u8>, lengths: Vec<u32>, ends: Vec<u32>) -> Result<WebGrammars, JsValue> {
        Grammars::new(&Vocabulary { bytes, lengths, ends }).map(Self).map_err(thrown)
    }

    /// What follows at the beginning of a text; `form` is the JSON of [`Form`].
    pub fn compile(&mut self, form: &str) -> Result<WebFollower, JsValue> {
        let form: Form = serde_json::from_str(form)
            .map_err(|error| thrown(Fault { kind: FaultKind::Unsupported, message: error.to_string() }))?;
        self.0.compile(&form).map(WebFollower).map_err(thrown)
    }
}

/// See [`Follower`].
#[wasm_bindgen]
pub struct WebFollower(Follower);

#[wasm_bindgen]
impl WebFollower {
    /// See [`Follower::fork`].
    pub fn fork(&self) -> WebFollower {
        WebFollower(self.0.fork())
    }

    /// See [`Follower::mask`].
    pub fn mask(&mut self) -> Result<Vec<u32>, JsValue> {
        self.0.mask().map_err(thrown)
    }

    /// See [`Follower::accept`].
    pub fn accept(&mut self, id: u32) -> Result<(), JsValue> {
        self.0.accept(id).map_err(thrown)
    }

    /// See [`Follower::accept_text`].
    #[wasm_bindgen(js_name = acceptText)]
    pub fn accept_text(&mut self, text: &str) -> Result<bool, JsValue> {
        self.0.accept_text(text).map_err(thrown)
    }

    /// See [`Follower::forced`].
    pub fn forced(&mut self) -> Vec<u8> {
        self.0.forced()
    }

    /// See [`Follower::usable`].
    pub fn usable(&mut self, ids: &[u32]) -> Result<usize, JsValue> {
        self.0.usable(ids).map_err(thrown)
    }

    /// See [`Follower::complete`].
    pub fn complete(&mut self) -> bool {
        self.0.complete()
    }

    /// See [`Follower::ended`].
    pub fn ended(&self) -> bool {
        self.0.ended()
    }
}
