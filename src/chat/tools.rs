//! Tools on their way into a template: definitions, checked one by one, and earlier calls in the form templates want.

use serde_json::{Map, Value, json};

use super::Message;
use crate::error::{Error, ErrorKind, Result};

/// Letters of a tool's name, at most; the limit of the interface that everyone copies.
const MAX_NAME: usize = 64;

/// Definitions as templates read them: `{"type": "function", "function": {"name", "description", "parameters"}}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolDefinitions {
    names: Vec<String>,
    list: Vec<Value>,
}

impl ToolDefinitions {
    /// Checks a JSON list of definitions; the function may also stand alone, without what is around it.
    ///
    /// Fails with `InvalidArgument` that names the definition by its place and name.
    pub fn from_json(value: &Value) -> Result<Self> {
        let items = value.as_array().ok_or_else(|| bad("a list of tools is needed").at("tools"))?;
        let mut tools = Self::default();
        for (index, item) in items.iter().enumerate() {
            let function = item.get("function").unwrap_or(item);
            let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
            let place = if name.is_empty() { format!("tools[{index}]") } else { format!("tools[{index}] ({name})") };
            check(item, function, name, &tools.names).map_err(|words| bad(words).at(place))?;
            tools.names.push(name.to_owned());
            tools.list.push(match item.get("function") {
                Some(_) => item.clone(),
                None => json!({ "type": "function", "function": item }),
            });
        }
        Ok(tools)
    }

    /// Their names, in their order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The JSON Schema of each one's arguments, in their order: no others than are declared, unless it speaks of others.
    pub fn parameters(&self) -> impl Iterator<Item = Value> {
        let none = || json!({ "type": "object", "properties": {}, "additionalProperties": false });
        self.list.iter().map(move |tool| match tool.pointer("/function/parameters") {
            Some(Value::Object(map)) => {
                let mut map = map.clone();
                map.entry("type").or_insert_with(|| "object".into());
                if map.contains_key("properties") {
                    map.entry("additionalProperties").or_insert(false.into());
                }
                Value::Object(map)
            }
            _ => none(),
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The list for the template.
    pub fn to_json(&self) -> Value {
        Value::Array(self.list.clone())
    }
}

fn bad(words: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, words)
}

fn check(item: &Value, function: &Value, name: &str, before: &[String]) -> std::result::Result<(), &'static str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !item.is_object() || !function.is_object() {
        return Err("an object with a function is needed");
    }
    if item.get("function").is_some() && item.get("type").is_none_or(|kind| kind != "function") {
        return Err("the type is not \"function\"");
    }
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_name) {
        return Err("a name of 1 to 64 letters, digits, underscores, hyphens and full stops is needed");
    }
    if before.iter().any(|other| other == name) {
        return Err("another tool has the same name");
    }
    if function.get("description").is_some_and(|text| !text.is_string()) {
        return Err("the description is not a text");
    }
    let Some(parameters) = function.get("parameters") else { return Ok(()) };
    let is_schema = parameters.is_object()
        && parameters.get("type").is_none_or(|kind| kind == "object")
        && parameters.get("properties").is_none_or(Value::is_object);
    if is_schema { Ok(()) } else { Err("the parameters are not the JSON Schema of an object") }
}

/// Messages whose calls have their arguments as objects, which most templates want; chat interfaces have them as text.
///
/// Fails with `InvalidArgument` that names message and call where a text is not the JSON of an object.
pub fn arguments_as_objects(messages: &[Message]) -> Result<Vec<Message>> {
    each_call(messages, |arguments| match arguments {
        Value::String(text) => match serde_json::from_str::<Map<String, Value>>(text) {
            Ok(map) => Ok(Value::Object(map)),
            Err(_) => Err(bad("the arguments are not the JSON text of an object")),
        },
        other => Ok(other.clone()),
    })
}

/// Messages whose calls have their arguments as JSON text, which some templates want.
pub fn arguments_as_text(messages: &[Message]) -> Result<Vec<Message>> {
    each_call(messages, |arguments| match arguments {
        Value::Object(_) => Ok(Value::String(arguments.to_string())),
        other => Ok(other.clone()),
    })
}

fn each_call(messages: &[Message], change: impl Fn(&Value) -> Result<Value>) -> Result<Vec<Message>> {
    let mut messages = messages.to_vec();
    for (index, message) in messages.iter_mut().enumerate() {
        let Some(calls) = message.extra.get_mut("tool_calls").filter(|calls| !calls.is_null()) else { continue };
        let place = |call: usize| format!("prompt: item {index}: tool_calls[{call}]");
        let list = calls.as_array_mut().ok_or_else(|| bad("tool_calls is not a list").at(place(0)))?;
        for (number, call) in list.iter_mut().enumerate() {
            let function = match call.get("function") {
                Some(_) => call.get_mut("function"),
                None => Some(call),
            };
            let function = function.and_then(Value::as_object_mut);
            let function = function.ok_or_else(|| bad("a call is an object with a function").at(place(number)))?;
            if !function.get("name").is_some_and(Value::is_string) {
                return Err(bad("a call names its function").at(place(number)));
            }
            if let Some(arguments) = function.get("arguments") {
                let changed = change(arguments).map_err(|error| error.at(place(number)))?;
                function.insert("arguments".to_owned(), changed);
            }
        }
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_bad_definition_is_refused_by_name() {
        let good = json!({"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}});
        let tools = ToolDefinitions::from_json(&json!([good, {"name": "bare"}])).expect("valid");
        assert_eq!(tools.names(), ["now", "bare"]);
        assert_eq!(tools.to_json()[1], json!({"type": "function", "function": {"name": "bare"}}));
        let function = |function: Value| json!([good, {"type": "function", "function": function}]);
        for (list, place, words) in [
            (json!({"name": "x"}), "tools", "a list"),
            (json!([good, 7]), "tools[1]", "an object"),
            (json!([good, {"type": "web_search", "function": {"name": "x"}}]), "tools[1] (x)", "the type"),
            (function(json!({"name": ""})), "tools[1]", "a name"),
            (function(json!({"name": "a b"})), "tools[1] (a b)", "a name"),
            (function(json!({"name": "now"})), "tools[1] (now)", "the same name"),
            (function(json!({"name": "x", "description": 7})), "tools[1] (x)", "description"),
            (function(json!({"name": "x", "parameters": []})), "tools[1] (x)", "parameters"),
            (function(json!({"name": "x", "parameters": {"type": "string"}})), "tools[1] (x)", "parameters"),
        ] {
            let error = ToolDefinitions::from_json(&list).expect_err(words);
            assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, place));
            assert!(error.message().contains(words), "{list}: {error}");
        }
    }

    #[test]
    fn arguments_become_what_a_template_wants() {
        let message = |arguments: Value| -> Vec<Message> {
            let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}});
            serde_json::from_value(json!([{"role": "assistant", "content": null, "tool_calls": [call]}]))
                .expect("valid")
        };
        let (text, object) = (message(json!("{\"a\":1}")), message(json!({"a": 1})));
        assert_eq!(arguments_as_objects(&text).expect("JSON"), object);
        assert_eq!(arguments_as_objects(&object).expect("objects"), object);
        assert_eq!(arguments_as_text(&object).expect("objects"), text);
        for broken in ["{\"a\"", "7"] {
            let error = arguments_as_objects(&message(json!(broken))).expect_err(broken);
            assert_eq!(error.place(), "prompt: item 0: tool_calls[0]");
        }
    }
}
