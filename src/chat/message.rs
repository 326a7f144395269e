//! One message of a conversation.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// A message as chat APIs write it: a role, a content, and whatever else the template may want (`name`, `tool_calls`,
/// `tool_call_id`, `reasoning_content`, ...).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, ...
    pub role: String,
    /// Usually a text; a list of parts or null where the template takes them. Absent is not the same as null.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
    /// All other fields.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A field that is there, be it null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Message {
    /// A message with a text and nothing else.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: Some(Value::String(content.into())), extra: Map::new() }
    }

    /// The content where it is a text.
    pub fn text(&self) -> Option<&str> {
        self.content.as_ref().and_then(Value::as_str)
    }

    /// The message as the template sees it.
    pub(super) fn to_json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("role".to_owned(), Value::String(self.role.clone()));
        if let Some(content) = &self.content {
            fields.insert("content".to_owned(), content.clone());
        }
        fields.extend(self.extra.clone());
        Value::Object(fields)
    }
}
