//! How the model's authors want it sampled: `generation_config.json` of a hub folder.

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::format::Metadata;
use crate::sample::SampleOptions;

const FILE: &str = "generation_config.json";

/// Options for requests that leave them open: as the file says, with its own library's defaults where it samples and
/// is silent (temperature 1, the 50 likeliest); none, and so greedy, where there is no file.
pub(super) fn sampling(metadata: &Metadata) -> Result<SampleOptions> {
    let Some(text) = metadata.companions.get(FILE) else { return Ok(SampleOptions::default()) };
    read(text).map_err(|error| Error::new(ErrorKind::MalformedModel, error.to_string()).at(FILE))
}

fn read(text: &str) -> Result<SampleOptions> {
    let wrong = |message: String| Error::new(ErrorKind::MalformedModel, message);
    let file: Value = serde_json::from_str(text).map_err(|error| wrong(format!("not JSON: {error}")))?;
    let number = |key: &str| match file.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| wrong(format!("{key} is no number: {value}"))),
    };
    let samples = file.get("do_sample").and_then(Value::as_bool).unwrap_or(false);
    let where_it_samples = |value: f64| samples.then_some(value);
    let options = SampleOptions {
        repetition_penalty: number("repetition_penalty")?,
        temperature: where_it_samples(number("temperature")?.unwrap_or(1.0)),
        top_k: number("top_k")?.or(where_it_samples(50.0)),
        top_p: number("top_p")?,
        min_p: number("min_p")?,
        ..SampleOptions::default()
    };
    // Ranges are judged now, not at the first reply.
    options.settings(0)?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::sample::SampleOptions;

    #[test]
    fn the_file_is_followed_where_it_speaks() {
        let none = SampleOptions::default();
        let own = read(r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [1]}"#);
        let expected =
            SampleOptions { temperature: Some(0.6), top_k: Some(20.0), top_p: Some(0.95), ..SampleOptions::default() };
        assert_eq!(own.expect("well formed"), expected);
        let silent = read(r#"{"do_sample": true, "top_p": null}"#).expect("well formed");
        assert_eq!(silent, SampleOptions { temperature: Some(1.0), top_k: Some(50.0), ..none });
        let greedy = read(r#"{"temperature": 0.6, "repetition_penalty": 1.1}"#).expect("well formed");
        assert_eq!(greedy, SampleOptions { repetition_penalty: Some(1.1), ..none });
    }

    #[test]
    fn what_is_wrong_in_it_is_named() {
        for (text, named) in [("{", "not JSON"), (r#"{"top_p": "x"}"#, "top_p"), (r#"{"top_p": 7}"#, "topP: 7")] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
