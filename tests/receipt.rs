//! Receipts: a reply that is made again is the same, and whatever is not as a receipt says is told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod common;

use common::open;
use headwater::engine::{
    AdapterChoice, BackendChoice, Engine, GenerateRequest, LoadOptions, Prompt, Receipt, ReceiptCheck, ScaledAdapter,
};
use headwater::error::ErrorKind;
use headwater::format::Checkpoint;
use pollster::block_on;
use sha2::{Digest, Sha256};

const Q8: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";
const Q4: &str = "www/models/tiny-assistant/tiny-assistant-q4_0.gguf";

fn load(files: &[&str], backend: BackendChoice) -> Engine {
    let environment = common::environment(77);
    let options = LoadOptions { backend, ..LoadOptions::default() };
    block_on(Engine::load(open(files), &options, environment, &mut |_| Ok(()))).unwrap()
}

fn asked() -> Prompt {
    Prompt::from_json(r#"[{"role": "user", "content": "Tell me a story about a fox and a lantern."}]"#).unwrap()
}

fn request() -> GenerateRequest {
    let json = r#"{"prompt": "", "maxTokens": 24, "temperature": 0.9, "topK": 40, "xtc": {"probability": 0.2}, "stop": ["owl"],
        "logitBias": {"5": -3}, "n": 2, "logprobs": true, "topLogprobs": 2}"#;
    GenerateRequest { prompt: asked(), ..GenerateRequest::from_json(json).unwrap() }
}

fn check(engine: &Engine, receipt: &Receipt, prompt: Prompt) -> ReceiptCheck {
    block_on(engine.check_receipt(receipt, prompt, &|| false)).unwrap()
}

/// What a receipt says of the ids, reckoned apart.
fn hash(ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn holds_on(backend: BackendChoice) {
    let engine = load(&[Q8], backend);
    let reply = block_on(engine.generate(&request(), &|| false, &mut |_| ())).unwrap();
    for one in [&reply, &reply.others[0]] {
        let receipt = one.receipt.clone().unwrap();
        assert_eq!((receipt.seed, receipt.reply.as_str()), (one.seed, hash(&one.tokens).as_str()));
        let text = serde_json::to_string(&receipt).unwrap();
        assert!(!text.contains("fox") && !text.contains("logprobs") && text.contains(r#""stop":["owl"]"#), "{text}");
        // As it was kept, in another process.
        let kept = Receipt::from_json(&text).unwrap();
        assert_eq!(kept, receipt);
        assert_eq!(check(&load(&[Q8], backend), &kept, asked()), ReceiptCheck { holds: true, differences: vec![] });
    }
    assert_ne!(reply.receipt.unwrap().reply, reply.others[0].receipt.clone().unwrap().reply);
}

#[test]
fn a_receipt_holds_where_it_was_made_on_the_cpu() {
    holds_on(BackendChoice::Cpu);
}

#[test]
fn a_receipt_holds_where_it_was_made_on_the_gpu() {
    holds_on(BackendChoice::Gpu);
}

#[test]
fn what_is_not_as_it_says_is_told() {
    let engine = load(&[Q8], BackendChoice::Cpu);
    let made = GenerateRequest { n: None, logprobs: false, top_logprobs: None, ..request() };
    let receipt = block_on(engine.generate(&made, &|| false, &mut |_| ())).unwrap().receipt.unwrap();
    let differs = |check: &ReceiptCheck| -> Vec<String> {
        check.differences.iter().map(|words| words.split(':').next().unwrap().to_owned()).collect()
    };
    let other = Prompt::from_json(r#"[{"role": "user", "content": "Tell me a story about a cat."}]"#).unwrap();
    let checked = check(&engine, &receipt, other);
    assert_eq!((checked.holds, differs(&checked)), (false, vec!["prompt".to_owned(), "reply".to_owned()]));

    let forged = Receipt { seed: receipt.seed + 1, ..receipt.clone() };
    let checked = check(&engine, &forged, asked());
    assert!(!checked.holds && differs(&checked).starts_with(&["digest".to_owned()]), "{checked:?}");
    let forged = Receipt { reply: "0".repeat(64), ..receipt.clone() };
    assert_eq!(differs(&check(&engine, &forged, asked())), ["digest", "reply"]);

    // The same model with other weights is another one, and so is its reply.
    let checked = check(&load(&[Q4], BackendChoice::Cpu), &receipt, asked());
    assert!(!checked.holds && differs(&checked).contains(&"model".to_owned()), "{checked:?}");
    assert!(
        !differs(&checked).contains(&"tokenizer".to_owned()) && !differs(&checked).contains(&"template".to_owned())
    );

    for (json, place) in [("{}", "receipt"), (r#"{"version": 1, "colour": 2}"#, "receipt"), ("no", "receipt")] {
        let error = Receipt::from_json(json).unwrap_err();
        assert_eq!((error.kind(), error.place().contains(place)), (ErrorKind::InvalidArgument, true), "{error}");
    }
    let odd = Receipt { options: serde_json::json!({"colour": 1}), ..receipt };
    let error = block_on(engine.check_receipt(&odd, asked(), &|| false)).unwrap_err();
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "receipt: options"), "{error}");
    assert!(error.message().contains("colour"));
}

#[test]
fn an_adapter_is_part_of_it() {
    let folder = "tests/data/models/qwen3";
    let files: Vec<String> = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        .map(|name| format!("{folder}/{name}"))
        .into();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let lora = || {
        let folder = "tests/data/lora/qwen3-dora";
        let files = ["adapter_config.json", "adapter_model.safetensors"]
            .map(|name| common::source(&format!("{folder}/{name}")));
        block_on(Checkpoint::open_adapter(files.into())).unwrap()
    };
    let engine = load(&files, BackendChoice::Cpu);
    let info = block_on(engine.load_adapter(&lora(), Some("dora"), &|| false)).unwrap();
    let adapter = Some(AdapterChoice::Scaled(ScaledAdapter { name: "dora".into(), scale: Some(0.5) }));
    let request =
        GenerateRequest { max_tokens: Some(6.0), adapter, ..GenerateRequest::new(Prompt::Ids(vec![1, 2, 3])) };
    let receipt = block_on(engine.generate(&request, &|| false, &mut |_| ())).unwrap().receipt.unwrap();
    let named = receipt.adapter.clone().unwrap();
    assert_eq!((named.hash.as_str(), named.scale), (info.hash.as_str(), 0.5));

    let again = load(&files, BackendChoice::Cpu);
    let missing = block_on(again.check_receipt(&receipt, Prompt::Ids(vec![1, 2, 3]), &|| false)).unwrap_err();
    assert_eq!((missing.kind(), missing.place().as_str()), (ErrorKind::NotFound, "adapter"));
    block_on(again.load_adapter(&lora(), Some("dora"), &|| false)).unwrap();
    assert!(check(&again, &receipt, Prompt::Ids(vec![1, 2, 3])).holds);
}
