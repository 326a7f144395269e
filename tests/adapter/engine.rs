//! Adapters of an engine: by name, with a scale, one after another; what one computed is not reused by another.

use std::cell::Cell;

use headwater::engine::{AdapterChoice, BackendChoice, Engine, GenerateRequest, GenerationResult, LoadOptions};
use headwater::error::{Error, ErrorKind, Result};
use headwater::format::Checkpoint;
use pollster::block_on;

use super::common::{Goldens, nmse, open, source};

const LLAMA: &[&str] = &[
    "tests/data/models/llama3/config.json",
    "tests/data/models/llama3/model.safetensors",
    "tests/data/models/llama3/tokenizer.json",
];
const PLAIN: &[&str] =
    &["tests/data/lora/llama3-plain/adapter_config.json", "tests/data/lora/llama3-plain/adapter_model.safetensors"];
const GGUF: &[&str] = &["tests/data/lora/llama3-plain/adapter.gguf"];
const OTHER: &[&str] =
    &["tests/data/lora/qwen3-dora/adapter_config.json", "tests/data/lora/qwen3-dora/adapter_model.safetensors"];

fn engine() -> Engine {
    let environment = crate::common::environment(0);
    let options = LoadOptions { backend: BackendChoice::Cpu, exact: true, ..LoadOptions::default() };
    block_on(Engine::load(open(LLAMA), &options, environment, &mut |_| Ok(()))).unwrap()
}

fn adapter(files: &[&str]) -> Checkpoint {
    block_on(Checkpoint::open_adapter(files.iter().map(|file| source(file)).collect())).unwrap()
}

fn request(ids: &[u32], adapter: &serde_json::Value) -> GenerateRequest {
    let json =
        serde_json::json!({ "prompt": ids, "temperature": 0, "ignoreEos": true, "maxTokens": 32, "adapter": adapter });
    GenerateRequest::from_json(&json.to_string()).unwrap()
}

fn reply(engine: &Engine, ids: &[u32], adapter: &serde_json::Value) -> Result<GenerationResult> {
    block_on(engine.generate(&request(ids, adapter), &|| false, &mut |_| {}))
}

fn kind(error: Option<Error>) -> Option<(ErrorKind, String)> {
    error.map(|error| (error.kind(), error.place()))
}

#[test]
fn requests_choose_an_adapter_and_how_much_of_it() {
    let engine = engine();
    let none = serde_json::Value::Null;
    let goldens = Goldens::read("tests/data/lora/llama3-plain/goldens");
    let prompt = goldens.prompts.iter().find(|prompt| prompt.name == "mid").unwrap();
    let plain = reply(&engine, &prompt.ids, &none).unwrap();
    assert_eq!(block_on(engine.load_adapter(&adapter(PLAIN), Some("style"), &|| false)).unwrap().name, "style");
    let info = block_on(engine.load_adapter(&adapter(GGUF), None, &|| false)).unwrap();
    assert_eq!((info.name.as_str(), info.kind.as_str(), info.rank, info.matrices), ("Llama3 Plain", "lora", 4, 14));
    let listed = engine.adapters().unwrap();
    assert_eq!(listed.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["style", "Llama3 Plain"]);
    assert_eq!(listed[0].base_model.as_deref(), Some("llama3"));
    // 2 layers of A and B: q, k, v, o, gate, up, down over widths of 64, 32 and 160, rank 4; f32, and f16 half of it.
    let numbers = 2 * 4 * ((64 + 64) * 2 + (64 + 32) * 2 + (64 + 160) * 3);
    assert_eq!([listed[0].size_bytes, listed[1].size_bytes], [4 * numbers, 2 * numbers]);

    let styled = reply(&engine, &prompt.ids, &"style".into()).unwrap();
    assert_eq!((styled.tokens.as_slice(), styled.usage.cached_tokens), (prompt.greedy.as_slice(), 0));
    assert_ne!(styled.tokens, plain.tokens);
    // What the same adapter computed is there, and what the model alone did; what another did, or more or less of it, is not.
    let all_but_one = prompt.ids.len() - 1;
    for (choice, cached, ids) in [
        (serde_json::json!("style"), all_but_one, Some(&styled.tokens)),
        (serde_json::json!({ "name": "style", "scale": 1 }), all_but_one, Some(&styled.tokens)),
        (serde_json::json!({ "name": "style", "scale": 0.25 }), 0, None),
        (serde_json::json!({ "name": "style", "scale": 0.25 }), all_but_one, None),
        (serde_json::json!("Llama3 Plain"), 0, Some(&styled.tokens)),
        (serde_json::json!({ "name": "Llama3 Plain", "scale": 0 }), all_but_one, Some(&plain.tokens)),
        (serde_json::json!(null), all_but_one, Some(&plain.tokens)),
        (serde_json::json!({ "name": "style", "scale": 0 }), all_but_one, Some(&plain.tokens)),
    ] {
        let found = reply(&engine, &prompt.ids, &choice).unwrap();
        assert_eq!(found.usage.cached_tokens, cached, "{choice}");
        if let Some(ids) = ids {
            assert_eq!(&found.tokens, ids, "{choice}");
        }
    }
    let logits = block_on(engine.logits_with(&prompt.ids, Some(&AdapterChoice::Name("style".into())))).unwrap();
    let vocab = engine.info().vocab_size;
    assert!(nmse(&logits[logits.len() - vocab..], goldens.tensor("mid", "logits_last").unwrap()) < 1e-11);
}

#[test]
fn names_are_checked_and_adapters_come_and_go() {
    let engine = engine();
    let ids = [5, 6, 7];
    let plain = reply(&engine, &ids, &serde_json::Value::Null).unwrap().tokens;
    let load = |files: &[&str], name| block_on(engine.load_adapter(&adapter(files), name, &|| false));
    let unknown = reply(&engine, &ids, &"style".into()).err();
    assert_eq!(kind(unknown), Some((ErrorKind::NotFound, "adapter".into())));
    load(PLAIN, Some("style")).unwrap();
    assert_eq!(kind(load(GGUF, Some("style")).err()), Some((ErrorKind::InvalidArgument, "name".into())));
    assert_eq!(kind(load(GGUF, Some("")).err()), Some((ErrorKind::InvalidArgument, "name".into())));
    assert_eq!(load(OTHER, None).err().map(|error| error.kind()), Some(ErrorKind::MalformedModel));
    let asked = Cell::new(0);
    let aborted = || asked.replace(asked.get() + 1) == 3;
    let ended = block_on(engine.load_adapter(&adapter(GGUF), Some("half"), &aborted));
    assert_eq!(ended.err().map(|error| error.kind()), Some(ErrorKind::Aborted));
    assert_eq!(engine.adapters().unwrap().len(), 1, "what did not load is not there");
    let scale = reply(&engine, &ids, &serde_json::json!({ "name": "style", "scale": 1e300 })).err();
    assert_eq!(kind(scale), Some((ErrorKind::InvalidArgument, "adapter".into())));
    for wrong in
        [serde_json::json!(3), serde_json::json!({ "scale": 1 }), serde_json::json!({ "name": "a", "size": 1 })]
    {
        let json = serde_json::json!({ "prompt": "x", "adapter": wrong }).to_string();
        assert_eq!(kind(GenerateRequest::from_json(&json).err()), Some((ErrorKind::InvalidArgument, "adapter".into())));
    }

    let styled = reply(&engine, &ids, &"style".into()).unwrap();
    block_on(engine.unload_adapter("style")).unwrap();
    assert_eq!(kind(block_on(engine.unload_adapter("style")).err()), Some((ErrorKind::NotFound, "adapter".into())));
    let gone = reply(&engine, &ids, &"style".into()).err();
    assert_eq!(gone.map(|error| error.kind()), Some(ErrorKind::NotFound));
    assert_eq!(reply(&engine, &ids, &serde_json::Value::Null).unwrap().tokens, plain);
    load(PLAIN, Some("style")).unwrap();
    let again = reply(&engine, &ids, &"style".into()).unwrap();
    assert_eq!((again.tokens, again.usage.cached_tokens), (styled.tokens, 0));
    engine.dispose();
    assert_eq!(load(PLAIN, None).err().map(|error| error.kind()), Some(ErrorKind::Disposed));
}
