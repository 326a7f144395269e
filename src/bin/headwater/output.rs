//! What is printed. A reader that went away (a closed pipe) is an error like any other, not a panic.

use std::io::{Write, stdout};
use std::process::ExitCode;

use headwater::error::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::json;

/// Writes to standard output, at once.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::new(ErrorKind::Io, error.to_string()).at("standard output").caused_by(error))
}

/// Writes a line.
pub(crate) fn print_line(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// Writes a value as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    print_line(&text)
}

/// Tells an error: in words, or as `{"error": {"kind", "message"}}`. Gives the exit code 1.
pub(crate) fn fail(error: &Error, as_json: bool) -> ExitCode {
    if as_json {
        let object = json!({ "error": { "kind": error.kind().name(), "message": error.to_string() } });
        // Where standard output is gone there is nobody left to tell.
        print_json(&object).ok();
    } else {
        eprintln!("error: {error} ({})", error.kind().name());
    }
    ExitCode::FAILURE
}
