//! What a run of the parity tests found, model by model, for the table in docs/models.md: `cargo xtask test --only models`
//! holds the table to it. The browser's tests read their list of models from the same file.

use std::collections::BTreeMap;

use headwater::graph::WeightKind;
use headwater::model::Plan;
use serde_json::{Value, json};

use super::Case;

/// The figures of one backend in one mode.
pub struct Figures {
    name: &'static str,
    rows: Vec<Value>,
}

impl Figures {
    /// `name` is `<backend>-<mode>`, for example `cpu-exact`.
    pub fn new(name: &'static str) -> Self {
        Self { name, rows: vec![] }
    }

    /// The worst NMSE of a model's logits.
    pub fn add(&mut self, case: &Case, plan: &Plan, nmse: f64) {
        let mut row = row(case.name, case.files[0], plan, nmse);
        row["files"] = json!(case.files);
        row["goldens"] = json!(case.goldens);
        row["reference"] = json!(case.reference);
        self.rows.push(row);
    }

    /// The worst NMSE of what a model that makes no logits is for.
    pub fn add_encoder(&mut self, name: &str, file: &str, plan: &Plan, nmse: f64) {
        self.rows.push(row(name, file, plan, nmse));
    }

    /// Writes them where the build keeps what tests leave behind.
    pub fn write(&self) {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("parity");
        std::fs::create_dir_all(&folder).unwrap();
        let text = serde_json::to_string_pretty(&self.rows).unwrap();
        std::fs::write(folder.join(format!("{}.json", self.name)), text).unwrap();
    }
}

/// What the table says of a model with such a file.
fn row(name: &str, file: &str, plan: &Plan, nmse: f64) -> Value {
    let mut bytes: BTreeMap<&str, usize> = BTreeMap::new();
    for (weight, format) in plan.graph.weights.iter().zip(&plan.formats) {
        if weight.kind == WeightKind::Matrix {
            let size = format.row_bytes(weight.cols).unwrap_or(0) * weight.rows;
            *bytes.entry(format.format().name).or_default() += size;
        }
    }
    let mut formats: Vec<(&str, usize)> = bytes.into_iter().collect();
    formats.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let formats: Vec<&str> = formats.into_iter().map(|(name, _)| name).collect();
    json!({
        "name": name,
        "family": plan.architecture,
        "container": if file.ends_with(".gguf") { "GGUF" } else { "safetensors" },
        "formats": formats.join(", "),
        "nmse": nmse,
    })
}
