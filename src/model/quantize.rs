//! Quantising while loading: which matrices of floats become blocks, and which format each gets.
//!
//! The choice is llama.cpp's habit (`llama-quant.cpp`, without its mixtures): the matrix that makes the logits gets more bits
//! than the rest (q6_k, or q8_0), a matrix whose rows are no whole blocks of 256 gets the nearest format with blocks of
//! 32, and one whose rows are no whole blocks of that either stays as it is. Vectors, matrices of one row and the matrix
//! that routes tokens to experts are left alone.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Plan, WeightSink};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Weight, WeightId, WeightKind};
use crate::quant::{ENCODERS, FormatId};

/// The option's name.
const OPTION: &str = "quantize";

/// Matrices that are left alone, by the ends of their names.
const LEFT_ALONE: &[&str] = &["ffn_gate_inp.weight"];

/// What takes the place of a format whose blocks do not fit.
const NARROWER: &[(FormatId, FormatId)] =
    &[(FormatId::Q4K, FormatId::Q5_0), (FormatId::Q5K, FormatId::Q5_1), (FormatId::Q6K, FormatId::Q8_0)];

/// The format of a name. Fails with `InvalidArgument`, naming those that there are.
pub(super) fn target(name: &str) -> Result<FormatId> {
    let names = || ENCODERS.iter().map(|(format, _)| format.format().name);
    let found = ENCODERS.iter().find(|(format, _)| format.format().name == name);
    found.map(|(format, _)| *format).ok_or_else(|| {
        let problem = format!("{name:?} is none of {}", names().collect::<Vec<_>>().join(", "));
        Error::new(ErrorKind::InvalidArgument, problem).at(OPTION)
    })
}

fn is_float(format: FormatId) -> bool {
    matches!(format, FormatId::F32 | FormatId::F16 | FormatId::Bf16)
}

/// The format for a matrix, if it gets one.
fn chosen(weight: &Weight, target: FormatId, makes_logits: bool) -> Option<FormatId> {
    if weight.kind != WeightKind::Matrix || weight.rows < 2 || LEFT_ALONE.iter().any(|end| weight.name.ends_with(end)) {
        return None;
    }
    let wanted = if makes_logits && target != FormatId::Q8_0 { FormatId::Q6K } else { target };
    let narrower = NARROWER.iter().find(|(format, _)| *format == wanted).map(|(_, narrower)| *narrower);
    [Some(wanted), narrower].into_iter().flatten().find(|format| format.row_bytes(weight.cols).is_some())
}

/// Changes the formats of matrices; gives back how those are stored.
///
/// Fails with `InvalidArgument` where a matrix is quantised already.
pub(super) fn choose(
    graph: &Graph,
    formats: &mut [FormatId],
    target: FormatId,
    tied: bool,
) -> Result<BTreeMap<WeightId, FormatId>> {
    let head = if tied { "token_embd.weight" } else { "output.weight" };
    let mut stored = BTreeMap::new();
    for (index, (weight, format)) in graph.weights.iter().zip(formats).enumerate() {
        if weight.kind == WeightKind::Matrix && !is_float(*format) {
            let problem = format!("{} is stored as {}; only floats are quantised", weight.name, format.format().name);
            return Err(Error::new(ErrorKind::InvalidArgument, problem).at(OPTION));
        }
        if let Some(chosen) = chosen(weight, target, weight.name == head) {
            stored.insert(WeightId(index), std::mem::replace(format, chosen));
        }
    }
    Ok(stored)
}

/// Hands rows on in the plan's formats.
pub(super) struct Quantizing<'a> {
    pub plan: &'a Plan,
    pub sink: &'a mut dyn WeightSink,
}

impl WeightSink for Quantizing<'_> {
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        self.sink.rows(weight, first_row, &convert(self.plan, weight, bytes)?)
    }
}

/// Rows of a weight as they are stored, in the plan's format.
pub(super) fn convert<'a>(plan: &Plan, weight: WeightId, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>> {
    let Some(stored) = plan.quantized.get(&weight) else { return Ok(bytes.into()) };
    let lost = || Error::new(ErrorKind::Internal, "a weight is quantised to what has no encoder");
    let cols = plan.graph.weights.get(weight.0).map(|weight| weight.cols).ok_or_else(lost)?;
    let encode = plan.formats.get(weight.0).and_then(|format| format.encoder()).ok_or_else(lost)?;
    let row_bytes = stored.row_bytes(cols).filter(|row_bytes| *row_bytes > 0).ok_or_else(lost)?;
    let mut row = vec![0.0f32; cols];
    let mut blocks = Vec::new();
    for bytes in bytes.chunks_exact(row_bytes) {
        (stored.format().decode)(bytes, &mut row);
        if row.iter().any(|weight| !weight.is_finite()) {
            let name = plan.graph.weights.get(weight.0).map_or("", |weight| weight.name.as_str());
            return Err(Error::new(ErrorKind::MalformedModel, "a weight is no number and cannot be quantised").at(name));
        }
        encode(&row, &mut blocks);
    }
    Ok(blocks.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(name: &str, rows: usize, cols: usize) -> Weight {
        Weight { name: name.into(), rows, cols, kind: WeightKind::Matrix, stacked: 1 }
    }

    #[test]
    fn the_choice_is_by_name_and_by_what_fits() {
        let cases = [
            ("blk.0.ffn_up.weight", 8, 512, FormatId::Q4K, Some(FormatId::Q4K)),
            ("blk.0.ffn_up.weight", 8, 96, FormatId::Q4K, Some(FormatId::Q5_0)),
            ("blk.0.ffn_up.weight", 8, 96, FormatId::Q5K, Some(FormatId::Q5_1)),
            ("blk.0.ffn_up.weight", 8, 172, FormatId::Q4K, None),
            ("blk.0.ffn_up.weight", 1, 512, FormatId::Q4K, None),
            ("blk.0.ffn_gate_inp.weight", 8, 512, FormatId::Q8_0, None),
            ("output.weight", 8, 512, FormatId::Q4_0, Some(FormatId::Q6K)),
            ("output.weight", 8, 96, FormatId::Q4_0, Some(FormatId::Q8_0)),
            ("output.weight", 8, 512, FormatId::Q8_0, Some(FormatId::Q8_0)),
        ];
        for (name, rows, cols, target, expected) in cases {
            let found = chosen(&weight(name, rows, cols), target, name == "output.weight");
            assert_eq!(found, expected, "{name} {rows} x {cols} to {target:?}");
        }
    }

    #[test]
    fn formats_without_an_encoder_are_refused() {
        assert_eq!(target("q4_k").unwrap(), FormatId::Q4K);
        for name in ["q2_k", "f16", "int3", ""] {
            let error = target(name).unwrap_err();
            assert_eq!((error.kind(), error.place().as_str()), (ErrorKind::InvalidArgument, "quantize"));
            assert!(error.message().contains("q8_0, q4_0"), "{error}");
        }
    }
}
