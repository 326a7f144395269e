//! Encoders, embeddings and rankings against the references, on the CPU and on the GPU.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::encoders::{ENCODERS, Encoder, PAGES, RERANKER, check_hidden, check_scores, files};
use common::{Figures, Report, open};
use headwater::cpu::Cpu;
use headwater::error::ErrorKind;
use headwater::format::{Checkpoint, Dialect, Value};
use headwater::gpu::{Device, DeviceOptions, Gpu};
use headwater::graph::{Backend, KvFormat};
use headwater::model::{plan, read_weights};
use pollster::block_on;

/// What the references' own rounding leaves, squared and relative.
const CPU_NMSE: f64 = 1e-11;
/// Other orders of additions.
const GPU_NMSE: f64 = 1e-10;
/// The logits have a size of about one; the reference differs from itself in double precision by 1e-6.
const LOGIT: f32 = 1e-5;

fn checkpoint(name: &str, config: &str) -> Checkpoint {
    let files = files(name, config);
    open(&files.iter().map(String::as_str).collect::<Vec<_>>())
}

fn cpu(name: &str) -> Cpu {
    cpu_of(&checkpoint(name, "config.json"))
}

fn cpu_of(checkpoint: &Checkpoint) -> Cpu {
    let plan = plan(checkpoint).unwrap_or_else(|error| panic!("{}: {error}", checkpoint.metadata.architecture));
    let mut cpu = Cpu::new(&plan, KvFormat::F32, PAGES).unwrap();
    block_on(read_weights(checkpoint, &plan, &mut cpu, &mut |_, _| Ok(()))).unwrap();
    cpu
}

fn gpu(name: &str) -> Gpu {
    let device = block_on(Device::open(DeviceOptions::default())).expect("an adapter; software Vulkan will do");
    let checkpoint = checkpoint(name, "config.json");
    let plan = plan(&checkpoint).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut gpu = block_on(Gpu::new(&device, &plan, KvFormat::F32, PAGES)).unwrap();
    block_on(read_weights(&checkpoint, &plan, &mut gpu, &mut |_, _| Ok(()))).unwrap();
    gpu
}

fn add(figures: &mut Figures, name: &str, nmse: f64) {
    let plan = plan(&checkpoint(name, "config.json")).unwrap();
    figures.add_encoder(name, "model.safetensors", &plan, nmse);
}

#[test]
fn hidden_states_and_scores_on_the_cpu_equal_the_goldens() {
    let mut report = Report::default();
    let mut figures = Figures::new("encoders-cpu");
    for encoder in ENCODERS {
        let worst = check_hidden(&cpu(encoder.name), encoder, (CPU_NMSE, 0.0), &mut report);
        add(&mut figures, encoder.name, worst);
    }
    let worst = check_scores(&cpu(RERANKER), LOGIT, &mut report);
    add(&mut figures, RERANKER, worst);
    figures.write();
    report.finish();
}

#[test]
fn hidden_states_and_scores_on_the_gpu_equal_the_goldens() {
    let mut report = Report::default();
    let mut figures = Figures::new("encoders-gpu");
    for encoder in ENCODERS {
        let worst = check_hidden(&gpu(encoder.name), encoder, (GPU_NMSE, 1e-12), &mut report);
        add(&mut figures, encoder.name, worst);
    }
    let worst = check_scores(&gpu(RERANKER), LOGIT, &mut report);
    add(&mut figures, RERANKER, worst);
    figures.write();
    report.finish();
}

#[test]
fn both_layouts_of_a_configuration_give_the_same_model() {
    for name in ENCODERS.iter().map(|encoder| encoder.name).chain([RERANKER]) {
        let plan = |config: &str| plan(&checkpoint(name, config)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (hub, newer) = (plan("config.json"), plan("config.v5.json"));
        assert_eq!(hub.hyper, newer.hyper, "{name}");
        assert_eq!(hub.graph, newer.graph, "{name}");
        assert_eq!(hub.embedding, newer.embedding, "{name}");
    }
}

#[test]
fn layers_of_an_encoder_share_their_pages() {
    let plan = plan(&checkpoint("modernbert", "config.json")).unwrap();
    assert_eq!((plan.hyper.n_layers, plan.graph.kv_widths.len()), (4, 1));
    assert_eq!(cpu("modernbert").max_rows(), PAGES * 32);
}

/// Gives every tensor the name that the first fitting line makes of it.
fn rename(checkpoint: &mut Checkpoint, lines: &[(&str, &str)]) {
    for tensor in &mut checkpoint.tensors {
        for (from, to) in lines {
            if tensor.name.contains(from) {
                tensor.name = tensor.name.replace(from, to);
            }
        }
    }
}

/// The same weights as a GGUF file names and describes them, as llama.cpp's converter does it.
fn as_gguf(name: &str, architecture: &str, lines: &[(&str, &str)], more: &[(&str, Value)]) -> Checkpoint {
    let mut checkpoint = checkpoint(name, "config.json");
    let metadata = &mut checkpoint.metadata;
    let keys = [
        ("hidden_size", "embedding_length"),
        ("num_hidden_layers", "block_count"),
        ("num_attention_heads", "attention.head_count"),
        ("intermediate_size", "feed_forward_length"),
        ("max_position_embeddings", "context_length"),
        ("layer_norm_eps", "attention.layer_norm_epsilon"),
        ("rope_theta", "rope.freq_base"),
    ];
    let values = keys
        .iter()
        .filter_map(|(hub, gguf)| Some((format!("{architecture}.{gguf}"), metadata.values.get(*hub)?.clone())));
    let mut values: std::collections::BTreeMap<String, Value> = values.collect();
    values.insert(format!("{architecture}.attention.causal"), Value::Bool(false));
    values.extend(more.iter().map(|(key, value)| (format!("{architecture}.{key}"), value.clone())));
    metadata.values = values;
    metadata.companions.clear();
    metadata.dialect = Dialect::Gguf;
    metadata.architecture = architecture.into();
    rename(&mut checkpoint, lines);
    for tensor in &mut checkpoint.tensors {
        // GGUF cannot tell a matrix of one row from a vector.
        if tensor.shape.len() > 1 && tensor.shape[0] == 1 {
            tensor.shape.remove(0);
        }
    }
    checkpoint
}

#[test]
fn nomic_bert_and_judges_as_gguf_files_describe_them() {
    let mut report = Report::default();
    let nomic = [
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("emb_ln", "token_embd_norm"),
        ("encoder.layers.", "blk."),
        ("attn.Wqkv", "attn_qkv"),
        ("attn.out_proj", "attn_output"),
        ("norm1", "attn_output_norm"),
        ("norm2", "layer_output_norm"),
        ("mlp.fc11", "ffn_up"),
        ("mlp.fc12", "ffn_gate"),
        ("mlp.fc2", "ffn_down"),
    ];
    let checkpoint = as_gguf("nomic-bert", "nomic-bert", &nomic, &[("pooling_type", Value::Integer(1))]);
    let encoder = Encoder { name: "nomic-bert", pooling: "mean" };
    assert_eq!(plan(&checkpoint).unwrap().embedding.pooling.name(), encoder.pooling);
    check_hidden(&cpu_of(&checkpoint), &encoder, (CPU_NMSE, 0.0), &mut report);

    let bert = [
        ("bert.", ""),
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.position_embeddings", "position_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("embeddings.LayerNorm", "token_embd_norm"),
        ("encoder.layer.", "blk."),
        ("attention.self.query", "attn_q"),
        ("attention.self.key", "attn_k"),
        ("attention.self.value", "attn_v"),
        ("attention.output.dense", "attn_output"),
        ("attention.output.LayerNorm", "attn_output_norm"),
        ("intermediate.dense", "ffn_up"),
        ("output.dense", "ffn_down"),
        ("output.LayerNorm", "layer_output_norm"),
        ("pooler.dense", "cls"),
        ("classifier", "cls.output"),
    ];
    let checkpoint = as_gguf(RERANKER, "bert", &bert, &[("pooling_type", Value::Integer(4))]);
    check_scores(&cpu_of(&checkpoint), LOGIT, &mut report);
    report.finish();
}

/// XLM-RoBERTa's class has its head under other names, and a table of positions that begins later.
#[test]
fn a_judge_of_the_class_of_xlm_roberta() {
    let mut checkpoint = checkpoint(RERANKER, "config.json");
    let lines = [("classifier.", "classifier.out_proj."), ("bert.pooler.", "classifier."), ("bert.", "roberta.")];
    rename(&mut checkpoint, &lines);
    let metadata = &mut checkpoint.metadata;
    metadata.architecture = "xlm-roberta".into();
    let positions = checkpoint.tensors.iter_mut().find(|tensor| tensor.name.contains("position_embeddings")).unwrap();
    // One row more in front: whatever lies there stands for no position.
    let row_bytes = positions.size_bytes / 128;
    positions.shape[0] += 1;
    positions.offset -= row_bytes;
    positions.size_bytes += row_bytes;
    for (key, value) in [
        ("model_type", Value::Text("xlm-roberta".into())),
        ("architectures", Value::Texts(vec!["XLMRobertaForSequenceClassification".into()])),
        ("pad_token_id", Value::Integer(0)),
        ("max_position_embeddings", Value::Integer(129)),
    ] {
        metadata.values.insert(key.into(), value);
    }
    let mut report = Report::default();
    check_scores(&cpu_of(&checkpoint), LOGIT, &mut report);
    report.finish();
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let text = |text: &str| Value::Text(text.into());
    let cases = [
        ("bert-minilm", "hidden_act", text("relu"), ErrorKind::UnsupportedFormat),
        ("bert-minilm", "position_embedding_type", text("relative_key"), ErrorKind::UnsupportedFormat),
        ("bert-minilm", "is_decoder", Value::Bool(true), ErrorKind::UnsupportedFormat),
        ("bert-minilm", "type_vocab_size", Value::Integer(3), ErrorKind::MalformedModel),
        ("bert-minilm", "max_position_embeddings", Value::Integer(64), ErrorKind::MalformedModel),
        (RERANKER, "sbert_ce_default_activation_function", text("torch.nn.Softmax"), ErrorKind::UnsupportedFormat),
        ("modernbert", "layer_types", Value::Texts(vec!["full_attention".into()]), ErrorKind::MalformedModel),
        ("nomic-bert", "rotary_emb_interleaved", Value::Bool(true), ErrorKind::UnsupportedFormat),
        ("nomic-bert", "rotary_emb_fraction", Value::Number(0.5), ErrorKind::UnsupportedFormat),
        ("xlm-roberta", "pad_token_id", Value::Integer(500), ErrorKind::MalformedModel),
    ];
    for (name, key, value, kind) in cases {
        let mut checkpoint = checkpoint(name, "config.json");
        checkpoint.metadata.values.insert(key.into(), value);
        let error = plan(&checkpoint).err().unwrap_or_else(|| panic!("{name}: {key} is taken"));
        assert_eq!(error.kind(), kind, "{name}, {key}: {error}");
    }
    let mut checkpoint = checkpoint(RERANKER, "config.json");
    let named = Value::Texts(vec!["BertForTokenClassification".into()]);
    checkpoint.metadata.values.insert("architectures".into(), named);
    assert!(plan(&checkpoint).unwrap_err().to_string().contains("BertForTokenClassification"));

    let pooling = |config: &str| {
        let mut checkpoint = self::checkpoint("bert-minilm", "config.json");
        checkpoint.metadata.companions.insert("1_Pooling/config.json".into(), config.into());
        plan(&checkpoint).map(|plan| plan.embedding.pooling.name())
    };
    assert_eq!(pooling(r#"{"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": false}"#).unwrap(), "last");
    assert_eq!(pooling(r#"{"pooling_mode": "cls"}"#).unwrap(), "cls");
    for (config, kind, words) in [
        (r#"{"pooling_mode_max_tokens": true}"#, ErrorKind::UnsupportedFormat, "pooling_mode_max_tokens"),
        (
            r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#,
            ErrorKind::UnsupportedFormat,
            "together with",
        ),
        (r#"{"pooling_mode": "weightedmean"}"#, ErrorKind::UnsupportedFormat, "weightedmean"),
        ("{}", ErrorKind::MalformedModel, "no way of pooling"),
        ("[]", ErrorKind::MalformedModel, "1_Pooling/config.json"),
    ] {
        let error = pooling(config).unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(words), "{config}: {error}");
    }
    let mut dense = self::checkpoint("bert-minilm", "config.json");
    let modules = r#"[{"path": "", "type": "a.Transformer"}, {"path": "2_Dense", "type": "a.models.Dense"}]"#;
    dense.metadata.companions.insert("modules.json".into(), modules.into());
    assert!(plan(&dense).unwrap_err().to_string().contains("Dense"));
}
