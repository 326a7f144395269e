//! Schemas out of a number, each another one: objects, lists, texts, numbers, choices, references.

use serde_json::{Map, Value, json};

/// A source of choices: the numbers of Steele, Lea and Flood's SplitMix64.
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)) % end
    }
}

/// The schema of an object that holds what else there is.
pub fn schema(seed: u32) -> Value {
    let mut choices = Choices(u64::from(seed));
    let mut schema = object(&mut choices, 2);
    schema["$defs"] = json!({"code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,4}$"}});
    schema
}

fn object(choices: &mut Choices, depth: u32) -> Value {
    let count = 1 + choices.below(4);
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for number in 0..count {
        let name = ["name", "größe", "a b", "x\"y", "total"][number as usize % 5].to_owned();
        if choices.below(4) > 0 {
            required.push(name.clone());
        }
        properties.insert(name, any(choices, depth));
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn any(choices: &mut Choices, depth: u32) -> Value {
    let low = choices.below(20) as i64 - 10;
    let high = low + choices.below(1000) as i64;
    match choices.below(if depth == 0 { 11 } else { 14 }) {
        0 => json!({"type": "string", "maxLength": 20}),
        1 => json!({"type": "string", "minLength": 3, "maxLength": 12}),
        2 => json!({"type": "string", "enum": ["red", "green", "sky blue", "\"quoted\"", "äöü"]}),
        3 => json!({"type": "integer", "minimum": low, "maximum": high}),
        4 => json!({"type": "number", "exclusiveMinimum": low, "maximum": high + 1}),
        5 => json!({"type": "boolean"}),
        6 => json!({"type": ["null", "integer"], "minimum": 0, "maximum": 99}),
        7 => json!({"$ref": "#/$defs/code"}),
        8 => json!({"const": {"fixed": [1, 2.5, null, "x"]}}),
        9 => {
            let format = ["date", "time", "date-time", "ipv4", "uuid"][choices.below(5) as usize];
            json!({"type": "string", "format": format})
        }
        10 => json!({"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 500}),
        11 => {
            let least = choices.below(2);
            json!({"type": "array", "items": any(choices, depth - 1), "minItems": least, "maxItems": least + 3})
        }
        12 => json!({"anyOf": [any(choices, depth - 1), {"type": "null"}]}),
        _ => object(choices, depth - 1),
    }
}
