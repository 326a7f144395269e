//! Matrices whose columns stand in orders of their own compute what they do in place, on both backends: dense ones, and
//! those of experts with one order each. What shares an input and an order is gathered once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::orders::{Sharing, reordered};
use common::{Goldens, Report, check_chunks, check_greedy, check_logits, open, pages_for};
use headwater::cpu::Cpu;
use headwater::error::ErrorKind;
use headwater::gpu::{Device, Gpu};
use headwater::graph::{Backend, Decode, KvFormat, Op, SamplerSettings, StateSlots};
use headwater::model::{WeightSink, plan, read_weights};
use pollster::block_on;

/// A model, and how many values of a layer are gathered where widths share orders, and where nothing is shared.
const MODELS: &[(&[&str], &str, [usize; 2])] = &[
    (
        &["tests/data/models/llama3/config.json", "tests/data/models/llama3/model.safetensors"],
        "tests/data/models/llama3/goldens",
        [4, 7],
    ),
    // Norms of queries and keys; a product that is added in place.
    (
        &["tests/data/models/qwen3/config.json", "tests/data/models/qwen3/model.safetensors"],
        "tests/data/models/qwen3/goldens",
        [4, 7],
    ),
    // The router's matrix is one more, of a width that gate and up have too.
    (
        &["tests/data/models/qwen3moe/config.json", "tests/data/models/qwen3moe/model.safetensors"],
        "tests/data/models/qwen3moe/goldens",
        [4, 8],
    ),
    (
        &["tests/data/models/mixtral/config.json", "tests/data/models/mixtral/model.safetensors"],
        "tests/data/models/mixtral/goldens",
        [4, 8],
    ),
];

fn check<B: Backend + WeightSink>(
    name: &str,
    model: &headwater::format::Checkpoint,
    goldens: &Goldens,
    bound: f64,
    report: &mut Report,
    make: impl FnOnce(&headwater::model::Plan) -> B,
) {
    let plan = plan(model).unwrap();
    let mut backend = make(&plan);
    block_on(read_weights(model, &plan, &mut backend, &mut |_, _| Ok(()))).unwrap();
    check_logits(&backend, name, goldens, bound, report);
    check_greedy(&backend, name, goldens, 0.01, report);
    check_chunks(&backend, name, goldens, bound, report);
}

#[test]
fn orders_of_columns_change_nothing() {
    let device = block_on(Device::of_thread()).expect("an adapter; software Vulkan will do");
    let mut report = Report::default();
    for (files, goldens, gathers) in MODELS {
        let goldens = Goldens::read(goldens);
        for (sharing, gathers) in [Sharing::Widths, Sharing::Nothing].into_iter().zip(gathers) {
            let model = reordered(&open(files), sharing);
            let graph = plan(&model).unwrap().graph;
            let n_layers = graph.kv_widths.len();
            let found = graph.nodes.iter().filter(|node| matches!(node.op, Op::Gather { .. })).count();
            // The output's matrix has one too.
            let head = usize::from(model.tensors.iter().any(|tensor| tensor.name == "lm_head.weight"));
            assert_eq!(found, gathers * n_layers + head, "{files:?} {sharing:?}");
            let pages = pages_for(&goldens);
            let name = |backend: &str| format!("{backend}, {}, {sharing:?}", files[0]);
            check(&name("cpu"), &model, &goldens, 1e-11, &mut report, |plan| {
                Cpu::new(plan, KvFormat::F32, pages).unwrap()
            });
            check(&name("gpu"), &model, &goldens, 1e-10, &mut report, |plan| {
                block_on(Gpu::new(&device, plan, KvFormat::F32, pages)).unwrap()
            });
        }
    }
    report.finish();
}

/// Dispatches of a decoded token.
fn dispatches(model: &headwater::format::Checkpoint) -> u64 {
    let device = block_on(Device::of_thread()).expect("an adapter; software Vulkan will do");
    let plan = plan(model).unwrap();
    let mut gpu = block_on(Gpu::new(&device, &plan, KvFormat::F32, 1)).unwrap();
    block_on(read_weights(model, &plan, &mut gpu, &mut |_, _| Ok(()))).unwrap();
    gpu.start_reply(&SamplerSettings::default(), &[1], &[]).unwrap();
    let decode = Decode { token: Some(1), position: 0, count: 1, pages: &[0], states: StateSlots::default(), index: 0 };
    let before = gpu.counters().dispatches;
    block_on(gpu.collect(gpu.decode(&decode).unwrap())).unwrap();
    gpu.counters().dispatches - before
}

#[test]
fn a_gather_is_one_dispatch_and_what_shares_it_stays_joined() {
    let model = open(MODELS[0].0);
    let n_layers = plan(&model).unwrap().hyper.n_layers as u64;
    let plain = dispatches(&model);
    assert_eq!(plain, 6 * n_layers + 3);
    // In a layer four gathers, and the two norms that a gather reads; so for the output's matrix.
    assert_eq!(dispatches(&reordered(&model, Sharing::Widths)), plain + 6 * n_layers + 2);
}

#[test]
fn what_cannot_be_gathered_is_refused_by_name() {
    let mut model = reordered(&open(MODELS[3].0), Sharing::Nothing);
    let expert = "model.layers.0.block_sparse_moe.experts.1.w1.weight";
    assert!(model.orders.remove(expert).is_some());
    let error = plan(&model).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedFormat);
    assert_eq!(error.place(), "blk.0.ffn_gate_exps.weight");
    assert!(error.message().contains("some of its tensors have an order"), "{error}");

    let mut model = reordered(&open(MODELS[0].0), Sharing::Widths);
    model.orders.insert("model.embed_tokens.weight".into(), "64.order".into());
    let error = plan(&model).unwrap_err();
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::UnsupportedFormat, "token_embd.weight"));
}
