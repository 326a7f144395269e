//! What a caller of [`Engine::load`](super::Engine::load) chooses and what the edge lends: clock, chance, a pause.

use serde::{Deserialize, Serialize};

use super::json::{self, invalid};
use crate::error::Result;
use crate::gpu::Kept;
use crate::graph::KvFormat;
use crate::model::PlanOptions;
use crate::sample::Grammars;
use crate::source::LocalFuture;

/// What the engine needs of the world around it.
pub struct Environment {
    /// Seconds since 1970, for templates that write the date and for timings.
    pub now_secs: Box<dyn Fn() -> f64>,
    /// A fresh random number, for replies without a seed.
    pub seed: Box<dyn Fn() -> u32>,
    /// Lets other work of this thread (the message of an abort) have its turn.
    pub yield_now: Box<dyn Fn() -> LocalFuture<'static, ()>>,
    /// Compiles what replies of the model must be.
    pub grammars: Box<dyn Grammars>,
    /// Keeps what was measured of this machine.
    pub kept: Box<dyn Kept>,
}

/// The name of activations that are rounded to bytes, as an option and among a backend's features.
pub(super) const INT8: &str = "int8";

/// What runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendChoice {
    /// The GPU; the CPU where there is none.
    #[default]
    Auto,
    /// The GPU, or an error.
    #[serde(alias = "webgpu")]
    Gpu,
    /// The CPU.
    Cpu,
}

/// Options of a load.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadOptions {
    /// What runs the model.
    pub backend: BackendChoice,
    /// Tokens that prompt and reply may have together; the model's own length, at most
    /// [`DEFAULT_CONTEXT`](super::DEFAULT_CONTEXT), when absent.
    pub context: Option<usize>,
    /// 32-bit floats throughout, keys and values included, for comparing with references.
    pub exact: bool,
    /// How keys and values are stored: `"f16"`, `"f32"`, `"q8_0"` or `"q4_0"`; f16 when absent, f32 with `exact`.
    pub kv_format: Option<String>,
    /// What decoding on the GPU multiplies integer weights with: `"f32"`, or `"int8"`, activations rounded to signed bytes,
    /// 32 with one scale. `"f32"` when absent: which is faster differs from device to device, and ids may differ.
    pub activations: Option<String>,
    /// The architecture that the files are read as, in the place of the one that they name.
    pub architecture: Option<String>,
    /// The format that matrices of floats are quantised to while they are loaded: `"q4_k"`, `"q8_0"`, ...
    pub quantize: Option<String>,
    /// Whether what the device computes is held against the interpreter before a model is trusted to it; true when absent.
    pub self_test: Option<bool>,
}

/// Options of the package that never reach the engine, for references to a hub or for the page's side.
const ELSEWHERE: &[&str] = &["revision", "token", "endpoint", "policy", "lock", "worker", "persist", "onEvent"];

impl LoadOptions {
    /// Reads the options of the package's interface. `InvalidArgument` names what is unknown, not there yet or wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        json::options(text, ELSEWHERE)
    }

    /// How keys and values are stored.
    pub(super) fn kv(&self) -> Result<KvFormat> {
        let format = match self.kv_format.as_deref() {
            None if self.exact => KvFormat::F32,
            None => KvFormat::F16,
            Some(name) => KvFormat::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
                let known = KvFormat::ALL.map(KvFormat::name).join(", ");
                invalid(format!("{name:?} is none of {known}")).at("kvFormat")
            })?,
        };
        if self.exact && format != KvFormat::F32 {
            return Err(invalid("an exact model keeps keys and values as f32").at("kvFormat"));
        }
        Ok(format)
    }

    /// Whether activations that are decoded are rounded to bytes.
    pub(super) fn rounds(&self) -> Result<bool> {
        let rounds = match self.activations.as_deref() {
            None | Some("f32") => false,
            Some(INT8) => true,
            Some(other) => return Err(invalid(format!("{other:?} is none of f32, int8")).at("activations")),
        };
        let problem = match () {
            () if rounds && self.exact => "an exact model keeps activations as f32",
            () if rounds && self.backend == BackendChoice::Cpu => "the CPU rounds activations in its own way",
            () => return Ok(rounds),
        };
        Err(invalid(problem).at("activations"))
    }

    /// What of them concerns the plan.
    pub(super) fn plan(&self) -> PlanOptions {
        PlanOptions { context: self.context, architecture: self.architecture.clone(), quantize: self.quantize.clone() }
    }
}

/// Where a load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// The headers have been read and checked.
    Inspect,
    /// The device is being made ready.
    Compile,
    /// Weights are on their way.
    Weights,
    /// The model can be used.
    Ready,
}

/// One report of a load.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Where the load is.
    pub phase: Phase,
    /// The file that is being read.
    pub file: String,
    /// Bytes of weights so far.
    pub loaded_bytes: u64,
    /// Bytes of weights in all.
    pub total_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::{BackendChoice, LoadOptions};
    use crate::error::ErrorKind;
    use crate::graph::KvFormat;

    #[test]
    fn options_are_read_as_the_package_writes_them() {
        let options =
            LoadOptions::from_json(r#"{"backend": "webgpu", "context": 64, "kvFormat": "f32"}"#).expect("valid");
        assert_eq!((options.backend, options.context, options.exact), (BackendChoice::Gpu, Some(64), false));
        assert_eq!(options.kv().expect("valid"), KvFormat::F32);
        assert_eq!(options.plan().context, Some(64));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (text, named) in [
            (r#"{"backend": "tpu"}"#, "backend"),
            (r#"{"context": -1}"#, "context"),
            (r#"{"revision": "main"}"#, "revision: this option is not supported yet"),
            (r#"{"colour": "red"}"#, "colour"),
            ("[", "not JSON"),
        ] {
            let error = LoadOptions::from_json(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(named), "{text}: {error}");
        }
        for (text, rounds) in [
            ("{}", Some(false)),
            (r#"{"activations": "f32", "exact": true}"#, Some(false)),
            (r#"{"activations": "int8"}"#, Some(true)),
        ]
        .into_iter()
        .chain([r#""int4""#, r#""int8", "exact": true"#, r#""int8", "backend": "cpu""#].map(|value| (value, None)))
        {
            let json = if rounds.is_some() { text.to_owned() } else { format!(r#"{{"activations": {text}}}"#) };
            match (LoadOptions::from_json(&json).expect("well formed").rounds(), rounds) {
                (found, Some(rounds)) => assert_eq!(found.expect("valid"), rounds, "{json}"),
                (found, None) => assert_eq!(found.expect_err(&json).place(), "activations"),
            }
        }
        let small = LoadOptions::from_json(r#"{"kvFormat": "q8_0"}"#).expect("valid");
        assert_eq!(small.kv().expect("valid"), KvFormat::Q8_0);
        for text in [r#"{"kvFormat": "int3"}"#, r#"{"kvFormat": "f16", "exact": true}"#] {
            let error = LoadOptions::from_json(text).expect("well formed").kv().expect_err(text);
            assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "kvFormat"));
        }
    }
}
