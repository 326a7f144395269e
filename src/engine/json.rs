//! JSON from callers: what is unknown, not there yet or of the wrong type is named.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// An option that the public interface names and that this version cannot honour.
pub(super) fn not_yet(option: &str) -> Error {
    invalid("this option is not supported yet").at(option)
}

/// Reads an object of options; `planned` are those that the public interface names and this version lacks.
pub(super) fn options<T: DeserializeOwned>(text: &str, planned: &[&str]) -> Result<T> {
    let value: Value = serde_json::from_str(text).map_err(|error| invalid(format!("not JSON: {error}")))?;
    if let Some(option) = value.as_object().and_then(|map| map.keys().find(|key| planned.contains(&key.as_str()))) {
        return Err(not_yet(option));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let error = invalid(error.into_inner().to_string());
        if path == "." { error } else { error.at(path) }
    })
}
