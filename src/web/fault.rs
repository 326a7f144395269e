//! Errors on their way to JavaScript and back, keeping their kind.

use js_sys::{Array, Object, Reflect};
use wasm_bindgen::{JsCast, JsValue};

use crate::error::{Error, ErrorKind};

/// The error as `Error { name: "HeadwaterError", kind, message, details: { at, causes }, retryable }`.
pub(super) fn to_js(error: &Error) -> JsValue {
    let fault = js_sys::Error::new(&error.to_string());
    fault.set_name("HeadwaterError");
    let details = Object::new();
    if !error.place().is_empty() {
        set(&details, "at", &error.place().into());
    }
    let causes = causes(error);
    if causes.length() > 0 {
        set(&details, "causes", &causes);
    }
    set(&fault, "kind", &error.kind().name().into());
    set(&fault, "details", &details);
    set(&fault, "retryable", &error.kind().retryable().into());
    fault.into()
}

/// What JavaScript threw: an error of ours keeps its kind, an abort becomes `Aborted`, the rest is `otherwise`.
pub(super) fn from_js(thrown: &JsValue, otherwise: ErrorKind) -> Error {
    let text = |key: &str| Reflect::get(thrown, &key.into()).ok().and_then(|value| value.as_string());
    let named = text("kind").and_then(|name| ErrorKind::ALL.iter().copied().find(|kind| kind.name() == name));
    let kind = match named {
        Some(kind) => kind,
        None if text("name").as_deref() == Some("AbortError") => ErrorKind::Aborted,
        None => otherwise,
    };
    let words = text("message").or_else(|| thrown.as_string()).unwrap_or_else(|| "no reason was given".to_owned());
    Error::new(kind, words)
}

/// The messages of the causes, nearest first.
fn causes(error: &Error) -> Array {
    let list = Array::new();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        list.push(&next.to_string().into());
        cause = next.source();
    }
    list
}

/// Sets a member of an object made here; a fresh, extensible object takes every member.
fn set(object: &JsValue, key: &str, value: &JsValue) {
    let taken = Reflect::set(object.unchecked_ref(), &key.into(), value);
    debug_assert!(taken.is_ok(), "a fresh object takes {key}");
}
