//! Keys and values that are saved and brought back: what was saved is not computed again, and what is damaged or belongs to
//! something else is never used.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use std::rc::Rc;

use common::open;
use headwater::engine::{
    AdapterChoice, BackendChoice, Engine, GenerateRequest, GenerationResult, LoadOptions, Prompt, Restored,
};
use headwater::error::{ErrorKind, Result};
use headwater::format::Checkpoint;
use headwater::source::{MemorySource, Source};
use pollster::block_on;

const MODEL: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";
const OTHER: &str = "www/models/tiny-assistant/tiny-assistant-q4_0.gguf";
const LLAMA: [&str; 4] = [
    "tests/data/models/llama3/config.json",
    "tests/data/models/llama3/model.safetensors",
    "tests/data/models/llama3/tokenizer.json",
    "tests/data/models/llama3/tokenizer_config.json",
];

fn load_from(checkpoint: Checkpoint, backend: BackendChoice, kv: &str) -> Engine {
    let environment = common::environment(77);
    let options = LoadOptions { backend, kv_format: Some(kv.to_owned()), ..LoadOptions::default() };
    block_on(Engine::load(checkpoint, &options, environment, &mut |_| Ok(()))).unwrap()
}

fn load(files: &[&str], backend: BackendChoice, kv: &str) -> Engine {
    load_from(open(files), backend, kv)
}

fn request(ids: &[u32], adapter: Option<AdapterChoice>) -> GenerateRequest {
    let prompt = Prompt::Ids(ids.to_vec());
    let (max_tokens, temperature) = (Some(6.0), Some(0.0));
    GenerateRequest { max_tokens, temperature, adapter, ignore_eos: true, ..GenerateRequest::new(prompt) }
}

fn reply(engine: &Engine, ids: &[u32], adapter: Option<AdapterChoice>) -> GenerationResult {
    block_on(engine.generate(&request(ids, adapter), &|| false, &mut |_| {})).unwrap()
}

fn ids(len: u32) -> Vec<u32> {
    (0..len).map(|i| (i * 37 + 11) % 250).collect()
}

/// The bytes of what is kept of these ids, and how many that are. Pieces are pages, and no larger.
fn save(engine: &Engine, ids: &[u32], adapter: Option<AdapterChoice>) -> (Vec<u8>, usize) {
    let mut pieces = vec![];
    let mut sink = |piece: &[u8]| {
        pieces.push(piece.to_vec());
        Ok(())
    };
    let held = block_on(engine.save(&request(ids, adapter), &mut sink)).unwrap();
    assert_eq!(pieces.len(), 1 + held.div_ceil(32), "a header, and a piece for each page");
    (pieces.concat(), held)
}

fn restore(engine: &Engine, bytes: &[u8]) -> Result<Restored> {
    block_on(engine.restore(&MemorySource::new("chat", bytes.to_vec())))
}

/// The ids after a prompt and its reply, with something new at the end.
fn turn(prompt: &[u32], reply: &GenerationResult) -> Vec<u32> {
    [prompt, &reply.tokens, &[7, 8, 9]].concat()
}

fn comes_back(files: &[&str], backend: BackendChoice, kv: &str) {
    let (first, again) = (load(files, backend, kv), load(files, backend, kv));
    for length in [90, 64, 20] {
        let prompt = ids(length);
        let said = reply(&first, &prompt, None);
        let next = turn(&prompt, &said);
        let (bytes, held) = save(&first, &next, None);
        assert_eq!(held, prompt.len() + said.tokens.len() - 1, "the last id was chosen, not run");
        assert_eq!(restore(&again, &bytes).unwrap(), Restored { tokens: held, note: None }, "{backend:?} {kv}");
        let (there, here) = (reply(&first, &next, None), reply(&again, &next, None));
        assert_eq!((here.usage.cached_tokens, &here.tokens), (held, &there.tokens), "{backend:?} {kv} {length}");
        // What comes from there and is saved here is the same.
        assert_eq!(save(&again, &next[..held], None), save(&first, &next[..held], None));
    }
}

#[test]
fn what_was_saved_is_not_computed_again_on_the_cpu() {
    for kv in ["f16", "f32", "q8_0", "q4_0"] {
        comes_back(&[MODEL], BackendChoice::Cpu, kv);
    }
}

#[test]
fn what_was_saved_is_not_computed_again_on_the_gpu() {
    for kv in ["f16", "q8_0"] {
        comes_back(&[MODEL], BackendChoice::Gpu, kv);
    }
    comes_back(&LLAMA, BackendChoice::Gpu, "f32");
}

#[test]
fn damage_is_an_error_and_leaves_nothing_behind() {
    let engine = load(&[MODEL], BackendChoice::Cpu, "f16");
    let prompt = ids(70);
    let next = turn(&prompt, &reply(&engine, &prompt, None));
    let (bytes, _) = save(&engine, &next, None);
    let expected = reply(&engine, &next, None).tokens;
    let again = load(&[MODEL], BackendChoice::Cpu, "f16");
    let header = 52 + 4 * u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    let places = (0..header + 40).step_by(7).chain((header + 40..bytes.len()).step_by(bytes.len() / 40));
    for at in places {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        let kind = restore(&again, &damaged).unwrap_err().kind();
        let known = [ErrorKind::IntegrityMismatch, ErrorKind::UnsupportedFormat, ErrorKind::SizeMismatch];
        assert!(known.contains(&kind) || (8..12).contains(&at) && kind == ErrorKind::LimitExceeded, "{at}: {kind:?}");
    }
    for len in [0, 3, 12, header, header + 31, header + 500, bytes.len() - 1] {
        assert_eq!(restore(&again, &bytes[..len]).unwrap_err().kind(), ErrorKind::SizeMismatch, "{len}");
    }
    let mut later = bytes.clone();
    later[4] = 9;
    assert_eq!(restore(&again, &later).unwrap_err().kind(), ErrorKind::UnsupportedFormat);
    let here = reply(&again, &next, None);
    assert_eq!((here.usage.cached_tokens, here.tokens), (0, expected));
}

fn others_own() -> Restored {
    Restored { tokens: 0, note: Some("the keys and values are another model's, adapter's or format's".to_owned()) }
}

/// The model with the lowest bits of many weights turned: of the same shapes and sizes.
fn tuned() -> Checkpoint {
    let mut bytes = std::fs::read(MODEL).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
    block_on(Checkpoint::open(vec![Rc::new(MemorySource::new("tiny-assistant-q8_0.gguf", bytes)) as Rc<dyn Source>]))
        .unwrap()
}

#[test]
fn keys_and_values_of_something_else_are_left_alone() {
    let engine = load(&[MODEL], BackendChoice::Cpu, "f16");
    let prompt = ids(70);
    let (bytes, _) = save(&engine, &turn(&prompt, &reply(&engine, &prompt, None)), None);
    let others = [
        load(&[OTHER], BackendChoice::Cpu, "f16"),
        load_from(tuned(), BackendChoice::Cpu, "f16"),
        load(&[MODEL], BackendChoice::Cpu, "q8_0"),
        load(&[MODEL], BackendChoice::Gpu, "f16"),
    ];
    for other in others {
        assert_eq!(restore(&other, &bytes).unwrap(), others_own());
        assert_eq!(reply(&other, &prompt, None).usage.cached_tokens, 0);
    }
}

#[test]
fn an_adapter_has_keys_and_values_of_its_own() {
    let engine = || load(&LLAMA, BackendChoice::Cpu, "f16");
    let add = |engine: &Engine, alpha: &str| {
        let read = |file: &str| std::fs::read(format!("tests/data/lora/llama3-plain/{file}")).unwrap();
        let config = String::from_utf8(read("adapter_config.json")).unwrap();
        let config = config.replace("\"lora_alpha\": 8", &format!("\"lora_alpha\": {alpha}"));
        let files = [
            ("adapter_config.json", config.into_bytes()),
            ("adapter_model.safetensors", read("adapter_model.safetensors")),
        ];
        let files = files.map(|(name, bytes)| Rc::new(MemorySource::new(name, bytes)) as Rc<dyn Source>);
        let adapter = block_on(Checkpoint::open_adapter(files.into())).unwrap();
        block_on(engine.load_adapter(&adapter, Some("a"), &|| false)).unwrap();
    };
    let chosen = || Some(AdapterChoice::Name("a".into()));
    let (first, again) = (engine(), engine());
    add(&first, "8");
    let prompt = ids(70);
    let next = turn(&prompt, &reply(&first, &prompt, chosen()));
    let (bytes, held) = save(&first, &next, chosen());
    assert_eq!(save(&first, &next, None).1, 0, "the model alone has computed nothing");
    assert_eq!(restore(&again, &bytes).unwrap(), others_own(), "it is not loaded");
    add(&again, "16");
    assert_eq!(restore(&again, &bytes).unwrap(), others_own(), "another one of that name");
    block_on(again.unload_adapter("a")).unwrap();
    add(&again, "8");
    assert_eq!(restore(&again, &bytes).unwrap(), Restored { tokens: held, note: None });
    assert_eq!(reply(&again, &next, None).usage.cached_tokens, 0);
    let (there, here) = (reply(&first, &next, chosen()), reply(&again, &next, chosen()));
    assert_eq!((here.usage.cached_tokens, here.tokens), (held, there.tokens));
}

#[test]
fn what_has_no_room_is_computed_anew() {
    let engine = load(&[MODEL], BackendChoice::Cpu, "f16");
    let prompt = ids(200);
    let next = turn(&prompt, &reply(&engine, &prompt, None));
    let (bytes, _) = save(&engine, &next, None);
    let options = LoadOptions { backend: BackendChoice::Cpu, context: Some(96), ..LoadOptions::default() };
    let environment = common::environment(0);
    let small = block_on(Engine::load(open(&[MODEL]), &options, environment, &mut |_| Ok(()))).unwrap();
    let restored = restore(&small, &bytes).unwrap();
    assert!(restored.tokens == 96 && restored.note.is_some(), "{restored:?}");
    assert_eq!(reply(&small, &prompt[..90], None).usage.cached_tokens, 89);
}

#[test]
fn a_model_with_state_keeps_nothing() {
    let files = ["tests/data/gguf/lfm2-Q4_0.gguf"];
    let engine = load(&files, BackendChoice::Cpu, "f16");
    let prompt = ids(40);
    reply(&engine, &prompt, None);
    assert_eq!(save(&engine, &prompt, None).1, 0);
}
