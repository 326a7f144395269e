//! Replies as each family's published format has them, split at every place.

use serde_json::{Value, json};

use super::formats::{REASONING, TOOLS};
use super::{Delta, OutputFormat, Splitter};

/// A format by its name, with `<think>`; gpt-oss has channels.
fn format(name: &str) -> OutputFormat {
    let plain = OutputFormat { channels: false, reasoning: REASONING.first(), tools: &TOOLS[0] };
    plain.with_tools(name).expect(name)
}

fn splitter(name: &str, prompt_end: &str) -> Splitter {
    let weather = json!({"properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "note": {}}});
    format(name).splitter(prompt_end, Some(vec![("get_weather".to_owned(), weather), ("now".to_owned(), json!({}))]))
}

/// What becomes of a reply that comes in these pieces.
fn split(mut splitter: Splitter, pieces: &[&str]) -> Delta {
    let mut whole = Delta::default();
    let mut add = |delta: Delta| {
        whole.text.push_str(&delta.text);
        whole.reasoning.push_str(&delta.reasoning);
        whole.calls.extend(delta.calls);
    };
    pieces.iter().for_each(|piece| add(splitter.push(piece)));
    add(splitter.finish());
    whole
}

struct Case {
    format: &'static str,
    /// The end of the prompt.
    after: &'static str,
    reply: &'static str,
    text: &'static str,
    reasoning: &'static str,
    calls: Vec<(&'static str, Value)>,
}

fn said(format: &'static str, reply: &'static str, text: &'static str) -> Case {
    Case { format, after: "", reply, text, reasoning: "", calls: vec![] }
}

fn called(format: &'static str, reply: &'static str, text: &'static str, calls: Vec<(&'static str, Value)>) -> Case {
    Case { calls, ..said(format, reply, text) }
}

fn paris() -> (&'static str, Value) {
    ("get_weather", json!({"city": "Paris", "days": 2}))
}

fn now() -> (&'static str, Value) {
    ("now", json!({}))
}

fn cases() -> Vec<Case> {
    vec![
        // Qwen 3's model card: reasoning between <think> and </think>, then the answer.
        Case {
            reasoning: "Let me see.\n\nYes.",
            ..said("hermes", "<think>\nLet me see.\n\nYes.\n</think>\n\nHi <b>!\n", "Hi <b>!\n")
        },
        // DeepSeek R1's template ends the prompt with <think>; the reply begins inside.
        Case {
            after: "<｜Assistant｜><think>\n", reasoning: "Hm.", ..said("deepseek", "Hm.\n</think>\n\nHi.", "Hi.")
        },
        Case { after: "<think>", reasoning: "Hm.", ..said("deepseek", "<think>\nHm.</think>Hi.", "Hi.") },
        // Qwen 3 with enable_thinking = false: the prompt ends after the reasoning.
        Case { after: "<think>\n\n</think>\n\n", ..said("hermes", "Hi.", "Hi.") },
        Case { after: "<think>", reasoning: "It never en", ..said("hermes", "It never en", "") },
        said("hermes", "A <think> in a text</think> is text.", "A <think> in a text</think> is text."),
        // Hermes 2 Pro's and Qwen's function calling guides.
        called(
            "hermes",
            "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
            "",
            vec![paris(), now()],
        ),
        Case {
            reasoning: "A tool.",
            ..called(
                "hermes",
                "<think>\nA tool.\n</think>\n\nI will look.\n\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n",
                "I will look.",
                vec![now()],
            )
        },
        called("hermes", "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}", "", vec![now()]),
        called(
            "hermes",
            "<tool_call>{\"name\": \"other\", \"arguments\": {}}</tool_call>",
            "",
            vec![("other", json!({}))],
        ),
        said(
            "hermes",
            "See: <tool_call>{\"name\": }</tool_call> there",
            "See: <tool_call>{\"name\": }</tool_call> there",
        ),
        said("hermes", "a < b, <tool and <tool_", "a < b, <tool and <tool_"),
        // Qwen 3 Coder's template; the outer signs may be missing, and a call that has to be is JSON.
        called(
            "qwen3-coder",
            "I look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
            "I look.",
            vec![paris(), now()],
        ),
        called(
            "qwen3-coder",
            "<function=get_weather>\n<parameter=city>\n12\n\n<b>\n</parameter>\n<parameter=note>\n[1, \"a\"]\n</parameter>\n</function>\n</tool_call>",
            "",
            vec![("get_weather", json!({"city": "12\n\n<b>", "note": [1, "a"]}))],
        ),
        called(
            "qwen3-coder",
            "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}\n</tool_call>",
            "",
            vec![paris()],
        ),
        said("qwen3-coder", "<tool_call>x</tool_call>", "<tool_call>x</tool_call>"),
        said("qwen3-coder", "a <function> and <functio", "a <function> and <functio"),
        // GLM 4.5's and 4.7's templates.
        Case {
            reasoning: "Hm.",
            ..called(
                "glm",
                "<think>Hm.</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>",
                "",
                vec![paris(), now()],
            )
        },
        called(
            "glm",
            "<tool_call>get_weather<arg_key>city</arg_key><arg_value>true</arg_value><arg_key>note</arg_key><arg_value>{\"a\": null}</arg_value></tool_call>",
            "",
            vec![("get_weather", json!({"city": "true", "note": {"a": null}}))],
        ),
        said("glm", "<tool_call>now<arg_key>x</tool_call>", "<tool_call>now<arg_key>x</tool_call>"),
        // FunctionGemma's guide: texts between signs, everything else bare.
        called(
            "functiongemma",
            "<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:2}<end_function_call><start_function_call>call:now{}<end_function_call><start_function_response>",
            "",
            vec![paris(), now()],
        ),
        called(
            "functiongemma",
            "<start_function_call>call:get_weather{city:<escape>a, {b}: \"c\"<escape>,note:{x:[1.5,true,<escape>y<escape>],z:null}}<end_function_call>",
            "",
            vec![("get_weather", json!({"city": "a, {b}: \"c\"", "note": {"x": [1.5, true, "y"], "z": null}}))],
        ),
        said(
            "functiongemma",
            "<start_function_call>call:now{a:<end_function_call>",
            "<start_function_call>call:now{a:<end_function_call>",
        ),
        // Llama 3.1's prompt format page: JSON alone, after <|python_tag|>, and the built-in tools' calls.
        called(
            "llama3",
            "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\", \"days\": 2}}",
            "",
            vec![paris()],
        ),
        called(
            "llama3",
            "{\"name\": \"now\", \"parameters\": {}}; {\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\", \"days\": 2}}",
            "",
            vec![now(), paris()],
        ),
        called(
            "llama3",
            "<|python_tag|>{\"type\": \"function\", \"name\": \"now\", \"parameters\": {}}",
            "",
            vec![now()],
        ),
        called(
            "llama3",
            "<|python_tag|>brave_search.call(query=\"weather \\\"now\\\"\")",
            "",
            vec![("brave_search", json!({"query": "weather \"now\""}))],
        ),
        said("llama3", "{\"name\": \"Ada\", \"amount\": 2}", "{\"name\": \"Ada\", \"amount\": 2}"),
        said(
            "llama3",
            "{\"name\": \"stranger\", \"parameters\": {}} so",
            "{\"name\": \"stranger\", \"parameters\": {}} so",
        ),
        // Llama 3.2's and Llama 4's prompt format pages: a list of Python calls.
        called("pythonic", "[get_weather(city='Paris', days=2), now()]", "", vec![paris(), now()]),
        called("pythonic", "<|python_start|>[now()]<|python_end|>", "", vec![now()]),
        said("pythonic", "[1] It's a list of sources.", "[1] It's a list of sources."),
        called(
            "pythonic",
            "[get_weather(city=\"Pa]ris\", at={'x': [1.5, True, None], \"y\": (-2,)})]",
            "",
            vec![("get_weather", json!({"city": "Pa]ris", "at": {"x": [1.5, true, null], "y": [-2]}}))],
        ),
        // LFM2's model card.
        called("lfm2", "<|tool_call_start|>[now()]<|tool_call_end|>It is", "It is", vec![now()]),
        // Mistral's tokenizers v3 (a list), v11 (a name and [ARGS]) and v7's [CALL_ID].
        called(
            "mistral",
            "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}, {\"name\": \"now\", \"arguments\": {}}]",
            "",
            vec![paris(), now()],
        ),
        called(
            "mistral",
            "[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]get_weather[CALL_ID]123456789[ARGS]{\"city\": \"Paris\", \"days\": 2}",
            "",
            vec![now(), paris()],
        ),
        said("mistral", "[TOOL] x [TOOL_CALLS", "[TOOL] x [TOOL_CALLS"),
        // DeepSeek V3's and R1's templates, then V3.1's.
        called(
            "deepseek",
            "Let me look.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"Paris\", \"days\": 2}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "Let me look.",
            vec![paris(), now()],
        ),
        called(
            "deepseek",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Paris\", \"days\": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "",
            vec![paris()],
        ),
        // Phi 4 mini's model card and its earlier form; Granite 3 leaves out the last sign.
        called("phi", "<|tool_call|>[{\"name\": \"now\", \"arguments\": {}}]<|/tool_call|>", "", vec![now()]),
        called(
            "phi",
            "functools[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}]",
            "",
            vec![paris()],
        ),
        called("phi", "<|tool_call|>[{\"arguments\": {}, \"name\": \"now\"}]", "", vec![now()]),
        said("phi", "Python's functools is a module.", "Python's functools is a module."),
        // Gemma 3's guide to function calling: a block of Python, or JSON.
        called(
            "gemma",
            "Sure.\n```tool_code\nget_weather(city=\"Paris\", days=2)\nnow()\n```\n",
            "Sure.",
            vec![paris(), now()],
        ),
        called("gemma", "{\"name\": \"now\", \"parameters\": {}}", "", vec![now()]),
        said("gemma", "```python\nprint(1)\n```", "```python\nprint(1)\n```"),
        called("json", "{\"name\": \"now\", \"arguments\": \"{}\"}", "", vec![now()]),
        called("any", "<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>", "", vec![now()]),
        // OpenAI's harmony guide.
        Case {
            reasoning: "Simple.",
            ..said(
                "gpt-oss",
                "<|channel|>analysis<|message|>Simple.<|end|><|start|>assistant<|channel|>final<|message|>Hi **you**.",
                "Hi **you**.",
            )
        },
        Case {
            reasoning: "Need it.\nReally.",
            ..called(
                "gpt-oss",
                "<|channel|>analysis<|message|>Need it.<|end|><|start|>assistant<|channel|>analysis<|message|>Really.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Paris\", \"days\": 2}<|call|>",
                "I look.",
                vec![paris()],
            )
        },
        called(
            "gpt-oss",
            "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}",
            "",
            vec![now()],
        ),
        said("gpt-oss", "no channel", "no channel"),
        said("gpt-oss", "<|channel|>analysis", ""),
    ]
}

#[test]
fn every_familys_replies_are_split_wherever_the_pieces_are_cut() {
    let mut formats: Vec<&str> = OutputFormat::tool_formats().collect();
    for case in cases() {
        formats.retain(|name| *name != case.format);
        let calls = case.calls.iter().map(|(name, arguments)| super::Call {
            name: (*name).to_owned(),
            arguments: arguments.as_object().expect("an object").clone(),
        });
        let expected = Delta { text: case.text.into(), reasoning: case.reasoning.into(), calls: calls.collect() };
        let new = || splitter(case.format, case.after);
        assert_eq!(split(new(), &[case.reply]), expected, "{}: {:?}", case.format, case.reply);
        let letters: Vec<String> = case.reply.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(split(new(), &letters), expected, "{}: {:?} by letters", case.format, case.reply);
        let cuts: Vec<usize> = case.reply.char_indices().map(|(at, _)| at).collect();
        for (index, &first) in cuts.iter().enumerate() {
            for &second in cuts.iter().skip(index).step_by(7) {
                let pieces = [&case.reply[..first], &case.reply[first..second], &case.reply[second..]];
                assert_eq!(split(new(), &pieces), expected, "{}: {pieces:?}", case.format);
            }
        }
    }
    assert_eq!(formats, Vec::<&str>::new(), "formats without a case");
}

#[test]
fn text_comes_at_once_where_no_sign_can_begin() {
    let mut splitter = splitter("hermes", "");
    assert_eq!(splitter.push("Hello").text, "Hello");
    assert_eq!(splitter.push(", you <tool").text, ", you");
    assert_eq!(splitter.push("s> there").text, " <tools> there");
}

#[test]
fn without_tools_or_reasoning_everything_is_text() {
    let reply = "<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>";
    assert_eq!(split(format("hermes").splitter("", None), &[reply]).text, reply);
    let plain = OutputFormat { reasoning: None, ..format("hermes") };
    assert_eq!(split(plain.splitter("", None), &["<think>x</think>"]).text, "<think>x</think>");
}

#[test]
fn no_sign_of_a_format_begins_another() {
    for format in TOOLS {
        let signs: Vec<&str> = format.signs().collect();
        for (index, sign) in signs.iter().enumerate() {
            let others = signs.iter().enumerate().filter(|(other, _)| *other != index);
            assert!(others.map(|(_, other)| other).all(|other| !other.starts_with(sign)), "{}: {sign}", format.name);
        }
    }
}
