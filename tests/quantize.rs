//! Models whose matrices are quantised while they are loaded, against the same matrices quantised by llama.cpp, and against
//! what the reference computes with floats.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by failing")]

mod common;

use common::{Goldens, Report, check_logits, nmse, open, pages_for};
use headwater::cpu::Cpu;
use headwater::error::ErrorKind;
use headwater::gpu::{Device, Gpu};
use headwater::graph::{Backend, KvFormat, Row, Step};
use headwater::model::{Plan, PlanOptions, WeightSink, plan_with, read_weights};
use headwater::quant::{ENCODERS, FormatId};
use pollster::block_on;

const LLAMA: &[&str] = &["tests/data/models/llama3/config.json", "tests/data/models/llama3/model.safetensors"];
/// An f16 file, and its twins that llama.cpp quantised.
const F16: &[&str] = &["tests/data/gguf/llama3-F16.gguf"];
const TWINS: &[(&str, &[&str])] =
    &[("q8_0", &["tests/data/gguf/llama3-Q8_0.gguf"]), ("q4_0", &["tests/data/gguf/llama3-Q4_0.gguf"])];

fn quantize(name: &str) -> PlanOptions {
    PlanOptions { quantize: Some(name.to_owned()), ..PlanOptions::default() }
}

fn load<B: WeightSink>(files: &[&str], options: &PlanOptions, make: impl FnOnce(&Plan) -> B) -> (Plan, B) {
    let checkpoint = open(files);
    let plan = plan_with(&checkpoint, options).unwrap();
    let mut backend = make(&plan);
    let (mut last, mut steps) = (0, 0);
    block_on(read_weights(&checkpoint, &plan, &mut backend, &mut |done, total| {
        assert!(last <= done && done <= total && total == plan.weight_bytes());
        (last, steps) = (done, steps + 1);
        Ok(())
    }))
    .unwrap();
    assert!(last == plan.weight_bytes() && steps > 10);
    (plan, backend)
}

/// Writes down what arrives.
#[derive(Default)]
struct Arrived(Vec<(usize, Vec<u8>)>);

impl WeightSink for Arrived {
    fn rows(&mut self, weight: headwater::graph::WeightId, _: usize, bytes: &[u8]) -> headwater::error::Result<()> {
        self.0.push((weight.0, bytes.to_vec()));
        Ok(())
    }
}

#[test]
fn blocks_are_those_that_llama_cpp_makes_of_the_same_weights() {
    for (name, files) in TWINS {
        let (plan, found) = load(F16, &quantize(name), |_| Arrived::default());
        let (theirs, expected) = load(files, &PlanOptions::default(), |_| Arrived::default());
        let mut compared = 0;
        for (index, bytes) in &found.0 {
            // llama.cpp keeps other matrices at other types than we do.
            if plan.formats[*index] == theirs.formats[*index] && plan.formats[*index] != FormatId::F32 {
                let (_, expected) = expected.0.iter().find(|(other, _)| other == index).unwrap();
                assert_eq!(bytes, expected, "{name}: {}", plan.graph.weights[*index].name);
                compared += 1;
            }
        }
        assert!(compared >= 12, "{name}: {compared} matrices");
    }
}

#[test]
fn models_stay_near_the_reference() {
    // What so many bits cost in this small model, and some more.
    let bounds = [("q8_0", 1e-3), ("q6_k", 1e-3), ("q5_1", 0.06), ("q5_0", 0.08), ("q5_k", 0.06), ("q4_1", 0.25)];
    let mut report = Report::default();
    for (name, bound) in bounds.into_iter().chain([("q4_0", 0.25), ("q4_k", 0.08)]) {
        let goldens = Goldens::read("tests/data/models/llama3/goldens");
        let (_, cpu) = load(LLAMA, &quantize(name), |plan| Cpu::new(plan, KvFormat::F32, pages_for(&goldens)).unwrap());
        check_logits(&cpu, &format!("llama3 as {name}"), &goldens, bound, &mut report);
    }
    report.finish();
}

fn logits(backend: &dyn Backend) -> Vec<f32> {
    let rows: Vec<Row> =
        (0..20).map(|position| Row { token: position * 7 + 3, position, sequence: 0, segment: 0 }).collect();
    let outputs: Vec<u32> = (0..20).collect();
    block_on(backend.forward(&Step { rows: &rows, pages: &[vec![0]], states: &[], outputs: &outputs })).unwrap()
}

#[test]
fn the_gpu_computes_what_the_interpreter_does() {
    let device = block_on(Device::of_thread()).expect("an adapter; software Vulkan will do");
    for (format, _) in ENCODERS {
        let options = quantize(format.format().name);
        let (_, cpu) = load(LLAMA, &options, |plan| Cpu::new(plan, KvFormat::F32, 1).unwrap());
        let (_, gpu) = load(LLAMA, &options, |plan| block_on(Gpu::new(&device, plan, KvFormat::F32, 1)).unwrap());
        let error = nmse(&logits(&gpu), &logits(&cpu));
        assert!(error <= 1e-10, "{format:?}: {error:.1e}");
    }
}

#[test]
fn a_quantised_source_and_an_unknown_format_are_refused() {
    for (files, name, words) in [
        (TWINS[0].1, "q4_k", "is stored as q8_0; only floats are quantised"),
        (F16, "iq2_xs", "\"iq2_xs\" is none of q8_0"),
    ] {
        let error = plan_with(&open(files), &quantize(name)).unwrap_err();
        assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "quantize"));
        assert!(error.message().contains(words), "{error}");
    }
}
