//! The table of the signs that families of models write calls and reasoning with.
//!
//! Each row follows what the family's authors published: its chat template, or their guide to calling functions.

use super::read::{self, Read};
use super::tagged;

/// Signs around what a model thinks; only at a reply's beginning.
#[derive(Debug)]
pub(super) struct Reasoning {
    pub(super) open: &'static str,
    pub(super) close: &'static str,
    /// White space that models write before the answer.
    pub(super) after: &'static str,
}

/// The first whose end occurs in a template or a vocabulary counts.
pub(super) const REASONING: &[Reasoning] = &[
    // Qwen 3, DeepSeek R1, SmolLM 3, GLM, and most others.
    Reasoning { open: "<think>", close: "</think>", after: "\n\n" },
    // Magistral.
    Reasoning { open: "[THINK]", close: "[/THINK]", after: "" },
    // Command A.
    Reasoning { open: "<|START_THINKING|>", close: "<|END_THINKING|>", after: "" },
    // Seed OSS.
    Reasoning { open: "<seed:think>", close: "</seed:think>", after: "" },
];

/// One way of writing calls.
#[derive(Debug)]
pub(super) struct ToolFormat {
    pub(super) name: &'static str,
    /// Any of these in a template tells the format.
    told_by: &'static [&'static str],
    pub(super) sections: &'static [Section],
    /// What a reply that is nothing but calls begins with.
    pub(super) bare: Option<&'static Section>,
    /// Signs that end what was read already, and mean nothing of their own.
    pub(super) silent: &'static [&'static str],
    /// How a call is written where there has to be one: the first whose signs the vocabulary has, or the last.
    pub(super) writes: &'static [CallForm],
}

/// The text of a call: name and arguments, JSON, with what stands around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallForm {
    /// A special token without which the form is another one's; empty if there is none.
    pub sign: &'static str,
    /// Before the name.
    pub before: &'static str,
    /// Between name and arguments.
    pub middle: &'static str,
    /// After the arguments.
    pub after: &'static str,
    /// Between two calls, where a reply may have several.
    pub between: Option<&'static str>,
}

const fn writes(before: &'static str, middle: &'static str, after: &'static str) -> CallForm {
    CallForm { sign: "", before, middle, after, between: None }
}

/// A call as a JSON object that begins with its name, and one whose arguments are called parameters.
const OBJECT: CallForm = writes("{\"name\": \"", "\", \"arguments\": ", "}");
const PARAMETERS: CallForm = CallForm { middle: "\", \"parameters\": ", ..OBJECT };
const LIST: CallForm = CallForm { before: "[{\"name\": \"", after: "}]", ..OBJECT };

/// Calls between two signs.
#[derive(Debug)]
pub(super) struct Section {
    /// How it begins.
    pub(super) open: &'static str,
    /// How many bytes of `open` are no part of the calls.
    pub(super) skip: usize,
    /// Where the calls end and where the section does, if it does.
    pub(super) end: fn(&str) -> Option<(usize, usize)>,
    pub(super) read: Read,
    /// Whether only tools that the model was told about count: where the signs are such that an answer may have them.
    pub(super) known_only: bool,
    /// Whether values are written without quotation marks, so that only the tool's schema tells texts from numbers.
    pub(super) bare_values: bool,
}

impl ToolFormat {
    /// All its signs.
    pub(super) fn signs(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.sections.iter().map(|section| section.open).chain(self.silent.iter().copied())
    }
}

/// The format that a template tells; the first row that fits.
pub(super) fn tools_of(template: &str) -> &'static ToolFormat {
    let told = |format: &&ToolFormat| format.told_by.iter().any(|sign| template.contains(sign));
    TOOLS.iter().find(told).unwrap_or(&ANY)
}

const fn section(open: &'static str, end: fn(&str) -> Option<(usize, usize)>, read: Read) -> Section {
    Section { open, skip: open.len(), end, read, known_only: false, bare_values: false }
}

const fn bare(open: &'static str, read: Read) -> Section {
    Section { open, skip: 0, end: read::value_end, read, known_only: true, bare_values: false }
}

const HERMES: Section = section("<tool_call>", |body| read::until(body, "</tool_call>"), read::json);
const HERMES_FORM: CallForm =
    CallForm { before: "<tool_call>\n{\"name\": \"", after: "}\n</tool_call>", between: Some("\n"), ..OBJECT };
const BARE_JSON: Section = bare("{", read::json);

/// Every format; the last is for templates that tell none.
pub(super) const TOOLS: &[ToolFormat] = &[
    ToolFormat {
        name: "deepseek",
        told_by: &["<｜tool▁calls▁begin｜>"],
        sections: &[section(
            "<｜tool▁calls▁begin｜>",
            |body| read::until(body, "<｜tool▁calls▁end｜>"),
            read::deepseek,
        )],
        bare: None,
        silent: &[],
        writes: &[writes(
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        )],
    },
    ToolFormat {
        name: "mistral",
        told_by: &["[TOOL_CALLS]"],
        sections: &[section("[TOOL_CALLS]", read::mistral_end, read::mistral)],
        bare: None,
        silent: &[],
        writes: &[
            CallForm { sign: "[ARGS]", ..writes("[TOOL_CALLS]", "[ARGS]", "") },
            CallForm { before: "[TOOL_CALLS][{\"name\": \"", ..LIST },
        ],
    },
    ToolFormat {
        name: "lfm2",
        told_by: &["<|tool_call_start|>", "<|tool_list_start|>"],
        sections: &[section("<|tool_call_start|>", |body| read::until(body, "<|tool_call_end|>"), read::either)],
        bare: None,
        silent: &[],
        writes: &[CallForm { before: "<|tool_call_start|>[{\"name\": \"", after: "}]<|tool_call_end|>", ..LIST }],
    },
    // Phi 4 mini; Granite 3 writes the same without the sign at the end.
    ToolFormat {
        name: "phi",
        told_by: &["<|tool_call|>", "functools["],
        sections: &[
            section("<|tool_call|>", read::value_end, read::json),
            Section { skip: "functools".len(), ..section("functools[", read::value_end, read::json) },
        ],
        bare: None,
        silent: &["<|/tool_call|>"],
        writes: &[
            CallForm {
                sign: "<|tool_call|>",
                before: "<|tool_call|>[{\"name\": \"",
                after: "}]<|/tool_call|>",
                ..LIST
            },
            CallForm { before: "functools[{\"name\": \"", ..LIST },
        ],
    },
    // Qwen 3 Coder, which leaves the outer signs out at times.
    ToolFormat {
        name: "qwen3-coder",
        told_by: &["<function="],
        sections: &[
            Section {
                bare_values: true,
                ..section("<tool_call>", |body| read::until(body, "</tool_call>"), tagged::functions)
            },
            Section {
                skip: 0,
                bare_values: true,
                ..section("<function=", |body| read::until_after(body, "</function>"), tagged::functions)
            },
        ],
        bare: None,
        silent: &["</tool_call>"],
        writes: &[HERMES_FORM],
    },
    // GLM 4.5 and later.
    ToolFormat {
        name: "glm",
        told_by: &["<arg_key>"],
        sections: &[Section {
            bare_values: true,
            ..section("<tool_call>", |body| read::until(body, "</tool_call>"), tagged::keys_and_values)
        }],
        bare: None,
        silent: &[],
        writes: &[HERMES_FORM],
    },
    // FunctionGemma.
    ToolFormat {
        name: "functiongemma",
        told_by: &["<start_function_call>"],
        sections: &[section(
            "<start_function_call>",
            |body| read::until(body, "<end_function_call>"),
            tagged::function_gemma,
        )],
        bare: None,
        // It waits for the answer there.
        silent: &["<start_function_response>"],
        writes: &[CallForm {
            before: "<start_function_call>{\"name\": \"",
            after: "}<end_function_call>",
            between: Some(""),
            ..OBJECT
        }],
    },
    // Hermes 2 Pro, Qwen 2.5 and 3, SmolLM 3.
    ToolFormat {
        name: "hermes",
        told_by: &["<tool_call>"],
        sections: &[HERMES],
        bare: None,
        silent: &[],
        writes: &[HERMES_FORM],
    },
    // Llama 4, and Llama 3.2 where it is told so.
    ToolFormat {
        name: "pythonic",
        told_by: &["func_name1("],
        sections: &[section("<|python_start|>", |body| read::until(body, "<|python_end|>"), read::either)],
        bare: Some(&bare("[", read::either)),
        silent: &[],
        writes: &[LIST],
    },
    // Llama 3.1 to 3.3.
    ToolFormat {
        name: "llama3",
        told_by: &["<|python_tag|>", "Environment: ipython"],
        sections: &[section("<|python_tag|>", read::value_end, read::either)],
        bare: Some(&BARE_JSON),
        silent: &[],
        writes: &[PARAMETERS],
    },
    // Gemma 3, whose template says nothing of tools.
    ToolFormat {
        name: "gemma",
        told_by: &["```tool_code"],
        sections: &[section("```tool_code", |body| read::until(body, "```"), read::either)],
        bare: Some(&BARE_JSON),
        silent: &[],
        writes: &[PARAMETERS],
    },
    ToolFormat { name: "json", told_by: &[], sections: &[], bare: Some(&BARE_JSON), silent: &[], writes: &[OBJECT] },
    ANY,
];

const ANY: ToolFormat = ToolFormat {
    name: "any",
    told_by: &[],
    sections: &[
        Section { known_only: true, ..HERMES },
        Section { known_only: true, ..section("```tool_code", |body| read::until(body, "```"), read::either) },
    ],
    bare: Some(&BARE_JSON),
    silent: &[],
    writes: &[OBJECT],
};
