//! Reasoning and calls of tools, from files to pieces, on a model whose replies are known (`tests/scripted/write.py`).
#![allow(clippy::expect_used, reason = "a test says what it expects by failing")]

mod text;

use std::path::Path;
use std::rc::Rc;

use headwater::chat::Template;
use headwater::engine::{
    BackendChoice, Engine, Environment, FinishReason, GenerateRequest, GenerationResult, LoadOptions, Piece,
};
use headwater::error::{ErrorKind, Result};
use headwater::format::Checkpoint;
use headwater::source::{MemorySource, Source};
use pollster::block_on;
use serde_json::{Value, json};

fn load(folder: &str) -> Engine {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let belongs =
        |name: &String| name.ends_with(".json") && !name.starts_with("golden") || name.ends_with(".safetensors");
    let names = folder.read_dir().expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let source = |name: String| {
        let bytes = std::fs::read(folder.join(&name)).expect("a file");
        Rc::new(MemorySource::new(name, bytes)) as Rc<dyn Source>
    };
    let sources = names.map(|name| name.to_string_lossy().into_owned()).filter(belongs).map(source).collect();
    let checkpoint = block_on(Checkpoint::open(sources)).expect("a model");
    let environment = Environment {
        now_secs: Box::new(|| 1.7e9),
        seed: Box::new(|| 7),
        grammars: Box::<headwater::sample::NativeGrammars>::default(),
        kept: Box::new(headwater::gpu::Forgets),
        yield_now: Box::new(|| Box::pin(std::future::ready(()))),
    };
    let options = LoadOptions { backend: BackendChoice::Cpu, ..LoadOptions::default() };
    block_on(Engine::load(checkpoint, &options, environment, &mut |_| Ok(()))).expect("a model that loads")
}

fn weather() -> Value {
    json!({"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}})
}

fn asked() -> Value {
    json!({"role": "user", "content": "How is the weather in Paris?"})
}

/// A reply and its pieces.
fn reply(engine: &Engine, request: Value) -> Result<(GenerationResult, Vec<Piece>)> {
    let request = GenerateRequest::from_json(&request.to_string())?;
    let mut pieces = Vec::new();
    let result = block_on(engine.generate(&request, &|| false, &mut |piece| pieces.push(piece.clone())))?;
    Ok((result, pieces))
}

#[test]
fn a_call_comes_whole_and_its_result_goes_back() {
    let engine = load("tests/data/scripted");
    let (called, pieces) = reply(&engine, json!({"prompt": [asked()], "tools": [weather()]})).expect("a reply");
    assert_eq!((called.text.as_str(), called.reasoning.as_str()), ("Let me look.", "I need the weather."));
    assert_eq!(called.finish_reason, FinishReason::ToolCalls);
    let [call] = called.tool_calls.as_slice() else { panic!("one call: {:?}", called.tool_calls) };
    assert_eq!((call.name.as_str(), json!(call.arguments)), ("get_weather", json!({"city": "Paris"})));
    assert!(call.id.len() == 9 && call.id.chars().all(char::is_alphanumeric), "{}", call.id);

    let joined = |part: fn(&Piece) -> &str| pieces.iter().map(part).collect::<String>();
    assert_eq!(joined(|piece| &piece.text), called.text);
    assert_eq!(joined(|piece| &piece.reasoning), called.reasoning);
    assert!(pieces.iter().filter(|piece| !piece.reasoning.is_empty()).count() > 1, "reasoning comes in pieces");
    assert_eq!(pieces.iter().filter_map(|piece| piece.tool_call.clone()).collect::<Vec<_>>(), called.tool_calls);
    assert_eq!(pieces.iter().flat_map(|piece| piece.tokens.clone()).collect::<Vec<_>>(), called.tokens);

    let again =
        reply(&engine, json!({"prompt": [asked()], "tools": [weather()], "seed": called.seed})).expect("a reply");
    assert_eq!(again.0.tool_calls, called.tool_calls, "a reply that is made again has the same ids");

    // Arguments as text, as chat interfaces have them, and as an object give the same prompt.
    let mut prompts = Vec::new();
    for arguments in [json!("{\"city\": \"Paris\"}"), json!({"city": "Paris"})] {
        let calls =
            json!([{"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}]);
        let messages = json!([asked(), {"role": "assistant", "content": null, "tool_calls": calls},
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]);
        let (answer, _) = reply(&engine, json!({"prompt": messages, "tools": [weather()]})).expect("a reply");
        assert_eq!((answer.text.as_str(), answer.finish_reason), ("It is sunny in Paris.", FinishReason::Stop));
        prompts.push(answer.usage.prompt_tokens);
    }
    assert_eq!(prompts[0], prompts[1]);
}

#[test]
fn a_thought_comes_apart_from_the_answer() {
    let prompt = json!([{"role": "user", "content": "Please think."}]);
    let (result, pieces) = reply(&load("tests/data/scripted"), json!({"prompt": prompt})).expect("a reply");
    assert_eq!((result.reasoning.as_str(), result.text.as_str()), ("Easy.", "Hi!"));
    assert_eq!(result.finish_reason, FinishReason::Stop);
    assert!(pieces.iter().all(|piece| !piece.text.contains('<') && !piece.reasoning.contains('<')), "{pieces:?}");
}

#[test]
fn options_of_tools_and_reasoning_are_honoured_or_refused_by_name() {
    let engine = load("tests/data/scripted");
    let with = |options: Value| {
        let mut request = json!({"prompt": [asked()], "tools": [weather()]});
        request.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
        reply(&engine, request)
    };
    for options in [json!({"toolChoice": "none"}), json!({"tools": []}), json!({"reasoning": {"enabled": false}})] {
        let (result, _) = with(options.clone()).expect("a reply");
        assert_eq!((result.text.as_str(), result.tool_calls.len()), ("Hello there.", 0), "{options}");
    }
    let (other, _) = with(json!({"toolFormat": "json"})).expect("a reply");
    let written = "Let me look.\n\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n";
    assert_eq!((other.text.as_str(), other.finish_reason), (written, FinishReason::Stop), "no sign of that format");
    for (options, place, words) in [
        (json!({"toolChoice": "required", "tools": []}), "toolChoice", "needs tools"),
        (json!({"toolChoice": {"type": "function", "function": {"name": "x"}}}), "toolChoice", "no tool is called"),
        (json!({"toolChoice": 3}), "toolChoice", "none of auto"),
        (json!({"toolFormat": "smoke"}), "toolFormat", "none of deepseek, mistral"),
        (json!({"toolFormat": "hermes", "toolChoice": "none"}), "toolFormat", "needs tools"),
        (json!({"reasoning": {"budget": 1.5}}), "reasoning.budget", "not a whole number"),
        (
            json!({"reasoning": {"enabled": true}, "templateVariables": {"enable_thinking": true}}),
            "reasoning.enabled",
            "templateVariables",
        ),
        (json!({"tools": [weather(), {"name": "two words"}]}), "tools[1] (two words)", "a name"),
    ] {
        let error = with(options.clone()).expect_err("an error");
        assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, place), "{options}");
        assert!(error.message().contains(words), "{options}: {error}");
    }
}

#[test]
fn a_model_without_tools_or_reasoning_says_so() {
    let engine = load("www/models/tiny-assistant");
    for (options, place) in [
        (json!({"prompt": [asked()], "tools": [weather()]}), "tools"),
        (json!({"prompt": [asked()], "reasoning": {"enabled": true}}), "reasoning.enabled"),
    ] {
        let error = reply(&engine, options).expect_err("an error");
        assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, place));
    }
    let off = json!({"prompt": [asked()], "reasoning": {"enabled": false}, "maxTokens": 1});
    assert_eq!(reply(&engine, off).expect("a reply").0.tokens.len(), 1);
}

#[test]
fn templates_tell_their_formats() {
    let of = |style: &str, source: Option<&str>| {
        let mut metadata = text::hub_metadata(style);
        if let Some(source) = source {
            metadata.companions.insert("chat_template.jinja".into(), source.into());
        }
        let template = Template::from_metadata(&metadata, &text::tokenizer(style)).expect("valid").expect("a template");
        (template.output().tools(), template.output().reasons())
    };
    for (style, told) in [
        ("qwen2", ("hermes", true)),
        ("llama3", ("llama3", false)),
        ("o200k", ("gpt-oss", true)),
        ("deepseek", ("any", true)),
        ("gemma", ("any", false)),
        ("llama2", ("any", false)),
        // Its template tells nothing; its vocabulary has the signs.
        ("smollm", ("any", true)),
    ] {
        assert_eq!(of(style, None), told, "{style}");
    }
    // What each family's published template writes before an earlier call.
    for (sign, told) in [
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "deepseek"),
        ("[TOOL_CALLS]", "mistral"),
        ("<|tool_call_start|>", "lfm2"),
        ("<|tool_call|>", "phi"),
        ("<tool_call>", "hermes"),
        ("[func_name1(params_name1=params_value1)]", "pythonic"),
        ("<|python_tag|>", "llama3"),
        ("```tool_code", "gemma"),
    ] {
        assert_eq!(of("llama2", Some(sign)).0, told, "{sign}");
    }
}

#[test]
fn reasoning_has_a_budget() {
    let engine = load("tests/data/scripted");
    let ask = |prompt: Value, tools: Value, options: Value| {
        let mut request = json!({"prompt": [prompt], "tools": tools, "maxTokens": 60});
        request.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
        reply(&engine, request).expect("a reply").0
    };
    let called = |options: Value| ask(asked(), json!([weather()]), options);
    let free = called(json!({}));
    for (budget, reasoning) in
        [(0, ""), (1, "I need"), (2, "I need the weather"), (3, "I need the weather."), (50, "I need the weather.")]
    {
        let result = called(json!({"reasoning": {"budget": budget}}));
        assert_eq!(result.reasoning, reasoning, "after {budget}");
        assert_eq!(result.tool_calls.len(), 1, "after {budget}");
    }
    assert_eq!(called(json!({"reasoning": {"budget": 50}})).tokens, free.tokens);

    // The sign that ends this one is spelled out across tokens.
    let think = json!({"role": "user", "content": "Please think."});
    let spelled = ask(think, json!([]), json!({"reasoning": {"budget": 50}}));
    assert_eq!((spelled.reasoning.as_str(), spelled.text.as_str()), ("Easy.", "Hi!"));
}

#[test]
fn a_constraint_is_on_what_comes_after_the_reasoning() {
    let engine = load("tests/data/scripted");
    // Past its script the model would fill a text with whatever comes first.
    let mut weather = weather();
    weather["function"]["parameters"]["properties"]["city"]["enum"] = json!(["Paris", "Rome"]);
    let ask = |options: Value| {
        let mut request = json!({"prompt": [asked()], "tools": [weather], "maxTokens": 90});
        request.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
        reply(&engine, request).expect("a reply").0
    };
    let must = ask(json!({"toolChoice": "required"}));
    assert_eq!((must.reasoning.as_str(), must.text.as_str()), ("I need the weather.", ""));
    assert_eq!((must.tool_calls.len(), must.constraint_complete), (1, Some(true)));
    let cut = ask(json!({"toolChoice": "required", "reasoning": {"budget": 1}}));
    assert_eq!((cut.reasoning.as_str(), cut.tool_calls.len()), ("I need", 1));
    let bound = ask(json!({"regex": "Let me (look|see)."}));
    assert_eq!((bound.reasoning.as_str(), bound.constraint_complete), ("I need the weather.", Some(true)));
    assert_eq!((bound.text.as_str(), bound.tool_calls.len()), ("", 1), "it may call instead");
    let short = ask(json!({"toolChoice": "required", "maxTokens": 3}));
    assert_eq!((short.finish_reason, short.constraint_complete), (FinishReason::Length, Some(false)));
}
