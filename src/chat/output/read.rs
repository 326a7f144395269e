//! Where calls end and what they say. Ends are found again with every piece of text, so they look at the text alone.

use serde_json::{Map, Value};

use super::{Call, python};

/// Reads all calls of a section; nothing where any of them cannot be read.
pub(super) type Read = fn(&str) -> Option<Vec<Call>>;

/// The end of calls that a sign ends.
pub(super) fn until(body: &str, sign: &str) -> Option<(usize, usize)> {
    let at = body.find(sign)?;
    Some((at, at.checked_add(sign.len())?))
}

/// The end of calls that a sign ends which is a part of them.
pub(super) fn until_after(body: &str, sign: &str) -> Option<(usize, usize)> {
    until(body, sign).map(|(_, end)| (end, end))
}

/// The end of calls that end where the first bracket is closed; brackets in quotation marks do not count.
pub(super) fn value_end(body: &str) -> Option<(usize, usize)> {
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    for (at, letter) in body.char_indices() {
        match (quote, letter) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if depth > 0 => quote = Some(letter),
            (None, '{' | '[' | '(') => depth = depth.saturating_add(1),
            (None, '}' | ']' | ')') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    let end = at.checked_add(letter.len_utf8())?;
                    return Some((end, end));
                }
            }
            (None, _) => {}
        }
    }
    None
}

/// The sign between a name and its arguments in Mistral's newer tokenizers, and the one before an id.
const ARGS: &str = "[ARGS]";
const CALL_ID: &str = "[CALL_ID]";

/// The end of Mistral's calls: `[{...}]`, or a name, `[ARGS]` and `{...}`.
pub(super) fn mistral_end(body: &str) -> Option<(usize, usize)> {
    let list = body.trim_start();
    let start = match list.starts_with('[') {
        true => body.len().checked_sub(list.len())?,
        false => body.find(ARGS)?.checked_add(ARGS.len())?,
    };
    let (end, _) = value_end(body.get(start..)?)?;
    let end = start.checked_add(end)?;
    Some((end, end))
}

/// `name [CALL_ID] id [ARGS] {...}` or a JSON list.
pub(super) fn mistral(body: &str) -> Option<Vec<Call>> {
    if body.trim_start().starts_with('[') {
        return json(body);
    }
    let (name, arguments) = body.split_once(ARGS)?;
    let name = name.split(CALL_ID).next().unwrap_or_default();
    Some(vec![call(name, &serde_json::from_str(arguments).ok()?)?])
}

/// One call as an object with `name` and `arguments` (or `parameters`), or a list of such.
pub(super) fn json(body: &str) -> Option<Vec<Call>> {
    match serde_json::from_str(body).ok()? {
        Value::Array(items) if !items.is_empty() => items.iter().map(object).collect(),
        item => Some(vec![object(&item)?]),
    }
}

/// JSON or Python's way of writing a call.
pub(super) fn either(body: &str) -> Option<Vec<Call>> {
    json(body).or_else(|| python::calls(body))
}

/// Each as `function<｜tool▁sep｜>name`, a line end and a fenced block of JSON (V3, R1), or as `name<｜tool▁sep｜>{...}`
/// (V3.1).
pub(super) fn deepseek(body: &str) -> Option<Vec<Call>> {
    let mut parts = body.split("<｜tool▁call▁begin｜>");
    if !parts.next()?.trim().is_empty() {
        return None;
    }
    let read = |part: &str| {
        let (part, _) = part.split_once("<｜tool▁call▁end｜>").unwrap_or((part, ""));
        let (first, second) = part.split_once("<｜tool▁sep｜>")?;
        let (name, arguments) = match second.split_once("```json") {
            Some((name, fenced)) => (name, fenced.split("```").next()?),
            None => (first, second),
        };
        call(name, &serde_json::from_str(arguments).ok()?)
    };
    let calls: Option<Vec<Call>> = parts.map(read).collect();
    calls.filter(|calls| !calls.is_empty())
}

fn object(item: &Value) -> Option<Call> {
    // Some write the function inside of an object that says its type.
    let item = item.get("function").filter(|inner| inner.is_object()).unwrap_or(item);
    let arguments = item.get("arguments").or_else(|| item.get("parameters"));
    call(item.get("name")?.as_str()?, arguments?)
}

/// A call of that name; the arguments are an object, the JSON text of one, or nothing.
pub(super) fn call(name: &str, arguments: &Value) -> Option<Call> {
    let name = name.trim();
    let arguments = match arguments {
        Value::Object(arguments) => arguments.clone(),
        Value::String(text) => serde_json::from_str(text).ok()?,
        Value::Null => Map::new(),
        _ => return None,
    };
    (!name.is_empty()).then(|| Call { name: name.to_owned(), arguments })
}
