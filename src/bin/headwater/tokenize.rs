//! `headwater tokenize`: texts to ids, a line of JSON each.

use std::io::{BufRead, stdin};

use headwater::error::{Error, ErrorKind, Result};
use headwater::tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::json;

use crate::args::TokenizeArgs;
use crate::model;
use crate::output::print_json;

#[derive(Deserialize)]
struct Line {
    text: String,
}

pub(crate) async fn run(args: &TokenizeArgs) -> Result<()> {
    let tokenizer = Tokenizer::from_metadata(&model::open(&args.common).await?.metadata)?;
    for (index, line) in stdin().lock().lines().enumerate() {
        let place = || format!("line {}", index + 1);
        let line = line.map_err(|error| Error::new(ErrorKind::Io, error.to_string()).at(place()))?;
        let line: Line = serde_json::from_str(&line)
            .map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()).at(place()))?;
        let ids = tokenizer.encode(&line.text, args.add_special, !args.plain)?;
        let text = tokenizer.decode(&ids, false)?;
        print_json(&json!({ "ids": ids, "text": text }))?;
    }
    Ok(())
}
