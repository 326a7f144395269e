//! The options `json`, `regex` and `grammar`: their limits, and their way to what guides a reply.

use serde_json::{Map, Value, json};

use super::json::invalid;
use super::loaded::Loaded;
use super::request::{GenerateRequest, Grammar};
use crate::error::{At, Error, ErrorKind, Result};
use crate::sample::{Constraint, Form};

/// Bytes of a schema or a grammar, at most.
pub const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// Levels of a schema, at most.
pub const MAX_SCHEMA_DEPTH: usize = 64;
/// Values of one `enum`, at most.
pub const MAX_ENUM: usize = 10_000;
/// Bytes of a regular expression, as the option or as a `pattern` of a schema, at most.
pub const MAX_PATTERN_BYTES: usize = 2 << 10;
/// Parts of a schema that are tried to find the one that is wrong, at most.
const MAX_TRIED: usize = 200;
/// Comma and colon as Python writes them, which is what models read most; and nothing else between values, so that much
/// of a text is forced, and none is endless white space.
const SEPARATORS: [(&str, &str); 2] = [("item_separator", ", "), ("key_separator", ": ")];
/// Options of llguidance in a schema; a caller's own win over ours.
const OPTIONS: &str = "x-guidance";
/// Where a schema keeps definitions that its parts name.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// What a request says of its text: the option and the form.
pub(super) fn form(request: &GenerateRequest) -> Result<Option<(&'static str, Form)>> {
    let given =
        [("json", request.json.is_some()), ("regex", request.regex.is_some()), ("grammar", request.grammar.is_some())];
    let mut given = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name);
    let Some(option) = given.next() else { return Ok(None) };
    if let Some(other) = given.next() {
        return Err(invalid(format!("this option and {option} cannot be given together")).at(other));
    }
    if request.ignore_eos {
        return Err(invalid(format!("{option} tells where the reply ends")).at("ignoreEos"));
    }
    let form = match (&request.json, &request.regex, &request.grammar) {
        (Some(schema), ..) => Form::Json(checked(schema).map_err(|error| inside(error, option))?.to_string()),
        (_, Some(regex), _) => Form::Regex(checked_regex(regex).map_err(|error| error.at(option))?.to_owned()),
        (.., Some(grammar)) => checked_grammar(grammar).map_err(|error| error.at(option))?,
        _ => return Ok(None),
    };
    Ok(Some((option, form)))
}

/// Compiles a form. An error names the option, and of a schema the part that is wrong.
pub(super) async fn compile(loaded: &Loaded, option: &str, form: &Form) -> Result<Box<dyn Constraint>> {
    let grammars = &loaded.environment.grammars;
    let error = match grammars.compile(&loaded.tokenizer, form).await {
        Ok(constraint) => return Ok(constraint),
        Err(error) => error,
    };
    let place = match (form, error.kind()) {
        (Form::Json(schema), ErrorKind::SchemaUnsupported) => locate(loaded, schema).await,
        _ => String::new(),
    };
    Err(error.at(format!("{option}{place}")))
}

/// The schema with our separators, once it is within the limits. Errors are at a path inside of it.
pub(super) fn checked(schema: &Value) -> Result<Value> {
    if !schema.is_object() && !schema.is_boolean() {
        return Err(invalid("a JSON Schema is an object, or true"));
    }
    let limit = |words: String| Error::new(ErrorKind::SchemaLimit, words);
    let size_bytes = schema.to_string().len();
    if size_bytes > MAX_SCHEMA_BYTES {
        return Err(limit(format!("the schema has {size_bytes} bytes, at most {MAX_SCHEMA_BYTES} are allowed")));
    }
    let mut waiting = vec![(String::new(), schema, 1_usize)];
    while let Some((path, value, depth)) = waiting.pop() {
        if depth > MAX_SCHEMA_DEPTH {
            return Err(limit(format!("more than {MAX_SCHEMA_DEPTH} levels")).at(path));
        }
        match value.get("enum").and_then(Value::as_array) {
            Some(values) if values.len() > MAX_ENUM => {
                let words = format!("{} values, at most {MAX_ENUM} are allowed", values.len());
                return Err(limit(words).at(format!("{path}.enum")));
            }
            _ => {}
        }
        match value.get("pattern").and_then(Value::as_str) {
            Some(pattern) if pattern.len() > MAX_PATTERN_BYTES => {
                return Err(too_long(pattern).at(format!("{path}.pattern")));
            }
            _ => {}
        }
        let deeper = depth.saturating_add(1);
        waiting.extend(members(value).map(|(step, value)| (format!("{path}{step}"), value, deeper)));
    }
    Ok(separated(schema.clone()))
}

/// A schema with our separators.
fn separated(schema: Value) -> Value {
    let mut map = match schema {
        Value::Object(map) => map,
        // What nothing fits stays so.
        Value::Bool(false) => return schema,
        _ => Map::new(),
    };
    let options = map.entry(OPTIONS).or_insert_with(|| json!({ "whitespace_flexible": false }));
    for (name, separator) in SEPARATORS {
        if let Some(options) = options.as_object_mut() {
            options.entry(name).or_insert_with(|| separator.into());
        }
    }
    Value::Object(map)
}

fn too_long(pattern: &str) -> Error {
    let words = format!("the pattern has {} bytes, at most {MAX_PATTERN_BYTES} are allowed", pattern.len());
    Error::new(ErrorKind::SchemaLimit, words)
}

/// A regular expression without anchors at its ends, where they say nothing.
fn checked_regex(regex: &str) -> Result<&str> {
    if regex.len() > MAX_PATTERN_BYTES {
        return Err(too_long(regex));
    }
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    Ok(match regex.strip_suffix('$') {
        Some(rest) if !rest.ends_with('\\') => rest,
        _ => regex,
    })
}

fn checked_grammar(grammar: &Grammar) -> Result<Form> {
    let (Grammar::Lark(text) | Grammar::Gbnf { gbnf: text }) = grammar;
    if text.len() > MAX_SCHEMA_BYTES {
        let words = format!("the grammar has {} bytes, at most {MAX_SCHEMA_BYTES} are allowed", text.len());
        return Err(Error::new(ErrorKind::SchemaLimit, words));
    }
    match grammar {
        Grammar::Gbnf { gbnf } => Ok(Form::Gbnf(gbnf.clone())),
        Grammar::Lark(lark) if lark.contains("::=") => {
            let words = "this is GBNF, and a text is read as Lark; give it as { gbnf: \"...\" }";
            Err(Error::new(ErrorKind::SchemaUnsupported, words))
        }
        Grammar::Lark(lark) => Ok(Form::Lark(lark.clone())),
    }
}

/// An error at a path inside of an option.
pub(super) fn inside(error: Error, option: &str) -> Error {
    let place = format!("{option}{}", error.place());
    Error::new(error.kind(), error.message()).at(place)
}

/// The members of an object or a list, with the step of a path that leads to them.
fn members(value: &Value) -> Box<dyn Iterator<Item = (String, &Value)> + '_> {
    match value {
        Value::Object(map) => Box::new(map.iter().map(|(key, value)| (format!(".{key}"), value))),
        Value::Array(items) => Box::new(items.iter().enumerate().map(|(index, item)| (format!("[{index}]"), item))),
        _ => Box::new(std::iter::empty()),
    }
}

/// Where the innermost schema is that does not compile even alone.
async fn locate(loaded: &Loaded, schema: &str) -> String {
    let Ok(root) = serde_json::from_str::<Value>(schema) else { return String::new() };
    let (mut place, mut here, mut tried) = (String::new(), &root, 0_usize);
    'deeper: loop {
        for (step, part) in parts(here) {
            tried = tried.saturating_add(1);
            if tried > MAX_TRIED {
                return place;
            }
            let mut alone = part.clone();
            for (name, map) in DEFINITIONS.iter().filter_map(|name| Some((*name, root.get(name)?))) {
                if let Some(alone) = alone.as_object_mut() {
                    alone.entry(name).or_insert_with(|| map.clone());
                }
            }
            let form = Form::Json(alone.to_string());
            if loaded.environment.grammars.compile(&loaded.tokenizer, &form).await.is_err() {
                place.push_str(&step);
                here = part;
                continue 'deeper;
            }
        }
        return place;
    }
}

/// The schemas that a schema has for its parts.
fn parts(schema: &Value) -> Vec<(String, &Value)> {
    let named = ["properties", "patternProperties", "$defs", "definitions"];
    let listed = ["prefixItems", "anyOf", "allOf", "oneOf"];
    let single = ["items", "additionalProperties"];
    let several = named.iter().chain(&listed).filter_map(|key| Some((key, schema.get(key)?)));
    let several = several.flat_map(|(key, all)| members(all).map(move |(step, part)| (format!(".{key}{step}"), part)));
    let single = single.iter().filter_map(|key| Some((format!(".{key}"), schema.get(key)?)));
    several.chain(single).filter(|(_, part)| part.is_object()).collect()
}

/// Adds the prefix of a reply to what its text must be: the text goes on from there.
pub(super) fn begin(constraint: &mut dyn Constraint, option: &str, prefill: &str) -> Result<()> {
    match constraint.accept_text(prefill).at(|| option.to_owned())? {
        true => Ok(()),
        false => Err(invalid(format!("{option} allows no reply that begins so")).at("prefill")),
    }
}
