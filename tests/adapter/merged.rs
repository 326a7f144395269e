//! A model with an adapter against the same model with the change in its weights, on quantised and fused bases; several
//! adapters beside one another; what a token costs.

use headwater::error::ErrorKind;
use headwater::format::{Checkpoint, Dialect};
use headwater::graph::{AdapterUse, Counters, Decode, Delta, SamplerSettings, StateSlots, WeightId};
use headwater::model::plan_adapter;
use headwater::quant::FormatId;
use pollster::block_on;
use serde_json::{Value as Json, json};

use super::common::{Report, Sequence, nmse, open};
use super::made::{Pair, adapter, merged};
use super::{BACKENDS, Model};

const PAGES: usize = 4;

/// Both sides round, in different places; q4_0 and its like have the same weights on both.
const NMSE: f64 = 1e-10;

/// A base, and an adapter made for it.
struct Case {
    name: &'static str,
    base: &'static [&'static str],
    dialect: Dialect,
    pairs: Vec<Pair>,
    format: FormatId,
    config: Json,
}

const LLAMA_Q4: &[&str] = &["tests/data/gguf/llama3-Q4_0.gguf"];
const KQ: &[&str] = &["tests/data/gguf/kq-llama-Q4_K_M.gguf"];
const PHI3: &[&str] = &["tests/data/models/phi3/config.json", "tests/data/models/phi3/model.safetensors"];
const PHI3_Q8: &[&str] = &["tests/data/gguf/phi3-g-Q8_0.gguf"];
const BIASED: &[&str] = &["tests/data/models/llama-bias/config.json", "tests/data/models/llama-bias/model.safetensors"];
const TIED: &[&str] = &["tests/data/models/smollm2/config.json", "tests/data/models/smollm2/model.safetensors"];
const GEMMA2: &[&str] = &["tests/data/models/gemma2/config.json", "tests/data/models/gemma2/model.safetensors"];

fn cases() -> Vec<Case> {
    let pair = Pair::new;
    let permuted = |pair: Pair, head| Pair { permuted: Some(head), ..pair };
    let slice = |pair: Pair, rows| Pair { rows, ..pair };
    let dora = |pair: Pair| Pair { dora: true, ..pair };
    vec![
        Case {
            name: "all of a quantised layer, by names and rows of the hub",
            base: LLAMA_Q4,
            dialect: Dialect::Hub,
            pairs: vec![
                permuted(pair("model.layers.0.self_attn.q_proj", "blk.0.attn_q.weight", (64, 64), 3, 2.0), 16),
                permuted(pair("model.layers.0.self_attn.k_proj", "blk.0.attn_k.weight", (32, 64), 3, 2.0), 16),
                pair("model.layers.0.self_attn.v_proj", "blk.0.attn_v.weight", (32, 64), 3, 2.0),
                pair("model.layers.0.self_attn.o_proj", "blk.0.attn_output.weight", (64, 64), 3, 2.0),
                pair("model.layers.0.mlp.gate_proj", "blk.0.ffn_gate.weight", (160, 64), 3, 2.0),
                pair("model.layers.0.mlp.up_proj", "blk.0.ffn_up.weight", (160, 64), 3, 2.0),
                pair("model.layers.0.mlp.down_proj", "blk.0.ffn_down.weight", (64, 160), 3, 2.0),
                pair("lm_head", "output.weight", (640, 64), 3, 2.0),
            ],
            format: FormatId::F16,
            config: json!({ "r": 3, "lora_alpha": 6 }),
        },
        Case {
            name: "the largest rank, by names and rows of GGUF",
            base: KQ,
            dialect: Dialect::Gguf,
            pairs: vec![
                pair("blk.0.attn_q.weight", "blk.0.attn_q.weight", (256, 256), 256, 0.25),
                pair("blk.0.ffn_up.weight", "blk.0.ffn_up.weight", (256, 256), 256, 0.25),
                pair("blk.0.ffn_down.weight", "blk.0.ffn_down.weight", (256, 256), 256, 0.25),
            ],
            format: FormatId::Bf16,
            config: json!(64.0),
        },
        Case {
            name: "one row, one matrix",
            base: KQ,
            dialect: Dialect::Gguf,
            pairs: vec![pair("blk.0.ffn_gate.weight", "blk.0.ffn_gate.weight", (256, 256), 1, 8.0)],
            format: FormatId::F32,
            config: json!(8.0),
        },
        Case {
            name: "ranks and factors that differ within a joined matrix",
            base: LLAMA_Q4,
            dialect: Dialect::Hub,
            pairs: vec![
                permuted(pair("model.layers.1.self_attn.q_proj", "blk.1.attn_q.weight", (64, 64), 16, 0.5), 16),
                permuted(pair("model.layers.1.self_attn.k_proj", "blk.1.attn_k.weight", (32, 64), 5, 1.6), 16),
                pair("model.layers.1.mlp.gate_proj", "blk.1.ffn_gate.weight", (160, 64), 16, 0.5),
                pair("model.layers.1.mlp.up_proj", "blk.1.ffn_up.weight", (160, 64), 2, 16.0),
            ],
            format: FormatId::F16,
            config: json!({
                "r": 16, "lora_alpha": 8,
                "rank_pattern": { "k_proj": 5, "up_proj": 2 }, "alpha_pattern": { "up_proj": 32 },
            }),
        },
        Case {
            name: "fused tensors as a whole",
            base: PHI3,
            dialect: Dialect::Hub,
            pairs: vec![
                pair(
                    "model.layers.0.self_attn.qkv_proj",
                    "model.layers.0.self_attn.qkv_proj.weight",
                    (192, 64),
                    8,
                    1.0,
                ),
                pair("model.layers.1.mlp.gate_up_proj", "model.layers.1.mlp.gate_up_proj.weight", (288, 64), 8, 1.0),
            ],
            format: FormatId::F32,
            config: json!({ "r": 8, "lora_alpha": 8 }),
        },
        Case {
            name: "a part of a fused and quantised tensor",
            base: PHI3_Q8,
            dialect: Dialect::Hub,
            pairs: vec![
                slice(pair("model.layers.0.self_attn.k_proj", "blk.0.attn_qkv.weight", (64, 64), 4, 2.0), 64..128),
                pair("model.layers.0.mlp.gate_up_proj", "blk.0.ffn_up.weight", (288, 64), 4, 2.0),
            ],
            format: FormatId::F32,
            config: json!({ "r": 4, "lora_alpha": 8 }),
        },
        Case {
            name: "lengths of rows, beside biases",
            base: BIASED,
            dialect: Dialect::Hub,
            pairs: [
                ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj.weight", (64, 64)),
                ("model.layers.0.self_attn.v_proj", "model.layers.0.self_attn.v_proj.weight", (16, 64)),
                ("model.layers.0.self_attn.o_proj", "model.layers.0.self_attn.o_proj.weight", (64, 64)),
                ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.gate_proj.weight", (128, 64)),
                ("model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj.weight", (128, 64)),
                ("model.layers.0.mlp.down_proj", "model.layers.0.mlp.down_proj.weight", (64, 128)),
            ]
            .map(|(target, tensor, shape)| dora(pair(target, tensor, shape, 4, 0.5)))
            .into(),
            format: FormatId::F32,
            config: json!({ "r": 4, "lora_alpha": 1, "use_rslora": true, "use_dora": true }),
        },
        Case {
            name: "lengths of rows, permuted and quantised, in a gated unit without biases",
            base: LLAMA_Q4,
            dialect: Dialect::Hub,
            pairs: vec![
                dora(permuted(pair("model.layers.0.self_attn.k_proj", "blk.0.attn_k.weight", (32, 64), 4, 2.0), 16)),
                dora(pair("model.layers.0.mlp.up_proj", "blk.0.ffn_up.weight", (160, 64), 4, 2.0)),
            ],
            format: FormatId::F32,
            config: json!({ "r": 4, "lora_alpha": 8, "use_dora": true }),
        },
        Case {
            name: "norms after the blocks, another activation",
            base: GEMMA2,
            dialect: Dialect::Hub,
            pairs: vec![
                pair("model.layers.1.mlp.gate_proj", "model.layers.1.mlp.gate_proj.weight", (128, 64), 8, 2.0),
                pair("model.layers.0.self_attn.o_proj", "model.layers.0.self_attn.o_proj.weight", (64, 128), 8, 2.0),
            ],
            format: FormatId::F32,
            config: json!({ "r": 8, "lora_alpha": 16 }),
        },
    ]
}

fn tokens(count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 37 + 11) % 600).collect()
}

/// All logits of a prompt in one chunk and of a few ids after it one by one.
fn logits(model: &Model) -> Vec<f32> {
    let mut sequence = Sequence::new(&*model.backend);
    let mut logits = sequence.all_logits(&tokens(21), 21);
    logits.extend(sequence.all_logits(&tokens(24)[21..], 1));
    logits
}

/// Ids of a reply: these go through the decode program.
fn reply(model: &Model) -> Vec<u32> {
    let chain = model.backend.decode_chain();
    Sequence::new(&*model.backend).reply(&SamplerSettings::default(), &tokens(9), 20, chain)
}

#[test]
fn an_adapter_equals_its_model_merged() {
    let mut report = Report::default();
    for case in cases() {
        let made = || adapter(case.dialect, &case.pairs, case.format, &case.config);
        for scale in [1.0, -0.5] {
            let whole = Model::load("cpu", merged(open(case.base), &case.pairs, case.format, scale), PAGES);
            let (expected, ids) = (logits(&whole), reply(&whole));
            let plain = logits(&Model::load("cpu", open(case.base), PAGES));
            assert!(nmse(&plain, &expected) > 1e-5, "{}: the change is too small to be seen", case.name);
            for (backend, _) in BACKENDS {
                let model = Model::load(backend, open(case.base), PAGES);
                let id = model.loaded(&made());
                model.with(id, scale);
                let what = format!("{backend}, {}, scale {scale}", case.name);
                report.at_most(format!("{what}, logits, NMSE"), nmse(&logits(&model), &expected), NMSE);
                report.same_ids(format!("{what}, greedy"), &reply(&model), &ids);
            }
        }
    }
    report.finish();
}

#[test]
fn an_adapter_of_a_tied_head_changes_what_it_multiplies_alone() {
    // With the head untied, the merged model is plain to make.
    let untied = || {
        let mut untied = open(TIED);
        let head = headwater::format::TensorInfo {
            name: "lm_head.weight".into(),
            ..untied.tensor("model.embed_tokens.weight").unwrap().clone()
        };
        untied.tensors.push(head);
        untied.metadata.values.insert("tie_word_embeddings".into(), headwater::format::Value::Bool(false));
        untied
    };
    let pairs = [Pair::new("lm_head", "lm_head.weight", (642, 64), 6, 1.0)];
    let made = adapter(Dialect::Hub, &pairs, FormatId::F32, &json!({ "r": 6, "lora_alpha": 6 }));
    let expected = logits(&Model::load("cpu", merged(untied(), &pairs, FormatId::F32, 1.0), PAGES));
    for (backend, _) in BACKENDS {
        let model = Model::load(backend, open(TIED), PAGES);
        let id = model.loaded(&made);
        model.with(id, 1.0);
        let found = nmse(&logits(&model), &expected);
        assert!(found <= NMSE, "{backend}: {found:.1e}");
    }
}

/// Two adapters of one base.
fn two() -> [Checkpoint; 2] {
    let gate = [Pair::new("blk.0.ffn_gate.weight", "", (256, 256), 4, 1.0)];
    let all = [
        Pair::new("blk.0.attn_v.weight", "", (64, 256), 12, 1.0),
        Pair::new("blk.0.attn_output.weight", "", (256, 256), 12, 1.0),
    ];
    [
        adapter(Dialect::Gguf, &gate, FormatId::F32, &json!(4.0)),
        adapter(Dialect::Gguf, &all, FormatId::F16, &json!(12.0)),
    ]
}

#[test]
fn several_are_resident_and_none_leaves_a_trace() {
    let [first, second] = two();
    for (backend, _) in BACKENDS {
        let model = Model::load(backend, open(KQ), PAGES);
        let plain = (logits(&model), reply(&model));
        let alone = [&first, &second].map(|adapter| {
            let model = Model::load(backend, open(KQ), PAGES);
            let id = model.loaded(adapter);
            model.with(id, 0.75);
            (logits(&model), reply(&model))
        });
        assert!(nmse(&alone[0].0, &alone[1].0) > 1e-5 && nmse(&alone[0].0, &plain.0) > 1e-5, "{backend}");

        let ids = [&first, &second].map(|adapter| model.loaded(adapter));
        assert_ne!(ids[0], ids[1]);
        let seen = || (logits(&model), reply(&model));
        assert!(seen() == plain, "{backend}: loading changed the model");
        for (at, scale) in [(0, 0.75), (1, 0.75), (0, 2.0), (0, 0.75)] {
            model.with(ids[at], scale);
            assert!((seen() == alone[at]) == (scale == 0.75), "{backend}: adapter {at} at {scale}");
        }
        model.with(ids[1], 0.0);
        assert_eq!(reply(&model), plain.1, "{backend}: nothing of an adapter is the model");
        assert!(nmse(&logits(&model), &plain.0) <= 1e-12, "{backend}");
        model.without();
        assert!(seen() == plain, "{backend}: an adapter left a trace");

        model.with(ids[1], 0.75);
        model.backend.remove_adapter(ids[1]).unwrap();
        assert!(seen() == plain, "{backend}: what was removed is in use");
        for error in [
            model.backend.remove_adapter(ids[1]).err(),
            model.backend.use_adapter(Some(AdapterUse { id: ids[1], scale: 1.0 })).err(),
        ] {
            assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::NotFound), "{backend}");
        }
        model.with(ids[0], 0.75);
        assert!(seen() == alone[0], "{backend}: another was removed");
        let again = model.loaded(&second);
        assert!(!ids.contains(&again), "{backend}: an id was given twice");
    }
}

#[test]
fn what_was_not_filled_is_not_used() {
    let [first, _] = two();
    for (backend, _) in BACKENDS {
        let model = Model::load(backend, open(KQ), PAGES);
        let deltas = plan_adapter(&model.plan, &first).unwrap().deltas;
        let id = block_on(model.backend.add_adapter(&deltas)).unwrap();
        let error = model.backend.use_adapter(Some(AdapterUse { id, scale: 1.0 })).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Internal, "{backend}: {error}");
        let foreign = [Delta { weight: WeightId(9999), ..deltas[0].clone() }];
        assert!(block_on(model.backend.add_adapter(&foreign)).is_err(), "{backend}");
    }
}

/// What decoding one id costs, over four chains.
fn spent(model: &Model) -> (u64, Counters, Counters) {
    let prompt = tokens(9);
    let chain = model.backend.decode_chain();
    Sequence::new(&*model.backend).reply(&SamplerSettings::default(), &prompt, 1 + chain as usize, chain);
    let before = model.backend.counters();
    let pages: Vec<u32> = (0..PAGES as u32).rev().collect();
    let mut ids = 0;
    for index in 1..5 {
        let position = 9 + index * chain;
        let decode = Decode {
            token: None,
            position,
            count: chain,
            pages: &pages,
            states: StateSlots::default(),
            index: index * chain,
        };
        let ticket = model.backend.decode(&decode).unwrap();
        ids += block_on(model.backend.collect(ticket)).unwrap().len() as u64;
    }
    (ids, before, model.backend.counters())
}

#[test]
fn a_token_with_an_adapter_makes_nothing() {
    let model = Model::load("gpu", open(LLAMA_Q4), PAGES);
    let (ids, before, after) = spent(&model);
    let plain = (after.dispatches - before.dispatches) / ids;
    let case = cases().swap_remove(0);
    let before = model.backend.counters();
    let id = model.loaded(&adapter(case.dialect, &case.pairs, case.format, &case.config));
    let loaded = model.backend.counters();
    assert!(loaded.buffers > before.buffers);
    let still = spent(&model);
    assert_eq!((still.2.dispatches - still.1.dispatches) / still.0, plain, "without it nothing changes");
    for scale in [1.0, 0.5] {
        model.with(id, scale);
        let (ids, before, after) = spent(&model);
        let made = |c: &Counters| c.buffers + c.bind_groups + c.pipelines;
        assert_eq!(made(&after), made(&before), "scale {scale}");
        assert_eq!(after.submits - before.submits, 4);
        assert_eq!(after.writes - before.writes, 4);
        // An A and a B at queries, keys and values (in one), output, gate and up (in one), down, and a gated unit of its
        // own in the one layer; an A and a B at the head.
        assert_eq!((after.dispatches - before.dispatches) / ids, plain + 4 * 2 + 1 + 2, "scale {scale}");
        // Whatever the adapter needs was made when it was loaded.
        assert_eq!(made(&after), made(&loaded));
    }
}
