//! Replies that are bound to a schema, a regular expression or a grammar, from files to text on the CPU.
#![allow(clippy::expect_used, reason = "a test says what it expects by failing")]

mod structured {
    pub mod schemas;
}

use std::path::Path;
use std::rc::Rc;

use headwater::engine::{
    BackendChoice, Engine, Environment, FinishReason, GenerateRequest, GenerationResult, LoadOptions, Piece,
};
use headwater::error::{ErrorKind, Result};
use headwater::format::Checkpoint;
use headwater::sample::NativeGrammars;
use headwater::source::{MemorySource, Source};
use pollster::block_on;
use serde_json::{Value, json};
use structured::schemas::schema;

const TINY: &str = "www/models/tiny-assistant/tiny-assistant-q8_0.gguf";
/// Schemas that are tried every day, and with `HEADWATER_SWEEP` set.
const SHARE: (u32, u32) = (60, 1000);

fn load() -> Engine {
    load_on(BackendChoice::Cpu)
}

fn load_on(backend: BackendChoice) -> Engine {
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(TINY)).expect("the model");
    let source = Rc::new(MemorySource::new("tiny.gguf", bytes)) as Rc<dyn Source>;
    let checkpoint = block_on(Checkpoint::open(vec![source])).expect("a model");
    let environment = Environment {
        now_secs: Box::new(|| 0.0),
        seed: Box::new(|| 3),
        yield_now: Box::new(|| Box::pin(async {})),
        grammars: Box::<NativeGrammars>::default(),
        kept: Box::new(headwater::gpu::Forgets),
    };
    let options = LoadOptions { backend, ..LoadOptions::default() };
    block_on(Engine::load(checkpoint, &options, environment, &mut |_| Ok(()))).expect("a model that loads")
}

/// A request to one message, greedy unless it says otherwise.
fn request(content: &str, options: Value) -> Value {
    let mut request = json!({"prompt": [{"role": "user", "content": content}], "temperature": 0});
    let members = options.as_object().expect("an object").clone();
    request.as_object_mut().expect("an object").extend(members);
    request
}

fn generate(engine: &Engine, request: &Value) -> Result<GenerationResult> {
    let request = GenerateRequest::from_json(&request.to_string())?;
    let mut pieces: Vec<Piece> = Vec::new();
    let result = block_on(engine.generate(&request, &|| false, &mut |piece| pieces.push(piece.clone())))?;
    let told = |choice| pieces.iter().filter(move |piece| piece.choice == choice);
    for (choice, result) in std::iter::once(&result).chain(&result.others).enumerate() {
        let choice = choice as u32;
        assert_eq!(told(choice).map(|piece| piece.text.as_str()).collect::<String>(), result.text);
        assert_eq!(told(choice).flat_map(|piece| piece.tokens.clone()).collect::<Vec<_>>(), result.tokens);
    }
    Ok(result)
}

fn reply(engine: &Engine, content: &str, options: Value) -> GenerationResult {
    generate(engine, &request(content, options)).expect("a reply")
}

const PAID: &str = "Extract the name and amount as JSON: Hi, this is Dorvina Keltam. I paid $42.50.";

fn payment() -> Value {
    json!({"type": "object", "properties": {"name": {"type": "string"}, "amount": {"type": "number"}},
        "required": ["name", "amount"], "additionalProperties": false})
}

#[test]
fn a_reply_is_what_its_schema_says() {
    let engine = load();
    let result = reply(&engine, PAID, json!({"json": payment()}));
    assert_eq!(result.text, r#"{"name": "Dorvina Keltam", "amount": 42.50}"#);
    assert_eq!((result.finish_reason, result.constraint_complete), (FinishReason::Stop, Some(true)));
    assert_eq!(reply(&engine, PAID, json!({})).constraint_complete, None);
    let story = reply(&engine, "Tell me a story about a fox.", json!({"json": payment()}));
    assert!(jsonschema::is_valid(&payment(), &serde_json::from_str(&story.text).expect("JSON")), "{}", story.text);
}

#[test]
fn a_reply_matches_its_regex_and_its_grammar() {
    let engine = load();
    for regex in ["(yes|no), [0-9]{3}", "^(yes|no), [0-9]{3}$"] {
        let text = reply(&engine, "What are you?", json!({"regex": regex, "temperature": 2})).text;
        let (word, digits) = text.split_once(", ").expect("a comma");
        assert!(["yes", "no"].contains(&word) && digits.len() == 3 && digits.parse::<u32>().is_ok(), "{text}");
    }
    let lark = "start: item (\", \" item)*\nitem: /[a-c]{2}/ \"=\" NUMBER\nNUMBER: /[0-9]+/";
    let text = reply(&engine, "Say something.", json!({"grammar": lark, "temperature": 1.5, "maxTokens": 200})).text;
    for item in text.split(", ") {
        let (name, number) = item.split_once('=').expect("a sign");
        assert!(name.len() == 2 && number.parse::<f64>().is_ok(), "{text}");
    }
}

/// llama.cpp's notation, through the whole engine.
#[test]
fn a_reply_follows_its_gbnf() {
    let engine = load();
    let gbnf = r#"root ::= "- " item ("\n- " item){2}  # three points
item ::= [a-z]+ (" " [a-z]+)? ("(" item ")")?"#;
    let text =
        reply(&engine, "Make a list.", json!({"grammar": {"gbnf": gbnf}, "temperature": 1.5, "maxTokens": 300})).text;
    let points: Vec<&str> = text.split('\n').collect();
    let letters = |point: &str| point.chars().all(|c| c.is_ascii_lowercase() || " ()".contains(c));
    assert!(points.len() == 3 && points.iter().all(|point| point.strip_prefix("- ").is_some_and(letters)), "{text}");
}

/// An id, eight words of sums, 256 ids with their logits, and the logit of the id.
const TOLD_BYTES: u64 = 4 * (1 + 8 + 2 * 256 + 1);

/// Of a constrained reply only the ids come back from the device, and they are those that are chosen here of all logits.
fn is_chosen_where_the_logits_are(backend: BackendChoice) {
    let engine = load_on(backend);
    let read = || engine.stats().counters.read_bytes;
    let samplings = [
        json!({}),
        json!({"temperature": 1.3, "seed": 5}),
        json!({"temperature": 1.1, "seed": 6, "topK": 12}),
        json!({"temperature": 1.4, "seed": 7, "topP": 0.9, "minP": 0.01}),
        json!({"temperature": 0.8, "seed": 8, "topK": 2000, "topP": 0.99}),
    ];
    let forms = [json!({"json": payment()}), json!({"regex": "([a-d]{2,5} ){4,9}(yes|no)"})];
    for (sampling, form) in samplings.iter().flat_map(|sampling| forms.iter().map(move |form| (sampling, form))) {
        let with = |more: Value| {
            let mut all = json!({"maxTokens": 40});
            for part in [sampling, form, &more] {
                all.as_object_mut().expect("an object").extend(part.as_object().expect("an object").clone());
            }
            let before = read();
            let result = reply(&engine, PAID, all);
            (result, read() - before)
        };
        let (there, few) = with(json!({}));
        let (here, all) = with(json!({"logprobs": true}));
        assert_eq!((&there.text, &there.tokens), (&here.text, &here.tokens), "{backend:?} {sampling} {form}");
        if backend == BackendChoice::Gpu {
            assert!(few > 0 && few <= 4 * there.tokens.len() as u64, "{few} bytes for {} ids", there.tokens.len());
            // The largest and their sums come besides, of every id.
            assert!(all > few && all <= TOLD_BYTES * here.tokens.len() as u64, "{all} bytes");
        }
    }
    // Penalties go by what was said, which is this side's to know; they go there as changes of single logits.
    let before = read();
    let result = reply(&engine, PAID, json!({"json": payment(), "repetitionPenalty": 1.1}));
    assert_eq!(result.constraint_complete, Some(true));
    assert!(read() - before <= 4 * result.tokens.len() as u64);
    assert_eq!(engine.stats().counters.full_reads, 0);
    // Without a constraint all is as it was before.
    let free = reply(&engine, PAID, json!({"temperature": 1.2, "seed": 9, "maxTokens": 30}));
    let again = reply(&load_on(backend), PAID, json!({"temperature": 1.2, "seed": 9, "maxTokens": 30}));
    assert_eq!(free.tokens, again.tokens);
}

#[test]
fn ids_of_a_constrained_reply_are_chosen_where_the_logits_are_on_the_cpu() {
    is_chosen_where_the_logits_are(BackendChoice::Cpu);
}

#[test]
fn ids_of_a_constrained_reply_are_chosen_where_the_logits_are_on_the_gpu() {
    is_chosen_where_the_logits_are(BackendChoice::Gpu);
}

#[test]
fn a_reply_that_is_cut_says_so() {
    let engine = load();
    for most in [1, 5, 9] {
        let result = reply(&engine, PAID, json!({"json": payment(), "maxTokens": most}));
        assert_eq!((result.finish_reason, result.constraint_complete), (FinishReason::Length, Some(false)));
        assert_eq!(result.tokens.len(), most);
    }
    let result = reply(&engine, PAID, json!({"json": payment(), "stop": "Keltam"}));
    assert_eq!((result.text.as_str(), result.constraint_complete), (r#"{"name": "Dorvina "#, Some(false)));
    assert_eq!(result.finish_reason, FinishReason::Stop);
}

#[test]
fn seeds_replies_and_probabilities_go_on_working() {
    let engine = load();
    let options = json!({"json": payment(), "temperature": 1.5, "n": 3, "seed": 5, "maxTokens": 80});
    let several = reply(&engine, PAID, options.clone());
    assert_eq!(several.others.len(), 2);
    assert_eq!(several.tokens, reply(&engine, PAID, options).tokens, "a seed decides");
    for other in &several.others {
        let alone = json!({"json": payment(), "temperature": 1.5, "seed": other.seed, "maxTokens": 80});
        assert_eq!(other.tokens, reply(&engine, PAID, alone).tokens);
    }
    let told = reply(&engine, PAID, json!({"json": payment(), "logprobs": true}));
    assert_eq!(told.text, reply(&engine, PAID, json!({"json": payment()})).text);
    let ids: Vec<u32> = told.logprobs.iter().map(|told| told.id).collect();
    assert_eq!(ids, told.tokens);
}

#[test]
fn an_abort_ends_a_bound_reply_too() {
    let engine = load();
    let request = GenerateRequest::from_json(&request(PAID, json!({"json": payment()})).to_string()).expect("valid");
    let asked = std::cell::Cell::new(0);
    let aborted = || asked.replace(asked.get() + 1) >= 4;
    let error = block_on(engine.generate(&request, &aborted, &mut |_| {})).expect_err("an abort");
    assert_eq!(error.kind(), ErrorKind::Aborted);
    assert_eq!(reply(&engine, PAID, json!({"json": payment()})).constraint_complete, Some(true));
}

#[test]
fn a_reply_goes_on_from_a_prefix() {
    let engine = load();
    let whole = reply(&engine, PAID, json!({})).text;
    for before in ["{\"name\": \"Dorvina", "{\"name\": \"Dorvina Keltam\", \"amount"] {
        let after = whole.strip_prefix(before).expect("a beginning");
        for options in [json!({"prefill": before}), json!({"prefill": before, "json": payment()})] {
            assert_eq!(reply(&engine, PAID, options).text, after, "after {before}");
        }
    }
    let other = reply(&engine, PAID, json!({"prefill": "{\"name\": \"Ann\", ", "json": payment()})).text;
    assert!(other.starts_with("\"amount\": "), "{other}");
    let refused = generate(&engine, &request(PAID, json!({"prefill": "Well: ", "json": payment()})));
    let error = refused.expect_err("no such JSON");
    assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "prefill"));
}

fn tools() -> Value {
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let city = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer",
        "minimum": 1, "maximum": 14}}, "required": ["city", "days"], "additionalProperties": false});
    json!([
        tool("get_weather", city),
        tool("now", json!({"type": "object", "properties": {}, "additionalProperties": false}))
    ])
}

/// Every way of writing calls, though the model has none of their special tokens: they are letters to it.
const FORMATS: [&str; 11] =
    ["deepseek", "mistral", "lfm2", "phi", "hermes", "pythonic", "llama3", "gemma", "json", "any", "gpt-oss"];

#[test]
fn a_reply_that_has_to_be_a_call_is_one() {
    let engine = load();
    for format in FORMATS {
        for (choice, names) in [
            (json!("required"), vec!["get_weather", "now"]),
            (json!({"name": "get_weather"}), vec!["get_weather"]),
            (json!({"type": "function", "function": {"name": "now"}}), vec!["now"]),
        ] {
            for seed in 0..3 {
                let options = json!({"tools": tools(), "toolChoice": choice, "toolFormat": format, "temperature": 1.5,
                    "seed": seed, "maxTokens": 300});
                let mut options = options;
                if format == "gpt-oss" {
                    // It thinks first, and this model would go on for ever.
                    options["reasoning"] = json!({"budget": 5});
                }
                let result = reply(&engine, "What is the weather?", options);
                assert_eq!(result.finish_reason, FinishReason::ToolCalls, "{format}: {result:?}");
                assert_eq!(
                    (result.constraint_complete, result.text.as_str()),
                    (Some(true), ""),
                    "{format}: {result:?}"
                );
                for call in &result.tool_calls {
                    assert!(names.contains(&call.name.as_str()), "{format}: {call:?}");
                    let place = usize::from(call.name == "now");
                    let schema = &tools()[place]["function"]["parameters"];
                    assert!(jsonschema::is_valid(schema, &json!(call.arguments)), "{format}: {call:?}");
                }
            }
        }
    }
}

#[test]
fn a_bound_answer_may_be_a_call_where_there_are_tools() {
    let engine = load();
    let (mut answers, mut calls) = (0, 0);
    for seed in 0..12 {
        let options = json!({"tools": tools(), "toolFormat": "hermes", "json": payment(), "temperature": 3, "seed": seed,
            "maxTokens": 200});
        let result = reply(&engine, PAID, options);
        assert!(result.constraint_complete.is_some());
        if result.tool_calls.is_empty() && result.constraint_complete == Some(true) {
            let value = serde_json::from_str(&result.text).unwrap_or_else(|error| panic!("{error}: {}", result.text));
            assert!(jsonschema::is_valid(&payment(), &value));
            answers += 1;
        }
        calls += result.tool_calls.len();
    }
    assert!(answers > 0, "{answers} answers, {calls} calls");
}

#[test]
fn choices_that_cannot_be_are_refused() {
    let engine = load();
    for (options, place) in [
        (json!({"toolChoice": "required"}), "toolChoice"),
        (json!({"tools": tools(), "toolFormat": "hermes", "toolChoice": {"name": "later"}}), "toolChoice"),
        (json!({"tools": tools(), "toolFormat": "hermes", "toolChoice": 7}), "toolChoice"),
        (json!({"tools": tools(), "toolFormat": "hermes", "toolChoice": "required", "json": {}}), "json"),
        (json!({"tools": tools(), "toolFormat": "hermes", "grammar": "start: \"a\""}), "grammar"),
        (json!({"tools": tools(), "toolChoice": "required"}), "tools"),
    ] {
        let words = options.to_string();
        let error = generate(&engine, &request(PAID, options)).expect_err(&words);
        assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, place), "{error}");
    }
}

#[test]
fn bad_input_is_named() {
    let engine = load();
    let deep = (0..70).fold(json!({"type": "string"}), |inner, _| json!({"items": inner}));
    let many: Vec<u32> = (0..10_001).collect();
    let wide: Vec<String> = (0..9000).map(|number| format!("value number {number:030}")).collect();
    let property = |schema: Value| json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": schema}});
    use ErrorKind::{InvalidArgument, SchemaLimit, SchemaUnsupported};
    for (options, kind, place) in [
        (json!({"json": 7}), InvalidArgument, "json"),
        (json!({"json": {"type": "date"}}), SchemaUnsupported, "json"),
        (json!({"json": property(json!({"type": "date"}))}), SchemaUnsupported, "json.properties.b"),
        (json!({"json": property(json!({"not": {}}))}), SchemaUnsupported, "json.properties.b"),
        (
            json!({"json": property(json!({"items": {"$ref": "#/$defs/x"}}))}),
            SchemaUnsupported,
            "json.properties.b.items",
        ),
        (json!({"json": {"type": "integer", "minimum": 3, "maximum": 2}}), SchemaUnsupported, "json"),
        (json!({"json": false}), SchemaUnsupported, "json"),
        (json!({"json": {"enum": many}}), SchemaLimit, "json.enum"),
        (json!({"json": {"enum": wide}}), SchemaLimit, "json"),
        (json!({"json": {"pattern": "a".repeat(2049)}}), SchemaLimit, "json.pattern"),
        (json!({"regex": "a".repeat(2049)}), SchemaLimit, "regex"),
        (json!({"regex": "("}), SchemaUnsupported, "regex"),
        (json!({"regex": r"(a)\1"}), SchemaUnsupported, "regex"),
        (json!({"regex": 7}), InvalidArgument, "regex"),
        (json!({"grammar": "start: x"}), SchemaUnsupported, "grammar"),
        (json!({"grammar": "root ::= \"a\""}), SchemaUnsupported, "grammar"),
        (json!({"grammar": {"gbnf": "root ::= x"}}), SchemaUnsupported, "grammar"),
        (json!({"grammar": "x".repeat(300_000)}), SchemaLimit, "grammar"),
        (json!({"json": {}, "regex": "a"}), InvalidArgument, "regex"),
        (json!({"regex": "a", "ignoreEos": true}), InvalidArgument, "ignoreEos"),
        (json!({"reasoning": {"budget": 5}}), InvalidArgument, "reasoning.budget"),
    ] {
        let words = options.to_string();
        let error = generate(&engine, &request(PAID, options)).expect_err(&words);
        assert_eq!((error.kind(), error.place().as_str()), (kind, place), "{error}");
        assert!(!error.message().is_empty() && error.message().len() < 600, "{error}");
    }
    let error = generate(&engine, &request(PAID, json!({"json": deep}))).expect_err("too deep");
    assert_eq!(error.kind(), SchemaLimit, "{error}");
    assert!(error.place().starts_with("json.items.items"), "{error}");
}

#[test]
fn a_thousand_replies_are_valid_in_the_eyes_of_another() {
    let engine = load();
    let count = if std::env::var_os("HEADWATER_SWEEP").is_some() { SHARE.1 } else { SHARE.0 };
    let (mut complete, mut cut) = (0, 0);
    for seed in 0..count {
        let schema = schema(seed);
        let options = json!({"json": schema, "temperature": 1.5, "seed": seed, "maxTokens": 400});
        let result = reply(&engine, "Tell me everything.", options);
        if result.constraint_complete == Some(true) {
            let value = serde_json::from_str(&result.text).unwrap_or_else(|error| panic!("{error}: {}", result.text));
            let errors: Vec<String> = jsonschema::validator_for(&schema)
                .expect("a schema")
                .iter_errors(&value)
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "seed {seed}: {errors:?}\n{schema}\n{}", result.text);
            complete += 1;
        } else {
            assert_eq!(result.finish_reason, FinishReason::Length);
            cut += 1;
        }
    }
    println!("{complete} of {count} replies complete and valid, {cut} cut by their length");
    assert!(cut * 5 <= count, "{cut} of {count} were cut");
}

/// How many of a model's answers have exactly the wanted fields, without and with the schema of those fields.
#[test]
fn fields_are_found_as_often_with_their_schema() {
    let engine = load();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fields.json");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).expect("the cases")).expect("JSON");
    let sweep = std::env::var_os("HEADWATER_SWEEP").is_some();
    for kind in ["held-out", "by hand"] {
        let all: Vec<&Value> = cases.iter().filter(|case| case["kind"] == kind).collect();
        let cases = if sweep { &all[..] } else { &all[..12] };
        let (mut free, mut bound, mut readable) = (0, 0, 0);
        for case in cases {
            let want = case["want"].as_object().expect("fields");
            let field = |(name, _): (&String, &Value)| match name.as_str() {
                "amount" => (name.clone(), json!({"type": ["number", "null"]})),
                _ => (name.clone(), json!({"type": ["string", "null"]})),
            };
            let properties: serde_json::Map<String, Value> = want.iter().map(field).collect();
            let names: Vec<&String> = want.keys().collect();
            let schema =
                json!({"type": "object", "properties": properties, "required": names, "additionalProperties": false});
            let prompt = case["prompt"].as_str().expect("a text");
            let text = reply(&engine, prompt, json!({"maxTokens": 150})).text;
            readable += usize::from(
                serde_json::from_str::<Value>(&text).is_ok_and(|value| jsonschema::is_valid(&schema, &value)),
            );
            free += usize::from(is_right(&text, want));
            let text = reply(&engine, prompt, json!({"maxTokens": 150, "json": schema})).text;
            assert!(jsonschema::is_valid(&schema, &serde_json::from_str(&text).expect("JSON")), "{text}");
            bound += usize::from(is_right(&text, want));
        }
        let count = cases.len();
        println!("{kind}: of {count} {free} right without the schema ({readable} valid), {bound} with it (all valid)");
        assert!(bound >= free, "{kind}: {bound} with the schema, {free} without");
    }
}

/// Whether a text is an object with these fields; numbers count as what they are, however they are written.
fn is_right(text: &str, want: &serde_json::Map<String, Value>) -> bool {
    let same = |a: &Value, b: &Value| match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    };
    match serde_json::from_str::<serde_json::Map<String, Value>>(text) {
        Ok(got) => {
            got.len() == want.len() && want.iter().all(|(name, want)| got.get(name).is_some_and(|got| same(got, want)))
        }
        Err(_) => false,
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}
