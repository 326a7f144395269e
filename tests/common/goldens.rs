//! Goldens: prompts with their ids and continuations (JSON), logits and hidden states (safetensors).

use std::collections::BTreeMap;

use serde_json::Value;

use super::root;

/// One prompt of a model, and what the reference made of it.
pub struct Prompt {
    /// `short`, `mid` or `long`, or a number.
    pub name: String,
    /// The prompt.
    pub ids: Vec<u32>,
    /// The greedy continuation.
    pub greedy: Vec<u32>,
    /// How far the best logit was above the next, at each step of the continuation.
    pub margins: Vec<f32>,
}

/// All goldens of a model.
pub struct Goldens {
    /// In the order of the file.
    pub prompts: Vec<Prompt>,
    tensors: BTreeMap<String, Vec<f32>>,
}

/// A list of ids.
pub(super) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A JSON file of the project.
pub(super) fn json(path: &str) -> Value {
    let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Goldens {
    /// Reads `<path>.json` and `<path>.safetensors`.
    pub fn read(path: &str) -> Self {
        let file = json(&format!("{path}.json"));
        let prompts = file["prompts"].as_array().unwrap().iter().map(|prompt| Prompt {
            name: prompt["name"].as_str().unwrap().into(),
            ids: ids(&prompt["ids"]),
            greedy: ids(&prompt["greedy"]),
            margins: prompt["margins"].as_array().unwrap().iter().map(|m| m.as_f64().unwrap() as f32).collect(),
        });
        let prompts = prompts.collect();
        Self { prompts, ..Self::tensors(path) }
    }

    /// Reads `<path>.safetensors` alone.
    pub fn tensors(path: &str) -> Self {
        let bytes = std::fs::read(root().join(format!("{path}.safetensors"))).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = tensors.iter().map(|(name, tensor)| {
            let numbers = tensor.data().as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
            (name.to_owned(), numbers)
        });
        Self { prompts: vec![], tensors: tensors.collect() }
    }

    /// Of several prompts only these.
    pub fn only(mut self, names: &[&str]) -> Self {
        self.prompts.retain(|prompt| names.contains(&prompt.name.as_str()));
        assert_eq!(self.prompts.len(), names.len(), "{names:?}");
        self
    }

    /// The tensor `<prompt>.<what>` (or `<what>`, without a prompt), where the goldens have it.
    pub fn tensor(&self, prompt: &str, what: &str) -> Option<&[f32]> {
        self.tensors
            .get(&if prompt.is_empty() { what.to_owned() } else { format!("{prompt}.{what}") })
            .map(Vec::as_slice)
    }
}

/// A prompt of the trained model with the reference's reply.
pub struct Reply {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// The greedy reply, the id that ends it included.
    pub ids: Vec<u32>,
    /// The five largest logits after the prompt, with their ids.
    pub top: Vec<(u32, f32)>,
    /// The least margin of the reply.
    pub least_margin: f32,
}

impl Reply {
    /// All replies among the goldens of the trained model.
    pub fn all() -> Vec<Self> {
        let file = json("www/models/tiny-assistant/golden.json");
        let reply = |case: &Value| Reply {
            prompt: ids(&case["prompt_ids"]),
            ids: ids(&case["greedy_ids"]),
            top: case["top5"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| (entry["id"].as_u64().unwrap() as u32, entry["logit"].as_f64().unwrap() as f32))
                .collect(),
            least_margin: case["least_margin"].as_f64().unwrap() as f32,
        };
        file["cases"].as_array().unwrap().iter().map(reply).collect()
    }
}
