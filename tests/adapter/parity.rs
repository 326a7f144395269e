//! peft's goldens: logits and greedy continuations of a model with an adapter.

use super::common::orders::{Sharing, reordered};
use super::common::{Goldens, Report, check_greedy, check_logits, open, pages_for, source};
use super::{BACKENDS, Model};

/// An adapter among the test data, its base, and by how much storing either may move a logit (NMSE).
struct Case {
    base: &'static [&'static str],
    adapter: &'static [&'static str],
    goldens: &'static str,
    stored: f64,
}

const PLAIN: &[&str] =
    &["tests/data/lora/llama3-plain/adapter_config.json", "tests/data/lora/llama3-plain/adapter_model.safetensors"];
/// Stored as f16, which rounds its numbers.
const PLAIN_GGUF: &[&str] = &["tests/data/lora/llama3-plain/adapter.gguf"];
const LLAMA: &[&str] = &["tests/data/models/llama3/config.json", "tests/data/models/llama3/model.safetensors"];
/// Rows of queries and keys are permuted here.
const LLAMA_GGUF: &[&str] = &["tests/data/gguf/llama3-F16.gguf"];
const PLAIN_GOLDENS: &str = "tests/data/lora/llama3-plain/goldens";

/// Experts that a file has one by one, or all in one tensor.
macro_rules! experts {
    ($base:literal, $name:literal) => {
        Case {
            base: &[
                concat!("tests/data/models/", $base, "/config.json"),
                concat!("tests/data/models/", $base, "/model.safetensors"),
            ],
            adapter: &[
                concat!("tests/data/lora/", $name, "/adapter_config.json"),
                concat!("tests/data/lora/", $name, "/adapter_model.safetensors"),
            ],
            goldens: concat!("tests/data/lora/", $name, "/goldens"),
            stored: 0.0,
        }
    };
}

const CASES: &[Case] = &[
    Case { base: LLAMA, adapter: PLAIN, goldens: PLAIN_GOLDENS, stored: 0.0 },
    Case { base: LLAMA, adapter: PLAIN_GGUF, goldens: PLAIN_GOLDENS, stored: 2e-6 },
    Case { base: LLAMA_GGUF, adapter: PLAIN, goldens: PLAIN_GOLDENS, stored: 0.0 },
    Case { base: LLAMA_GGUF, adapter: PLAIN_GGUF, goldens: PLAIN_GOLDENS, stored: 2e-6 },
    Case {
        base: &["tests/data/models/qwen2/config.json", "tests/data/models/qwen2/model.safetensors"],
        adapter: &[
            "tests/data/lora/qwen2-rslora-pattern/adapter_config.json",
            "tests/data/lora/qwen2-rslora-pattern/adapter_model.safetensors",
        ],
        goldens: "tests/data/lora/qwen2-rslora-pattern/goldens",
        stored: 0.0,
    },
    Case {
        base: &["tests/data/models/qwen3/config.json", "tests/data/models/qwen3/model.safetensors"],
        adapter: &[
            "tests/data/lora/qwen3-dora/adapter_config.json",
            "tests/data/lora/qwen3-dora/adapter_model.safetensors",
        ],
        goldens: "tests/data/lora/qwen3-dora/goldens",
        stored: 0.0,
    },
    experts!("mixtral", "mixtral-experts"),
    experts!("qwen3moe", "qwen3moe-parameters"),
    experts!("gpt-oss", "gpt-oss-parameters"),
];

/// A's columns go with those of the matrices.
#[test]
fn bases_whose_columns_have_orders_of_their_own_are_adapted_likewise() {
    let mut report = Report::default();
    for case in [&CASES[0], &CASES[5]] {
        let goldens = Goldens::read(case.goldens);
        for (backend, bound) in BACKENDS {
            let model = Model::load(backend, reordered(&open(case.base), Sharing::Nothing), pages_for(&goldens));
            let adapter = model.adapter(case.adapter.iter().map(|file| source(file)).collect());
            model.with(adapter, 1.0);
            let name = format!("{backend}, {} on its base reordered", case.adapter.last().unwrap());
            check_logits(&*model.backend, &name, &goldens, bound.max(case.stored), &mut report);
        }
    }
    report.finish();
}

#[test]
fn logits_and_continuations_equal_those_of_peft() {
    let mut report = Report::default();
    for (backend, bound) in BACKENDS {
        for case in CASES {
            let goldens = Goldens::read(case.goldens);
            let model = Model::load(backend, open(case.base), pages_for(&goldens));
            let adapter = model.adapter(case.adapter.iter().map(|file| source(file)).collect());
            model.with(adapter, 1.0);
            let name = format!("{backend}, {} on {}", case.adapter.last().unwrap(), case.base.last().unwrap());
            check_logits(&*model.backend, &name, &goldens, bound.max(case.stored), &mut report);
            check_greedy(&*model.backend, &name, &goldens, 0.01, &mut report);
        }
    }
    report.finish();
}
