//! Adapters on a device: beside every matrix that one changes, an A and a B that fit its rows; and a pair of programs that
//! multiply by them too. The model's own planes are shared.
//!
//! A matrix may hold several weights, so its A stands for those of all of them, one above another, and its B has as many
//! columns: a row of B is zero but for the columns of its own weight. One kernel more for A and one for B then serve a
//! matrix, whatever is joined in it; the zeros cost less than kernels would. Experts' matrices, one above another, have as
//! many such pairs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::device::Device;
use super::planes::Matrices;
use super::program::Program;
use super::stage::{Class, Matrix, Part};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Delta, DeltaValues, WeightId};
use crate::quant::FormatId;

/// What an adapter does to one matrix.
#[derive(Clone, Copy, Debug)]
pub struct Joint {
    /// The matrix `(rank, cols)`.
    pub(super) a: usize,
    /// The matrix `(rows, rank)`.
    pub(super) b: usize,
    /// Of all weights in the matrix together (of one expert), filled up to whole groups of eight.
    pub(super) rank: usize,
    /// On the product with A.
    pub(super) factor: f32,
    /// Where its gains start in the buffer of vectors, in elements.
    pub(super) gain: Option<usize>,
}

/// Where one delta lies.
struct Home {
    joint: usize,
    /// Of its rank, in A and B.
    first: usize,
    /// Of its rows.
    part: Part,
    /// Folded into B, where the weights of a matrix differ in theirs.
    factor: f32,
}

/// Which matrices an adapter needs, and what goes where.
pub(super) struct AdapterLayout {
    /// By the model's matrix. Matrices of the adapter come after those of the model.
    pub(super) joints: BTreeMap<usize, Joint>,
    /// A and B of each joint, in order.
    pub(super) matrices: Vec<Matrix>,
    /// Elements of the buffer of vectors: the model's, then the gains.
    pub(super) vectors: usize,
    homes: Vec<Home>,
    deltas: Vec<Delta>,
}

/// Columns of A and B are whole groups of this many.
const GROUP: usize = 8;

impl AdapterLayout {
    /// Lays an adapter out beside the model's matrices, whose vectors have that many elements.
    pub(super) fn new(model: &[Matrix], model_vectors: usize, deltas: &[Delta]) -> Result<Self> {
        let mut layout = Self {
            joints: BTreeMap::new(),
            matrices: vec![],
            vectors: model_vectors,
            homes: vec![],
            deltas: deltas.to_vec(),
        };
        let mut homes: BTreeMap<usize, Home> = BTreeMap::new();
        for (index, matrix) in model.iter().enumerate() {
            let delta_of = |part: &Part| deltas.iter().position(|delta| delta.weight == part.weight);
            let changed: Vec<(usize, Part)> =
                matrix.parts.iter().filter_map(|part| Some((delta_of(part)?, *part))).collect();
            let Some(&(first, _)) = changed.first() else { continue };
            let all = |same: &dyn Fn(&Delta) -> bool| changed.iter().all(|(index, _)| same(&deltas[*index]));
            let common = deltas[first].factor;
            let shared = all(&|delta| delta.factor == common);
            let factor = if shared { common } else { 1.0 };
            let format_of = |of: usize| {
                let format = deltas[first].formats[of];
                if all(&|delta| delta.formats[of] == format) { format } else { FormatId::F32 }
            };
            // A product with a factor is rounded, so that it is kept as it is computed.
            let b_format = if shared { format_of(1) } else { FormatId::F32 };
            let gain = (!all(&|delta| !delta.gain)).then_some(layout.vectors);
            if gain.is_some() {
                layout.vectors += matrix.rows.next_multiple_of(4);
            }
            let (joint, mut rank) = (layout.matrices.len() / 2, 0);
            let mut parts = vec![];
            for (delta, part) in &changed {
                let own = if shared { 1.0 } else { deltas[*delta].factor };
                homes.insert(*delta, Home { joint, first: rank, part: *part, factor: own });
                rank += deltas[*delta].rank;
            }
            let rank = rank.next_multiple_of(GROUP);
            let stacked = deltas[first].stacked;
            for (delta, expert) in
                changed.iter().flat_map(|(delta, _)| (0..stacked).map(move |expert| (*delta, expert)))
            {
                let first_row = expert * rank + homes.get(&delta).map_or(0, |home| home.first);
                parts.push(Part { weight: a_key(deltas, delta, expert), first_row, row_step: 1 });
            }
            let b_part = |(delta, part): &(usize, Part)| Part { weight: b_key(*delta), ..*part };
            let b_parts = changed.iter().map(b_part).collect();
            let at = model.len() + layout.matrices.len();
            layout.matrices.push(Matrix { format: format_of(0), rows: stacked * rank, cols: matrix.cols, parts });
            layout.matrices.push(Matrix { format: b_format, rows: matrix.rows, cols: rank, parts: b_parts });
            layout.joints.insert(index, Joint { a: at, b: at + 1, rank, factor, gain });
        }
        if homes.len() != deltas.len() {
            return Err(Error::new(ErrorKind::Internal, "an adapter of a weight that no product uses"));
        }
        layout.homes = homes.into_values().collect();
        Ok(layout)
    }
}

/// What the rows of a delta's A are called among the matrices, those of each expert by themselves.
fn a_key(deltas: &[Delta], delta: usize, expert: usize) -> WeightId {
    WeightId(2 * (expert * deltas.len() + delta))
}

/// What the rows of its B are called.
fn b_key(delta: usize) -> WeightId {
    WeightId(2 * delta + 1)
}

/// An adapter on a device.
pub(super) struct Adapter {
    layout: AdapterLayout,
    matrices: Matrices,
    /// The model's vectors and the gains, where there are any.
    vectors: Option<wgpu::Buffer>,
    gains: RefCell<Vec<f32>>,
    first_gain: usize,
    filled: RefCell<Vec<bool>>,
    programs: Vec<Program>,
    /// What the programs were last told.
    scale: Cell<f32>,
}

impl Adapter {
    pub(super) fn new(
        layout: AdapterLayout,
        matrices: Matrices,
        vectors: Option<wgpu::Buffer>,
        model_vectors: usize,
        programs: Vec<Program>,
    ) -> Self {
        Self {
            gains: RefCell::new(vec![0.0; layout.vectors - model_vectors]),
            first_gain: model_vectors,
            filled: RefCell::new(vec![false; layout.deltas.len()]),
            layout,
            matrices,
            vectors,
            programs,
            scale: Cell::new(1.0),
        }
    }

    /// The program of a class.
    pub(super) fn program(&self, class: Class) -> Option<&Program> {
        self.programs.get(if class == Class::Prefill { 0 } else { 1 })
    }

    /// Uploads the numbers of a delta.
    pub(super) fn fill(&self, device: &Device, index: usize, values: &DeltaValues<'_>) -> Result<()> {
        let internal = |words: &str| Error::new(ErrorKind::Internal, words);
        let (Some(delta), Some(home)) = (self.layout.deltas.get(index), self.layout.homes.get(index)) else {
            return Err(internal("an adapter has no such delta"));
        };
        let (a, b) = (&self.layout.matrices[2 * home.joint], &self.layout.matrices[2 * home.joint + 1]);
        let rows = values.b.len() / delta.rank.max(1);
        if values.a.len() != delta.stacked * delta.rank * a.cols || values.b.len() != rows * delta.rank {
            return Err(internal("the numbers of a delta are not as many as it has"));
        }
        let floats = |format: FormatId, numbers: &[f32]| {
            format.encode_floats(numbers).ok_or_else(|| internal("an adapter is kept as floats"))
        };
        for (expert, own) in values.a.chunks_exact((delta.rank * a.cols).max(1)).enumerate() {
            self.matrices.rows(a_key(&self.layout.deltas, index, expert), 0, &floats(a.format, own)?)?;
        }
        let mut wide = vec![0.0; rows * b.cols];
        for (wide, row) in wide.chunks_exact_mut(b.cols).zip(values.b.chunks_exact(delta.rank)) {
            for (wide, number) in wide[home.first..].iter_mut().zip(row) {
                *wide = number * home.factor;
            }
        }
        self.matrices.rows(b_key(index), 0, &floats(b.format, &wide)?)?;
        if let (Some(gain), Some(buffer)) = (values.gain, &self.vectors) {
            let joint = self.layout.joints.values().nth(home.joint).and_then(|joint| joint.gain);
            let start = joint.ok_or_else(|| internal("a gain where none was announced"))? - self.first_gain;
            let mut gains = self.gains.borrow_mut();
            for (row, gain) in gain.iter().enumerate() {
                gains[start + home.part.first_row + row * home.part.row_step] = *gain;
            }
            let own = &gains[start..start + b.rows];
            device.write(buffer, (self.first_gain + start) as u64 * 4, bytemuck::cast_slice(own));
        } else if delta.gain || values.gain.is_some() {
            return Err(internal("a gain where none was announced, or none where one was"));
        }
        self.filled.borrow_mut()[index] = true;
        Ok(())
    }

    /// Fails unless all numbers came; then the programs apply so much of the adapter.
    pub(super) fn ready(&self, device: &Device, scale: f32) -> Result<()> {
        if !self.filled.borrow().iter().all(|filled| *filled) {
            return Err(Error::new(ErrorKind::Internal, "an adapter was not loaded"));
        }
        if self.scale.replace(scale) != scale {
            self.programs.iter().for_each(|program| program.set_scale(device, scale));
        }
        Ok(())
    }

    /// Frees what the device holds of it.
    pub(super) fn destroy(&self) {
        self.matrices.destroy();
        self.vectors.iter().for_each(wgpu::Buffer::destroy);
    }
}
