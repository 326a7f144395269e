//! Values from standard input, a line of JSON each.

use std::io::{BufRead, stdin};

use headwater::error::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Line {
    text: String,
}

/// The values of lines, as they come.
pub(crate) fn read<T: DeserializeOwned>() -> impl Iterator<Item = Result<T>> {
    stdin().lock().lines().enumerate().map(|(index, line)| {
        let place = || format!("line {}", index + 1);
        let line = line.map_err(|error| Error::new(ErrorKind::Io, error.to_string()).at(place()))?;
        serde_json::from_str(&line)
            .map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()).at(place()))
    })
}

/// The texts of lines `{"text": ...}`, as they come.
pub(crate) fn texts() -> impl Iterator<Item = Result<String>> {
    read().map(|line: Result<Line>| Ok(line?.text))
}
