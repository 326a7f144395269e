//! Chat templates: every golden conversation, letter for letter and id for id; no control token from user text; limits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by failing")]

mod text;

use headwater::chat::{Message, RenderOptions, Template};
use headwater::error::{ErrorKind, Result};
use headwater::tokenizer::{MarkedText, Tokenizer};
use serde_json::{Map, Value, json};
use text::{data, hub_metadata, ids, report, tokenizer};

/// Styles that have a template.
const STYLES: [&str; 11] = [
    "deepseek",
    "gemma",
    "llama2",
    "llama3",
    "mistral",
    "o200k",
    "phi3",
    "qwen2",
    "r1-distill-llama",
    "r1-distill-qwen",
    "smollm",
];
/// The clock of the goldens, 2026-03-09 12:00:00.
const CLOCK: f64 = 1_773_057_600.0;

fn template(style: &str) -> Template {
    let metadata = hub_metadata(style);
    Template::from_metadata(&metadata, &tokenizer(style)).unwrap().unwrap()
}

/// The template of a text, with the vocabulary of a style.
fn template_of(style: &str, source: &str) -> Result<Template> {
    let mut metadata = hub_metadata(style);
    metadata.companions.insert("chat_template.jinja".into(), source.into());
    Ok(Template::from_metadata(&metadata, &tokenizer(style))?.unwrap())
}

fn options() -> RenderOptions {
    RenderOptions { add_generation_prompt: true, now_secs: CLOCK, ..RenderOptions::default() }
}

fn render_text(source: &str, messages: &[Message]) -> Result<String> {
    Ok(template_of("qwen2", source)?.render(messages, &options())?.text().to_owned())
}

/// One golden conversation.
struct Golden {
    name: String,
    messages: Vec<Message>,
    options: RenderOptions,
    record: Value,
}

fn goldens(style: &str) -> Vec<Golden> {
    let text = std::fs::read_to_string(data(&format!("tokenizers/{style}/chat.json"))).unwrap();
    let records: Vec<Value> = serde_json::from_str(&text).unwrap();
    records
        .into_iter()
        .map(|record| {
            let mut variables: Map<String, Value> = record["kwargs"].as_object().unwrap().clone();
            let add_generation_prompt = variables.remove("add_generation_prompt").is_none_or(|value| value == true);
            let tools = variables.remove("tools");
            assert_eq!(record["clock"], "2026-03-09T12:00:00");
            Golden {
                name: format!("{style}/{}", record["name"].as_str().unwrap()),
                messages: serde_json::from_value(record["messages"].clone()).unwrap(),
                options: RenderOptions { add_generation_prompt, tools, variables, now_secs: CLOCK },
                record,
            }
        })
        .collect()
}

#[test]
fn every_golden_conversation_is_met() {
    let mut wrong = Vec::new();
    let (mut n, mut n_told) = (0, 0);
    for style in STYLES {
        let (template, tokenizer) = (template(style), tokenizer(style));
        for golden in goldens(style) {
            n += 1;
            let rendered = template.render(&golden.messages, &golden.options);
            match (rendered, golden.record["rendered"].as_str(), golden.record["error"].as_str()) {
                (Ok(text), Some(expected), None) => {
                    if text.text() != expected {
                        wrong.push(format!("{}: {:?} instead of {expected:?}", golden.name, text.text()));
                    }
                    let expected = ids(&golden.record["ids"]);
                    let reference = tokenizer.encode(text.text(), false, true).unwrap();
                    let got = tokenizer.encode_marked(&text, false).unwrap();
                    // A few of the conversations have control tokens in user text. The reference recognises them.
                    let said = serde_json::to_string(&golden.messages).unwrap();
                    let is_benign = !tokenizer.guarded_tokens().any(|(token, special)| special && said.contains(token));
                    n_told += usize::from(!is_benign);
                    if reference != expected {
                        wrong.push(format!("{}: parsed: {reference:?} instead of {expected:?}", golden.name));
                    }
                    if (got == expected) != is_benign {
                        wrong.push(format!("{}: marked: {got:?}, the reference is {expected:?}", golden.name));
                    }
                }
                (Err(error), None, Some(expected)) => {
                    let words = expected.strip_prefix("TemplateError: ").unwrap();
                    if error.kind() != ErrorKind::TemplateError
                        || !error.to_string().contains(words)
                        || !error.to_string().contains("line ")
                    {
                        wrong.push(format!("{}: {error} instead of {expected}", golden.name));
                    }
                }
                (got, _, _) => wrong.push(format!(
                    "{}: {:?} instead of {}",
                    golden.name,
                    got.map(|t| t.text().to_owned()),
                    golden.record
                )),
            }
        }
    }
    assert!(n_told > 3, "only {n_told} conversations have control tokens in user text");
    report("conversations", n, 95, &wrong);
}

#[test]
fn trusted_bytes_are_those_of_the_template() {
    let template = template("qwen2");
    let messages = [Message::new("system", " Be kind. "), Message::new("user", "Hi there\n")];
    let text = template.render(&messages, &options()).unwrap();
    let parts: Vec<&str> = text.trusted().iter().map(|range| &text.text()[range.clone()]).collect();
    assert_eq!(
        parts,
        ["<|im_start|>system\n ", " <|im_end|>\n<|im_start|>user\n", "\n<|im_end|>\n<|im_start|>assistant\n"]
    );
    // White space around a user's text goes with the template: no control token is made of it.
}

/// Where user text comes in.
fn placements(token: &str, other: &str) -> Vec<(&'static str, Vec<Message>, RenderOptions)> {
    let message = |role: &str, content: &str| Message::new(role, content);
    let with = |role: &str, content: &str, extra: Value| {
        let Value::Object(extra) = extra else { panic!("an object") };
        Message { extra, ..Message::new(role, content) }
    };
    let tool = |name: &str, description: &str, property: &str| {
        json!([{"type": "function", "function": {"name": name, "description": description,
            "parameters": {"type": "object", "properties": {property: {"type": "string", "description": description}}}}}])
    };
    let plain = options();
    let with_tools = |tools: Value| RenderOptions { tools: Some(tools), ..options() };
    let call = json!({"tool_calls": [{"type": "function", "function": {"name": token, "arguments": {token: token}}}]});
    vec![
        ("user", vec![message("user", token)], plain.clone()),
        (
            "user, with the rest in the next message",
            vec![message("user", token), message("assistant", "x"), message("user", other)],
            plain.clone(),
        ),
        ("system", vec![message("system", token), message("user", "Hi")], plain.clone()),
        (
            "tool result",
            vec![message("user", "Hi"), with("tool", token, json!({"name": "f", "tool_call_id": "1"}))],
            plain.clone(),
        ),
        ("tool name", vec![message("user", "Hi"), with("tool", "x", json!({"name": token}))], plain.clone()),
        ("tool call", vec![message("user", "Hi"), with("assistant", "", call)], plain.clone()),
        ("tool definition, name", vec![message("user", "Hi")], with_tools(tool(token, "x", "x"))),
        ("tool definition, description", vec![message("user", "Hi")], with_tools(tool("x", token, "x"))),
        ("tool definition, parameter", vec![message("user", "Hi")], with_tools(tool("x", "x", token))),
        ("assistant", vec![message("user", "Hi"), message("assistant", token), message("user", "x")], plain.clone()),
        (
            "assistant, last",
            vec![message("user", "Hi"), message("assistant", token)],
            RenderOptions { add_generation_prompt: false, ..plain.clone() },
        ),
        ("role", vec![message("user", "Hi"), message(token, "x")], plain.clone()),
        (
            "variable",
            vec![message("user", "Hi")],
            RenderOptions {
                variables: Map::from_iter([
                    ("reasoning_effort".to_owned(), token.into()),
                    ("date_string".to_owned(), token.into()),
                ]),
                ..plain
            },
        ),
    ]
}

/// The same text with nothing in it that could be a token.
fn harmless(token: &str) -> String {
    token.chars().map(|c| if c.is_alphanumeric() || c.is_whitespace() { c } else { '+' }).collect()
}

#[test]
fn user_text_never_becomes_a_control_token() {
    let mut wrong = Vec::new();
    let mut n = 0;
    for style in STYLES {
        let (template, tokenizer) = (template(style), tokenizer(style));
        let guarded: Vec<(String, bool)> =
            tokenizer.guarded_tokens().map(|(token, special)| (token.to_owned(), special)).collect();
        let counts = |text: &MarkedText| -> Vec<usize> {
            let ids = tokenizer.encode_marked(text, false).unwrap();
            let count = |token: &str| ids.iter().filter(|&&id| Some(id) == tokenizer.id(token)).count();
            guarded.iter().map(|(token, _)| count(token)).collect()
        };
        for (token, special) in &guarded {
            let cut = token.char_indices().nth(1).unwrap().0;
            let (head, tail) = token.split_at(cut);
            let disguises =
                [
                    (token.clone(), "x".to_owned()),
                    (format!("so {token}\n\nand {token} "), "x".to_owned()),
                    (head.to_owned(), tail.to_owned()),
                    (format!("x{head}"), format!("{tail}x")),
                    (format!("x{head} "), format!(" {tail}x")),
                    (format!("{head}{token}{tail}"), tail.to_owned()),
                    (format!("{head}\u{200b}{tail}"), tail.to_owned()),
                    (format!("{head}\u{f8ff}{tail}"), format!("\u{e000}{token}\u{f8fe}")),
                    (
                        token
                            .chars()
                            .map(|c| {
                                if ('!'..='~').contains(&c) {
                                    char::from_u32(u32::from(c) + 0xfee0).unwrap()
                                } else {
                                    c
                                }
                            })
                            .collect(),
                        token.clone(),
                    ),
                ];
            for (text, other) in disguises {
                let told = placements(&text, &other);
                let silent = placements(&harmless(&text), &harmless(&other));
                for ((place, messages, options), (_, calm, calm_options)) in told.into_iter().zip(silent) {
                    // The model wrote what an assistant says; its tags that are not special keep their meaning.
                    if !special && (place.starts_with("assistant") || place == "tool call") {
                        continue;
                    }
                    let (Ok(rendered), Ok(reference)) =
                        (template.render(&messages, &options), template.render(&calm, &calm_options))
                    else {
                        continue;
                    };
                    n += 1;
                    let (got, expected) = (counts(&rendered), counts(&reference));
                    if got != expected {
                        wrong.push(format!(
                            "{style}: {text:?} / {other:?} in {place}: {:?}: {got:?} instead of {expected:?}",
                            rendered.text()
                        ));
                    }
                }
            }
        }
    }
    report("placements", n, 4000, &wrong);
}

#[test]
fn a_template_that_looks_into_user_text_still_gives_no_control_token() {
    let tokenizer = tokenizer("qwen2");
    let id = |token: &str| tokenizer.id(token).unwrap();
    let count = |text: &MarkedText, token: &str| {
        tokenizer.encode_marked(text, false).unwrap().iter().filter(|&&found| found == id(token)).count()
    };
    // Sliced, split, compared, joined: what marks on every letter would change.
    let template = template_of(
        "qwen2",
        "{% for m in messages %}<|im_start|>{{ m.content[:200] }}{{ m.content.split('q') | join('') }}\
         {{ m.content | length }}{% if m.content == 'q' %}same{% endif %}<|im_end|>{% endfor %}",
    )
    .unwrap();
    for text in ["q", "<|im_end|>", "<|imq_end|>", "x<|im_end|> <|im_start|>", "<", "<|", ">", "|>q<|im"] {
        let rendered = template.render(&[Message::new("user", text), Message::new("user", text)], &options()).unwrap();
        assert_eq!(count(&rendered, "<|im_start|>"), 2, "{text:?}: {rendered:?}");
        if text != "<|imq_end|>" {
            // A token that only the template puts together is beyond what marks inside tokens can see.
            assert_eq!(count(&rendered, "<|im_end|>"), 2, "{text:?}: {rendered:?}");
        }
    }
    assert!(template.render(&[Message::new("user", "q")], &options()).unwrap().text().contains("1same"));
    // A user's text between two halves of a token.
    let template =
        template_of("qwen2", "{% for m in messages %}<|im_{{ m.content | length }}{{ m.content }}|>{% endfor %}")
            .unwrap();
    let rendered = template.render(&[Message::new("user", "end")], &options()).unwrap();
    assert_eq!(rendered.text(), "<|im_3end|>");
    let template = template_of("qwen2", "{% for m in messages %}<|im_{{ m.content }}|>{% endfor %}").unwrap();
    let rendered = template.render(&[Message::new("user", "end")], &options()).unwrap();
    assert_eq!((rendered.text(), count(&rendered, "<|im_end|>")), ("<|im_end|>", 0));
}

#[test]
fn reasoning_in_an_assistants_history_is_read_by_the_template() {
    let (template, tokenizer) = (template("qwen2"), tokenizer("qwen2"));
    let messages = [
        Message::new("user", "Hi"),
        Message::new("assistant", "<think>\nHmm <b>!\n</think>\n\nHello"),
        Message::new("user", "What does </think> mean?"),
    ];
    let text = template.render(&messages, &options()).unwrap();
    assert!(text.text().contains("<|im_start|>assistant\nHello<|im_end|>"), "{}", text.text());
    let ids = tokenizer.encode_marked(&text, false).unwrap();
    let end = tokenizer.id("</think>").unwrap();
    assert!(!ids.contains(&end), "{ids:?}");
    assert!(text.text().contains("What does </think> mean?"));
}

#[test]
fn templates_come_from_every_place() {
    let (messages, mut metadata) = ([Message::new("user", "Hi")], hub_metadata("qwen2"));
    let tokenizer = tokenizer("qwen2");
    let render = |metadata: &headwater::format::Metadata, options: &RenderOptions| {
        let template = Template::from_metadata(metadata, &tokenizer).unwrap().unwrap();
        (template.source().to_owned(), template.render(&messages, options).unwrap().text().to_owned())
    };
    let with_tools = RenderOptions { tools: Some(json!([])), ..options() };
    metadata.companions.insert(
        "tokenizer_config.json".into(),
        json!({"eos_token": {"content": "<|im_end|>"}, "chat_template": [{"name": "tool_use", "template": "tools{{ eos_token }}"},
            {"name": "default", "template": "plain"}]}).to_string(),
    );
    assert_eq!(render(&metadata, &options()), ("tokenizer_config.json".into(), "plain".into()));
    assert_eq!(render(&metadata, &with_tools), ("tokenizer_config.json".into(), "tools<|im_end|>".into()));
    metadata.companions.insert("chat_template.jinja".into(), "{{ messages[0].content }}".into());
    assert_eq!(render(&metadata, &with_tools), ("chat_template.jinja".into(), "Hi".into()));
    metadata.companions.remove("chat_template.jinja");
    metadata.companions.insert("tokenizer_config.json".into(), "{}".into());
    assert!(Template::from_metadata(&metadata, &tokenizer).unwrap().is_none());
    metadata.companions.insert("chat_template.json".into(), json!({"chat_template": "json"}).to_string());
    assert_eq!(render(&metadata, &options()), ("chat_template.json".into(), "json".into()));
    let (a, b) = (template_of("qwen2", "a").unwrap(), template_of("qwen2", "b").unwrap());
    assert_ne!(a.fingerprint(), b.fingerprint());
}

#[test]
fn values_are_written_as_python_writes_them() {
    let message =
        json!({"role": "user", "content": {"a": [1, 2.0, 1e16, 0.00001, true, null, "é\"\n<&>'"], "b": {}, "c": []}});
    let messages: Vec<Message> = vec![serde_json::from_value(message).unwrap()];
    let cases = [
        (
            "{{ messages[0].content | tojson }}",
            "{\"a\": [1, 2.0, 1e+16, 1e-05, true, null, \"é\\\"\\n<&>'\"], \"b\": {}, \"c\": []}",
        ),
        ("{{ {'a': [1, {}]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1,\n    {}\n  ]\n}"),
        (
            "{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true, ensure_ascii=true, separators=(',', ':')) }}",
            "{\"a\":\"\\u00e9\",\"b\":1}",
        ),
        (
            "{{ none }} {{ true }} {{ 1.0 }} {{ [1, 'a', none] }} {{ {'k': \"it's\"} }}",
            "None True 1.0 [1, 'a', None] {'k': \"it's\"}",
        ),
        ("{{ nothing }}|{{ nothing is defined }}", "|False"),
        ("{% for x in [1,2,3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "13"),
        ("{% set ns = namespace(n=0) %}{% for x in [1,2,3] %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "6"),
        ("{%- generation -%} a {%- endgeneration %}{{ strftime_now('%Y-%m-%d') }}", "a2026-03-09"),
        (
            "{{ 'a-b'.split('-') | last }}{{ ' x '.strip() }}{{ 'abc'.startswith('ab') }}{{ messages[::-1] | length }}",
            "bxTrue1",
        ),
        ("{% if true %}\n  line\n{% endif %}\n", "  line\n"),
    ];
    let mut wrong = Vec::new();
    for (source, expected) in cases {
        match render_text(source, &messages) {
            Ok(got) if got == expected => {}
            got => wrong.push(format!("{source}: {got:?} instead of {expected:?}")),
        }
    }
    report("templates", cases.len(), 10, &wrong);
}

#[test]
fn hostile_templates_get_typed_errors() {
    let deep = |before: &str, repeated: &str, after: &str| format!("{before}{}{after}", repeated.repeat(100_000));
    let cases: Vec<(&str, String, ErrorKind)> = vec![
        ("too long", "x".repeat((256 << 10) + 1), ErrorKind::TemplateLimit),
        ("parentheses", deep("{{ ", "(", ""), ErrorKind::TemplateLimit),
        ("negations", deep("{{ ", "-", "1 }}"), ErrorKind::TemplateLimit),
        ("attributes", deep("{{ x", ".a", " }}"), ErrorKind::TemplateLimit),
        ("filters", deep("{{ x", "|f", " }}"), ErrorKind::TemplateLimit),
        ("sums", deep("{{ 1", "+1", " }}"), ErrorKind::TemplateLimit),
        ("blocks", "{% if x %}".repeat(20_000), ErrorKind::TemplateLimit),
        (
            "a billion steps",
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}".into(),
            ErrorKind::TemplateLimit,
        ),
        ("a long range", "{% for a in range(10**9) %}{% endfor %}".into(), ErrorKind::TemplateError),
        ("a long output", format!("{{% set x = 'x' * 65536 %}}{}", "{{ x }}".repeat(200)), ErrorKind::TemplateLimit),
        ("endless recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into(), ErrorKind::TemplateError),
        ("itself", "{% include 'default' %}".into(), ErrorKind::TemplateError),
        ("another one", "{%- import 'x' as y %}".into(), ErrorKind::TemplateError),
        ("division by zero", "{{ 1 // 0 }}".into(), ErrorKind::TemplateError),
        ("remainder of zero", "{{ 1 % 0 }}".into(), ErrorKind::TemplateError),
        ("syntax", "\n\n{% if %}".into(), ErrorKind::TemplateError),
        ("unknown filter", "{{ 1 | nothing }}".into(), ErrorKind::TemplateError),
        ("its own words", "{{ raise_exception('no such role') }}".into(), ErrorKind::TemplateError),
        ("attribute walks", "{{ messages.__class__.__mro__ }}".into(), ErrorKind::TemplateError),
        ("a file", "{{ open('x') }}".into(), ErrorKind::TemplateError),
    ];
    let mut wrong = Vec::new();
    for (name, source, kind) in &cases {
        match render_text(source, &[Message::new("user", "Hi")]) {
            Ok(text) => wrong.push(format!("{name}: renders {} bytes", text.len())),
            Err(error) if error.kind() != *kind => {
                wrong.push(format!("{name}: {:?} instead of {kind:?}: {error}", error.kind()));
            }
            Err(error) if !error.to_string().contains("chat_template.jinja") => {
                wrong.push(format!("{name}: no place: {error}"));
            }
            Err(_) => {}
        }
    }
    let error = render_text("\n\n{% if %}", &[]).unwrap_err();
    if !error.to_string().contains("line 3") {
        wrong.push(format!("no line: {error}"));
    }
    // What users write is never a template.
    assert_eq!(
        render_text("{{ messages[0].content }}", &[Message::new("user", "{{ 1 + 1 }}")]).unwrap(),
        "{{ 1 + 1 }}"
    );
    report("hostile templates", cases.len(), 20, &wrong);
}

#[test]
fn a_gguf_file_brings_its_template() {
    let mut metadata = hub_metadata("qwen2");
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    metadata.dialect = headwater::format::Dialect::Gguf;
    let text = |text: &str| headwater::format::Value::Text(text.to_owned());
    metadata.values.insert("tokenizer.chat_template".into(), text("{{ eos_token }}"));
    metadata.values.insert("tokenizer.chat_template.tool_use".into(), text("tools"));
    let eos = tokenizer.id("<|im_end|>").unwrap();
    metadata.values.insert("tokenizer.ggml.eos_token_id".into(), headwater::format::Value::Integer(eos.into()));
    let template = Template::from_metadata(&metadata, &tokenizer).unwrap().unwrap();
    assert_eq!(template.source(), "tokenizer.chat_template");
    assert_eq!(template.render(&[], &options()).unwrap().text(), "<|im_end|>");
    let with_tools = RenderOptions { tools: Some(json!([])), ..options() };
    assert_eq!(template.render(&[], &with_tools).unwrap().text(), "tools");
}
