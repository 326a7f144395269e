//! Adapters as peft writes them: `adapter_config.json` says how, `adapter_model.safetensors` has the numbers under the
//! names of the hub's modules.
//!
//! Every key of the configuration is known to make no difference, or is read, or is refused where it is set.

use regex_automata::meta::Regex;
use serde_json::{Map, Value};

use super::{AdapterFile, MAX_RANK, Pairing, Role, malformed, targets, unsupported};
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::json::parse_object;
use crate::format::{ADAPTER_CONFIG, Checkpoint, TensorInfo};
use crate::model::Hyper;

/// Keys that say how the adapter was trained or loaded, not what it computes.
const NO_MATTER: &[&str] = &[
    "auto_mapping",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "target_parameters",
    "task_type",
];
/// Keys that are read below.
const READ: &[&str] = &[
    "alpha_pattern",
    "base_model_name_or_path",
    "bias",
    "init_lora_weights",
    "lora_alpha",
    "peft_type",
    "r",
    "rank_pattern",
    "use_dora",
    "use_rslora",
];
/// Starting points that leave the base as it is; those that change it (PiSSA, OLoRA, CorDA, LoRA-GA) are refused.
const STARTS: &[&str] = &["gaussian", "eva", "orthogonal", "loftq"];
/// What peft puts before the names of a model's modules.
const PREFIX: &str = "base_model.model.";

/// What peft puts behind the name of a module of which it changes two parameters, for the one that it took first.
const NESTED: &str = ".base_layer";

pub(super) fn read(adapter: &Checkpoint, hyper: &Hyper) -> Result<AdapterFile> {
    let text = adapter.metadata.companions.get(ADAPTER_CONFIG).map_or("", String::as_str);
    let config = parse_object(text, ErrorKind::MalformedModel).and_then(Config::read).at(|| ADAPTER_CONFIG.into())?;
    let mut pairing = Pairing::new();
    for tensor in &adapter.tensors {
        let (target, role) = place(&tensor.name).at(|| tensor.name.clone())?;
        match role {
            Role::Magnitude if !config.dora => {
                return Err(malformed("a length of rows, where use_dora is false").at(tensor.name.as_str()));
            }
            _ => pairing.add(target, role, tensor)?,
        }
    }
    let partner = |target: &str, letter: &str| format!("{PREFIX}{target}.lora_{letter}.weight");
    let modules = pairing.modules(parameter(hyper), |target, rank| config.scaling(target, rank), partner)?;
    if let Some(module) = modules.iter().find(|module| config.dora && module.magnitude.is_none()) {
        let name = format!("{PREFIX}{}.lora_magnitude_vector", module.target);
        return Err(malformed("the tensor is missing, and use_dora is true").at(name));
    }
    Ok(AdapterFile { name: None, base_model: config.base_model, modules })
}

/// Experts in one parameter (`target_parameters`) have the name of its module, which has two; which one it is, the shapes tell.
fn parameter(hyper: &Hyper) -> impl Fn(String, &TensorInfo, &TensorInfo) -> (String, usize) {
    let experts = hyper.experts.as_ref().map(|experts| (experts.routing.experts, experts.ffn_dim));
    let dim = hyper.dim;
    move |target, a, b| {
        let module = target.strip_suffix(NESTED).unwrap_or(&target);
        let Some((count, ffn_dim)) = experts.filter(|_| module.ends_with(".experts")) else { return (target, 1) };
        let (cols, rows) = (a.shape.last(), b.shape.first());
        let both = cols == Some(&dim) && rows == Some(&ffn_dim.saturating_mul(2));
        (format!("{module}.{}", if both { targets::GATE_UP } else { targets::DOWN }), count)
    }
}

/// The module of a tensor, and its part in it.
fn place(name: &str) -> Result<(&str, Role)> {
    let whole = || unsupported("modules that were saved as a whole (modules_to_save) are not supported");
    let (module, part) = name.split_once(".lora_").ok_or_else(whole)?;
    let module = module.strip_prefix(PREFIX).unwrap_or(module);
    // Older files have the adapter's name between: `lora_A.default.weight`.
    let role = match part.split_once('.').unwrap_or((part, "weight")) {
        ("A", rest) if rest.ends_with("weight") => Role::A,
        ("B", rest) if rest.ends_with("weight") => Role::B,
        ("magnitude_vector", _) => Role::Magnitude,
        ("embedding_A" | "embedding_B", _) => return Err(unsupported("adapters of embeddings are not supported")),
        _ => return Err(unsupported(format!("lora_{part} is not supported"))),
    };
    Ok((module, role))
}

/// What of a configuration matters.
struct Config {
    base_model: Option<String>,
    rank: usize,
    alpha: f64,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
    rslora: bool,
    dora: bool,
}

impl Config {
    fn read(config: Map<String, Value>) -> Result<Self> {
        let text = |key: &str| config.get(key).and_then(Value::as_str);
        let refuse = |key: &str| {
            let found = config.get(key).map(Value::to_string).unwrap_or_default();
            unsupported(format!("{} is not supported", found.chars().take(80).collect::<String>())).at(key)
        };
        if text("peft_type") != Some("LORA") {
            return Err(refuse("peft_type"));
        }
        if let Some(key) = config.iter().find(|(key, value)| !is_known(key) && is_set(value)).map(|(key, _)| key) {
            return Err(refuse(key));
        }
        if text("bias").is_some_and(|bias| bias != "none") {
            return Err(refuse("bias"));
        }
        if text("init_lora_weights").is_some_and(|start| !STARTS.contains(&start)) {
            return Err(refuse("init_lora_weights"));
        }
        let switch = |key: &str| match config.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| malformed("a boolean is needed").at(key)),
        };
        let number = |key: &str| {
            let value = config.get(key).ok_or_else(|| malformed("the key is missing").at(key))?;
            finite(value).at(|| key.to_owned())
        };
        Ok(Self {
            base_model: text("base_model_name_or_path").filter(|name| !name.is_empty()).map(str::to_owned),
            rank: rank_of(number("r")?).at(|| "r".to_owned())?,
            alpha: number("lora_alpha")?,
            ranks: patterns(&config, "rank_pattern")?,
            alphas: patterns(&config, "alpha_pattern")?,
            rslora: switch("use_rslora")?,
            dora: switch("use_dora")?,
        })
    }

    /// The factor on `B A` of a module whose matrices have that rank: `alpha / rank`, with rsLoRA `alpha / sqrt(rank)`.
    fn scaling(&self, module: &str, rank: usize) -> Result<f32> {
        let first = |patterns: &[(Regex, f64)]| {
            patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
        };
        let expected = first(&self.ranks).map_or(Ok(self.rank), rank_of)?;
        if expected != rank {
            return Err(malformed(format!("rank {rank} in the tensors where {ADAPTER_CONFIG} says {expected}")));
        }
        let alpha = first(&self.alphas).unwrap_or(self.alpha);
        let divisor = if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok((alpha / divisor) as f32)
    }
}

fn is_known(key: &str) -> bool {
    NO_MATTER.contains(&key) || READ.contains(&key)
}

/// Whether a value says more than that there is nothing.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        _ => true,
    }
}

fn finite(value: &Value) -> Result<f64> {
    value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| malformed(format!("{value} is no number")))
}

fn rank_of(number: f64) -> Result<usize> {
    match number {
        rank if rank.fract() == 0.0 && (1.0..=MAX_RANK as f64).contains(&rank) => Ok(rank as usize),
        other => {
            Err(Error::new(ErrorKind::LimitExceeded, format!("rank {other}; supported are whole ones to {MAX_RANK}")))
        }
    }
}

/// Patterns of modules with their numbers; as in peft the first that matches the end of a name, from a dot on, counts.
fn patterns(config: &Map<String, Value>, key: &str) -> Result<Vec<(Regex, f64)>> {
    let Some(Value::Object(patterns)) = config.get(key).filter(|value| is_set(value)) else { return Ok(vec![]) };
    let read = |(pattern, value): (&String, &Value)| {
        let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
            .map_err(|error| unsupported("the pattern cannot be read").caused_by(error).at(pattern.as_str()))?;
        Ok((regex, finite(value).at(|| pattern.clone())?))
    };
    patterns.iter().map(read).collect::<Result<_>>().at(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(change: Value) -> Result<Config> {
        let mut config = json!({ "peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none" });
        let (Some(config), Value::Object(change)) = (config.as_object_mut(), change) else { panic!("objects") };
        config.extend(change);
        Config::read(config.clone())
    }

    #[test]
    fn scalings_follow_patterns_in_their_order() {
        let plain = config(json!({})).unwrap();
        assert_eq!(plain.scaling("model.layers.0.self_attn.q_proj", 8).unwrap(), 2.0);
        assert_eq!(config(json!({ "use_rslora": true, "r": 4 })).unwrap().scaling("x", 4).unwrap(), 8.0);
        let patterns = config(json!({
            "rank_pattern": { "v_proj": 2, "^model\\.layers\\.[01]\\..*": 4 },
            "alpha_pattern": { "layers.1.self_attn.v_proj": 1, "v_proj": 32 },
        }));
        let patterns = patterns.unwrap();
        for (module, rank, scaling) in [
            ("model.layers.1.self_attn.v_proj", 2, 0.5),
            ("model.layers.11.self_attn.v_proj", 2, 16.0),
            ("model.layers.1.self_attn.q_proj", 4, 4.0),
            ("model.layers.2.mlp.xv_proj", 8, 2.0),
        ] {
            assert_eq!(patterns.scaling(module, rank).unwrap(), scaling, "{module}");
        }
        let wrong = patterns.scaling("model.layers.1.self_attn.v_proj", 8).unwrap_err();
        assert_eq!((wrong.kind(), wrong.message().contains("rank 8")), (ErrorKind::MalformedModel, true));
    }

    #[test]
    fn names_of_tensors() {
        let module = "model.layers.3.mlp.up_proj";
        for (tail, role) in [
            ("lora_A.weight", Role::A),
            ("lora_B.weight", Role::B),
            ("lora_A.default.weight", Role::A),
            ("lora_magnitude_vector", Role::Magnitude),
            ("lora_magnitude_vector.default.weight", Role::Magnitude),
        ] {
            for name in [format!("base_model.model.{module}.{tail}"), format!("{module}.{tail}")] {
                let (found, found_role) = place(&name).unwrap();
                assert_eq!((found, found_role as usize), (module, role as usize));
            }
        }
        for name in ["base_model.model.lm_head.weight", "m.embed_tokens.lora_embedding_A", "m.q_proj.lora_B.bias"] {
            assert_eq!(place(name).err().map(|error| error.kind()), Some(ErrorKind::UnsupportedFormat), "{name}");
        }
    }
}
