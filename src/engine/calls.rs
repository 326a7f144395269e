//! Calls of tools as a grammar: the form that the model's format gives them, the arguments by each tool's own schema.

use std::fmt::Write;

use serde_json::Value;

use super::constraint::{checked, inside};
use super::json::invalid;
use super::output::Choice;
use crate::chat::{OutputFormat, ToolDefinitions};
use crate::error::Result;
use crate::sample::Form;
use crate::tokenizer::Tokenizer;

/// The option that errors name.
pub(super) const OPTION: &str = "tools";

/// A reply that is calls of `tools`, as `choice` says; with `answer` it may be that instead.
pub(super) fn form(
    format: &OutputFormat,
    tools: &ToolDefinitions,
    choice: &Choice,
    answer: Option<&Form>,
    tokenizer: &Tokenizer,
) -> Result<Form> {
    let call = format.call_form(tokenizer);
    let (mut names, mut rules) = (Vec::new(), String::new());
    for (index, (name, parameters)) in tools.names().iter().zip(tools.parameters()).enumerate() {
        if matches!(choice, Choice::Named(named) if named != name) {
            continue;
        }
        let place = format!("{OPTION}[{index}] ({name}): parameters");
        let schema = checked(&parameters).map_err(|error| inside(error, &place))?;
        let before = literal(&format!("{}{name}{}", call.before, call.middle), tokenizer);
        let after = literal(call.after, tokenizer);
        rule(&mut rules, &format!("call_{index}"), &format!("{before} arguments_{index} {after}"));
        rule(&mut rules, &format!("arguments_{index}"), &json(&schema));
        names.push(format!("call_{index}"));
    }
    rule(&mut rules, "call", &names.join(" | "));
    let several = match call.between {
        Some(between) if !matches!(choice, Choice::Named(_)) => {
            format!("call ({} call)*", literal(between, tokenizer))
        }
        _ => "call".to_owned(),
    };
    let start = match answer {
        None => several,
        Some(answer) => {
            let body = match answer {
                Form::Json(schema) => format!("%json {schema}"),
                Form::Regex(regex) => format!("/{}/", regex.replace('/', "\\/").replace('\n', "\\n")),
                Form::Lark(_) | Form::Gbnf(_) => {
                    return Err(invalid("a grammar and tools cannot be given together").at("grammar"));
                }
            };
            rule(&mut rules, "body", &body);
            format!("{} body | {several}", literal(format.lead(), tokenizer))
        }
    };
    rule(&mut rules, "start", &start);
    Ok(Form::Lark(rules))
}

fn rule(rules: &mut String, name: &str, body: &str) {
    // Writing to a text does not fail.
    let _ = writeln!(rules, "{name}: {body}");
}

fn json(schema: &Value) -> String {
    format!("%json {schema}")
}

/// A text in a grammar, special tokens in it by their ids.
fn literal(text: &str, tokenizer: &Tokenizer) -> String {
    let mut parts = Vec::new();
    let mut rest = text;
    let ids = tokenizer.encode(text, false, true).unwrap_or_default();
    let special = ids.into_iter().filter(|id| tokenizer.is_special(*id));
    for (id, token) in special.filter_map(|id| Some((id, tokenizer.token(id)?))) {
        if let Some((before, after)) = rest.split_once(token.as_str()) {
            parts.extend((!before.is_empty()).then(|| Value::from(before).to_string()));
            parts.push(format!("<[{id}]>"));
            rest = after;
        }
    }
    parts.extend((!rest.is_empty()).then(|| Value::from(rest).to_string()));
    parts.join(" ")
}
