//! `config.json` to values: nested keys are joined with dots, and what transformers 5 writes gets the hub's older
//! names.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::Value;
use super::limits::{self, CONFIG_VALUES};
use crate::error::Result;

/// Names of transformers 5, and those of GPT-2 that some families took over, with the hub's names for the same values. Where
/// both are there, the hub's stays.
const RENAMED: &[(&str, &str)] = &[
    ("dtype", "torch_dtype"),
    ("n_embd", "hidden_size"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_inner", "intermediate_size"),
    ("n_positions", "max_position_embeddings"),
    ("rotary_emb_base", "rope_theta"),
    ("rope_parameters.rope_theta", "rope_theta"),
    ("rope_parameters.partial_rotary_factor", "partial_rotary_factor"),
    ("rope_parameters.full_attention.rope_theta", "rope_theta"),
    ("rope_parameters.sliding_attention.rope_theta", "rope_local_base_freq"),
    ("rope_scaling.type", "rope_scaling.rope_type"),
];

/// The same for whole groups, after [`RENAMED`]. Of groups for the types of layers, the older names mean those of full
/// attention; what is left of the others keeps its name.
const RENAMED_GROUPS: &[(&str, &str)] =
    &[("rope_parameters.full_attention.", "rope_scaling."), ("rope_parameters.", "rope_scaling.")];

/// The key that says how positions are scaled.
const ROPE_TYPE: &str = "rope_scaling.rope_type";
/// Its value when they are not, which the older layout says by leaving it out.
const NOT_SCALED: &str = "default";

/// All values of a configuration; nulls are left out.
pub(super) fn values(config: &Map<String, Json>) -> Result<BTreeMap<String, Value>> {
    let mut values = BTreeMap::new();
    for (key, json) in config {
        flatten(&mut values, key.clone(), json)?;
    }
    rename(&mut values);
    Ok(values)
}

/// The depth of `json` was checked when it was parsed.
fn flatten(values: &mut BTreeMap<String, Value>, key: String, json: &Json) -> Result<()> {
    if values.len() >= CONFIG_VALUES {
        return Err(limits::passed("values", CONFIG_VALUES));
    }
    match json {
        Json::Null => {}
        Json::Object(object) => {
            for (inner, json) in object {
                flatten(values, format!("{key}.{inner}"), json)?;
            }
        }
        Json::Array(items) => match array(items) {
            Some(array) => drop(values.insert(key, array)),
            None => {
                for (index, json) in items.iter().enumerate() {
                    flatten(values, format!("{key}.{index}"), json)?;
                }
            }
        },
        Json::Bool(bool) => drop(values.insert(key, Value::Bool(*bool))),
        Json::String(text) => drop(values.insert(key, Value::Text(text.clone()))),
        Json::Number(number) => {
            let float = Value::Number(number.as_f64().unwrap_or(f64::NAN));
            values.insert(key, integer(json).map_or(float, Value::Integer));
        }
    }
    Ok(())
}

fn integer(json: &Json) -> Option<i128> {
    json.as_i64().map(i128::from).or_else(|| json.as_u64().map(i128::from))
}

/// A flat array of one type; `None` where the items differ or are no plain values.
fn array(items: &[Json]) -> Option<Value> {
    let integers = || items.iter().map(Json::as_i64).collect::<Option<_>>().map(Value::Integers);
    let numbers = || items.iter().map(|item| Some(item.as_f64()? as f32)).collect::<Option<_>>().map(Value::Numbers);
    let bools = || items.iter().map(Json::as_bool).collect::<Option<_>>().map(Value::Bools);
    let texts = || items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>().map(Value::Texts);
    integers().or_else(numbers).or_else(bools).or_else(texts)
}

fn rename(values: &mut BTreeMap<String, Value>) {
    for (new, old) in RENAMED {
        if let Some(value) = values.remove(*new) {
            values.entry((*old).to_owned()).or_insert(value);
        }
    }
    for (new, old) in RENAMED_GROUPS {
        let keys: Vec<String> = values.range((*new).to_owned()..).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(inner) = key.strip_prefix(new).filter(|inner| !inner.contains('.')) else { continue };
            if let Some(value) = values.remove(&key) {
                values.entry(format!("{old}{inner}")).or_insert(value);
            }
        }
    }
    if values.get(ROPE_TYPE) == Some(&Value::Text(NOT_SCALED.to_owned())) {
        values.remove(ROPE_TYPE);
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, values};
    use crate::error::ErrorKind;
    use crate::format::json::parse_object;

    fn flat(text: &str) -> Vec<(String, Value)> {
        values(&parse_object(text, ErrorKind::MalformedModel).unwrap()).unwrap().into_iter().collect()
    }

    #[test]
    fn nested_keys_are_joined_and_nulls_left_out() {
        let found = flat(r#"{"a": {"b": 1, "c": null}, "d": [1, 2], "e": [1, 2.5], "f": ["x"], "g": [[1], "y"]}"#);
        let text = |text: &str| text.to_owned();
        let expected = vec![
            (text("a.b"), Value::Integer(1)),
            (text("d"), Value::Integers(vec![1, 2])),
            (text("e"), Value::Numbers(vec![1.0, 2.5])),
            (text("f"), Value::Texts(vec![text("x")])),
            (text("g.0"), Value::Integers(vec![1])),
            (text("g.1"), Value::Text(text("y"))),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn both_layouts_of_rope_settings_give_the_same_values() {
        let hub = r#"{"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}, "torch_dtype": "f"}"#;
        let new = r#"{"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}, "dtype": "f"}"#;
        assert_eq!(flat(hub), flat(new));
        let hub = r#"{"rope_theta": 1e4, "rope_scaling": null}"#;
        let new = r#"{"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}"#;
        assert_eq!(flat(hub), flat(new));
    }
}
