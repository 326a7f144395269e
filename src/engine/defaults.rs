//! How the model's authors want it sampled: `generation_config.json` of a hub folder.

use serde_json::Value;

use super::request::{MIN_P, REPETITION_PENALTY, Range, TEMPERATURE, TOP_K, TOP_P};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Metadata;
use crate::graph::SamplerSettings;

const FILE: &str = "generation_config.json";

/// Settings for requests that leave them open: as the file says, with its own library's defaults where it samples and
/// is silent (temperature 1, the 50 likeliest); greedy where there is no file.
pub(super) fn sampling(metadata: &Metadata) -> Result<SamplerSettings> {
    let Some(text) = metadata.companions.get(FILE) else { return Ok(SamplerSettings::default()) };
    read(text).map_err(|error| Error::new(ErrorKind::MalformedModel, error.to_string()).at(FILE))
}

fn read(text: &str) -> Result<SamplerSettings> {
    let wrong = |message: String| Error::new(ErrorKind::MalformedModel, message);
    let file: Value = serde_json::from_str(text).map_err(|error| wrong(format!("not JSON: {error}")))?;
    let number = |key: &str| match file.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| wrong(format!("{key} is no number: {value}"))),
    };
    let float = |key: &str, range: &Range| range.float(number(key)?);
    let samples = file.get("do_sample").and_then(Value::as_bool).unwrap_or(false);
    let off = SamplerSettings::default();
    let (temperature, top_k) = if samples { (1.0, 50) } else { (off.temperature, off.top_k) };
    Ok(SamplerSettings {
        repetition_penalty: float("repetition_penalty", &REPETITION_PENALTY)?.unwrap_or(off.repetition_penalty),
        temperature: float("temperature", &TEMPERATURE)?.filter(|_| samples).unwrap_or(temperature),
        top_k: TOP_K.integer(number("top_k")?)?.unwrap_or(top_k),
        top_p: float("top_p", &TOP_P)?.unwrap_or(off.top_p),
        min_p: float("min_p", &MIN_P)?.unwrap_or(off.min_p),
        ..off
    })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn the_file_is_followed_where_it_speaks() {
        let own = read(r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [1]}"#);
        let own = own.expect("well formed");
        assert_eq!((own.temperature, own.top_k, own.top_p, own.min_p), (0.6, 20, 0.95, 0.0));
        let silent = read(r#"{"do_sample": true, "top_p": null}"#).expect("well formed");
        assert_eq!((silent.temperature, silent.top_k, silent.top_p), (1.0, 50, 1.0));
        let greedy = read(r#"{"temperature": 0.6, "repetition_penalty": 1.1}"#).expect("well formed");
        assert_eq!((greedy.temperature, greedy.repetition_penalty), (0.0, 1.1));
    }

    #[test]
    fn what_is_wrong_in_it_is_named() {
        for (text, named) in [("{", "not JSON"), (r#"{"top_p": "x"}"#, "top_p"), (r#"{"top_p": 7}"#, "topP: 7")] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
