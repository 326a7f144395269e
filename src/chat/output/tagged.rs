//! Calls whose parameters have signs of their own. Values stand between the signs as they are; which of them are texts is told
//! by the tool's schema alone ([`by_schema`]).

use serde_json::{Map, Number, Value};

use super::Call;
use super::read::{call, json};

/// Lists and objects inside of one another, at most.
const MAX_DEPTH: usize = 32;
/// FunctionGemma's quotation mark.
const ESCAPE: &str = "<escape>";

/// `<function=name>`, `<parameter=key>`, a line with the value, `</parameter>`, ..., `</function>`: Qwen 3 Coder's.
pub(super) fn functions(body: &str) -> Option<Vec<Call>> {
    if is_json(body) {
        return json(body);
    }
    let mut parts = body.split("<function=");
    if !parts.next()?.trim().is_empty() {
        return None;
    }
    let read = |part: &str| {
        let (name, rest) = part.split_once('>')?;
        let (inside, _) = rest.split_once("</function>").unwrap_or((rest, ""));
        let mut parameters = inside.split("<parameter=");
        let mut arguments = Map::new();
        parameters.next()?.trim().is_empty().then_some(())?;
        for parameter in parameters {
            let (key, rest) = parameter.split_once('>')?;
            let (value, _) = rest.split_once("</parameter>")?;
            // The line ends beside the signs are no part of it.
            let value = value.strip_prefix('\n').unwrap_or(value);
            let value = value.strip_suffix('\n').unwrap_or(value);
            arguments.insert(key.trim().to_owned(), Value::from(value));
        }
        call(name, &Value::Object(arguments))
    };
    let calls: Option<Vec<Call>> = parts.map(read).collect();
    calls.filter(|calls| !calls.is_empty())
}

/// A name, then `<arg_key>key</arg_key>` and `<arg_value>value</arg_value>` for each argument: GLM's.
pub(super) fn keys_and_values(body: &str) -> Option<Vec<Call>> {
    if is_json(body) {
        return json(body);
    }
    let mut parts = body.split("<arg_key>");
    let name = parts.next()?;
    let mut arguments = Map::new();
    for part in parts {
        let (key, rest) = part.split_once("</arg_key>")?;
        let (_, rest) = rest.split_once("<arg_value>")?;
        let (value, _) = rest.split_once("</arg_value>")?;
        arguments.insert(key.trim().to_owned(), Value::from(value));
    }
    (!name.contains('<')).then(|| call(name, &Value::Object(arguments)).map(|call| vec![call]))?
}

/// `call:name{key:<escape>text<escape>,other:3}`: FunctionGemma's.
pub(super) fn function_gemma(body: &str) -> Option<Vec<Call>> {
    if is_json(body) {
        return json(body);
    }
    let (name, rest) = body.trim().strip_prefix("call:")?.split_once('{')?;
    let mut reader = Reader(rest);
    let arguments = reader.members(0)?;
    reader.0.trim().is_empty().then(|| call(name, &Value::Object(arguments)).map(|call| vec![call]))?
}

/// Whether a body is a call as JSON, which is how calls are written that have to be.
pub(super) fn is_json(body: &str) -> bool {
    body.trim_start().starts_with(['{', '['])
}

/// Gives values that were written without quotation marks the types that a tool's parameters have.
pub(super) fn by_schema(call: &mut Call, parameters: &Value) {
    for (key, value) in &mut call.arguments {
        let Value::String(text) = value else { continue };
        let told = parameters.get("properties").and_then(|all| all.get(key)).and_then(|one| one.get("type"));
        let is = |name: &str| match told {
            Some(Value::Array(types)) => types.iter().any(|one| one == name),
            told => told.is_some_and(|one| one == name),
        };
        if is("string") && !(is("null") && text == "null") {
            continue;
        }
        if let Ok(read) = serde_json::from_str::<Value>(text)
            && (told.is_some() || !read.is_string())
        {
            *value = read;
        }
    }
}

struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn take(&mut self, sign: &str) -> bool {
        let Some(rest) = self.0.trim_start().strip_prefix(sign) else { return false };
        self.0 = rest;
        true
    }

    fn before(&mut self, ends: &[char]) -> Option<&'a str> {
        let (word, rest) = self.0.split_at_checked(self.0.find(ends)?)?;
        self.0 = rest;
        Some(word.trim())
    }

    fn escaped(&mut self) -> Option<&'a str> {
        let (text, rest) = self.0.split_once(ESCAPE)?;
        self.0 = rest;
        Some(text)
    }

    /// What follows an opening brace, up to the closing one.
    fn members(&mut self, depth: usize) -> Option<Map<String, Value>> {
        let mut members = Map::new();
        while !self.take("}") {
            let key = if self.take(ESCAPE) { self.escaped()? } else { self.before(&[':'])? };
            self.take(":").then_some(())?;
            members.insert(key.to_owned(), self.value(depth)?);
            if !self.take(",") && !self.0.trim_start().starts_with('}') {
                return None;
            }
        }
        Some(members)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let deeper = depth.checked_add(1).filter(|depth| *depth < MAX_DEPTH)?;
        if self.take(ESCAPE) {
            return self.escaped().map(Value::from);
        }
        if self.take("{") {
            return self.members(deeper).map(Value::Object);
        }
        if self.take("[") {
            let mut items = Vec::new();
            while !self.take("]") {
                items.push(self.value(deeper)?);
                if !self.take(",") && !self.0.trim_start().starts_with(']') {
                    return None;
                }
            }
            return Some(Value::Array(items));
        }
        Some(match self.before(&[',', '}', ']'])? {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" | "None" => Value::Null,
            word => word.parse::<Number>().map_or_else(|_| Value::from(word), Value::Number),
        })
    }
}
