//! Which bytes of which tensors are a weight: names, shapes and sizes are checked before a weight byte is read.
//!
//! A tensor of the files may be a weight as it stands, hold several weights of a layer ([`Fused`]), or be one of many that
//! make a weight together (a tensor an expert).

use std::collections::{BTreeMap, BTreeSet};

use super::names::{self, Name};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Checkpoint, Dialect, TensorInfo};
use crate::graph::{Graph, Weight, WeightKind};
use crate::quant::FormatId;

/// Columns that a GPU shader reads at once. Of stacked matrices rows are whole groups: what the slots of a row are given
/// stands side by side.
const COLS_GROUP: usize = 8;

/// What blocks become that run along the wrong dimension: half the bytes of f32, and what it rounds (2^-12) is less than what
/// any format of blocks does.
const TURNED: FormatId = FormatId::F16;

/// A tensor of a layer whose rows are those of several weights, or that lies otherwise than the project has it. Where
/// weights are stacked (experts), it is so for each of them.
pub(super) struct Fused {
    /// After `blk.{i}.`, as the project calls tensors.
    pub whole: &'static str,
    /// The weights, likewise.
    pub parts: &'static [&'static str],
    /// In whose rows' order.
    pub order: Order,
    /// Whether numbers lie as `(cols, rows)`. Blocks of numbers always run along `cols`.
    pub transposed: bool,
    /// Parts that lie the other way round among the others: their columns are rows of the tensor.
    pub turned: &'static [&'static str],
    /// The only dialect whose files always have it so; in others it is so where a tensor of that name is there, if that
    /// is no name of a part.
    pub dialect: Option<Dialect>,
}

impl Fused {
    /// The rows of `parts` one after another in `whole`.
    pub(super) const fn rows(whole: &'static str, parts: &'static [&'static str]) -> Self {
        Self { whole, parts, order: Order::Following, transposed: false, turned: &[], dialect: None }
    }

    /// The same in the hub's files alone, where it may multiply from the right.
    pub(super) const fn on_hub(self, order: Order, transposed: bool) -> Self {
        Self { order, transposed, dialect: Some(Dialect::Hub), ..self }
    }
}

/// How the rows of several weights share a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Those of one after those of another.
    Following,
    /// The first of each, the second of each, ...
    Alternating,
}

/// Where a weight lies.
#[derive(Clone, Debug)]
pub(super) struct Location {
    /// How its numbers are handed on.
    pub format: FormatId,
    /// How they are stored: the same, but for blocks that run along the wrong dimension.
    pub stored: FormatId,
    /// Bytes of one of its rows.
    pub row_bytes: usize,
    /// Its rows, piece by piece.
    pub pieces: Vec<Piece>,
    /// For a vector, which is handed on as f32: what is added to each element. A vector may be read as rows of one element.
    pub vector_offset: Option<f32>,
}

/// Rows of a weight that come from one place.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// The tensor.
    pub name: String,
    /// Index into the checkpoint's files.
    pub file: usize,
    /// Where the tensor's part begins that has the rows.
    pub offset: u64,
    /// The first row of the weight.
    pub first_row: usize,
    /// How many rows.
    pub rows: usize,
    /// Which rows of the tensor's part, or, of a transposed one, which columns.
    pub from: Stride,
    /// Columns of a transposed part; its rows are the weight's columns.
    pub transposed: Option<usize>,
}

/// `first`, `first + step`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stride {
    pub first: usize,
    pub step: usize,
}

impl Location {
    /// The tensors that it lies in, by name.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().map(|piece| piece.name.as_str())
    }

    /// Bytes of the weight.
    pub(super) fn size_bytes(&self) -> u64 {
        let rows = self.pieces.iter().map(|piece| piece.rows).fold(0, usize::saturating_add);
        (rows as u64).saturating_mul(self.row_bytes as u64)
    }
}

/// The tensors of a checkpoint, and what is told of their names and forms.
pub(super) struct Locator<'a> {
    dialect: Dialect,
    tensors: BTreeMap<&'a str, &'a TensorInfo>,
    names: &'static [Name],
    /// What no tensor has before its name.
    bare: Vec<&'static str>,
    fused: &'static [Fused],
    weights: BTreeMap<&'a str, &'a Weight>,
    /// Added to the weights of norms.
    norm_offset: f32,
    used: BTreeSet<&'a str>,
}

/// The tensor that holds a weight.
pub(super) struct Whole {
    /// The project's name.
    pub name: String,
    /// Its rows, for each of the stacked.
    pub rows: usize,
    /// Which of them are the weight's.
    pub from: Stride,
    transposed: bool,
    turned: bool,
}

fn malformed(name: &str, problem: String) -> Error {
    Error::new(ErrorKind::MalformedModel, problem).at(name)
}

fn unsupported(name: &str, problem: String) -> Error {
    Error::new(ErrorKind::UnsupportedFormat, problem).at(name)
}

/// Rows of a matrix, elements of a vector: of one of those that are stacked.
fn rows_of(weight: &Weight) -> usize {
    match weight.kind {
        WeightKind::Matrix => weight.rows.checked_div(weight.stacked).unwrap_or(0),
        WeightKind::Vector => weight.cols,
    }
}

/// Whether a tensor has the shape of a weight. The hub keeps a convolution's numbers as (channels, 1, taps).
fn same_shape(found: &[usize], expected: &[usize], kind: WeightKind) -> bool {
    match (found, expected) {
        ([channels, 1, taps], [rows, cols]) if kind == WeightKind::Vector => channels == rows && taps == cols,
        // GGUF writes a matrix of one row as it writes a vector.
        ([found], [1, cols]) if kind == WeightKind::Matrix => found == cols,
        _ => found == expected,
    }
}

impl Whole {
    /// The tensor of the weight's name, or the one that it is a part of in files of `dialect`, all `weights` by name.
    /// `is_there` tells the tensors of the files, by the project's names.
    pub(super) fn of(
        weight: &Weight,
        weights: &BTreeMap<&str, &Weight>,
        fused: &[Fused],
        dialect: Dialect,
        is_there: impl Fn(&str) -> bool,
    ) -> Whole {
        let (name, rows) = (weight.name.clone(), rows_of(weight));
        let itself = Whole { name, rows, from: Stride { first: 0, step: 1 }, transposed: false, turned: false };
        let Some((layer, part)) = weight.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
            return itself;
        };
        let always = |fused: &Fused| fused.dialect.is_none_or(|only| only == dialect);
        let named = |fused: &Fused| format!("blk.{layer}.{}", fused.whole);
        let joined = |fused: &Fused| !fused.parts.contains(&fused.whole) && is_there(&named(fused));
        let holds = |fused: &&Fused| fused.parts.contains(&part) && (always(fused) || joined(fused));
        let Some(fused) = fused.iter().find(holds) else { return itself };
        let rows_of = |part: &&str| {
            let weight = weights.get(format!("blk.{layer}.{part}").as_str());
            weight.map_or(0, |weight| if fused.turned.contains(part) { weight.cols } else { rows_of(weight) })
        };
        let before = fused.parts.iter().take_while(|other| **other != part);
        Whole {
            name: named(fused),
            rows: fused.parts.iter().map(rows_of).fold(0, usize::saturating_add),
            from: match fused.order {
                Order::Following => Stride { first: before.map(rows_of).fold(0, usize::saturating_add), step: 1 },
                Order::Alternating => Stride { first: before.count(), step: fused.parts.len() },
            },
            transposed: fused.transposed,
            turned: fused.turned.contains(&part),
        }
    }
}

/// Every weight by name, as [`Whole::of`] wants them.
pub(super) fn weights_by_name(graph: &Graph) -> BTreeMap<&str, &Weight> {
    graph.weights.iter().map(|weight| (weight.name.as_str(), weight)).collect()
}

impl<'a> Locator<'a> {
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        graph: &'a Graph,
        (names, fused): (&'static [Name], &'static [Fused]),
        norm_offset: f32,
    ) -> Self {
        Self {
            dialect: checkpoint.metadata.dialect,
            tensors: checkpoint.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
            names,
            bare: names::bare(|root| checkpoint.tensors.iter().any(|tensor| tensor.name.starts_with(root))),
            fused,
            weights: weights_by_name(graph),
            norm_offset,
            used: BTreeSet::new(),
        }
    }

    /// Finds a declared weight. Fails with `MalformedModel` naming a tensor that is missing or of another shape, with
    /// `UnsupportedFormat` for one that cannot be read so.
    pub(super) fn locate(&mut self, weight: &Weight) -> Result<Location> {
        let is_there = |name: &str| {
            let named = names::in_file(name, self.dialect, self.names);
            named.is_some_and(|named| self.tensors.contains_key(names::without_roots(named, &self.bare).as_str()))
        };
        let whole = Whole::of(weight, &self.weights, self.fused, self.dialect, is_there);
        let named = names::in_file(&whole.name, self.dialect, self.names).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "no table line names this weight").at(weight.name.as_str())
        })?;
        let named = names::without_roots(named, &self.bare);
        // One tensor for all that is stacked, or one for each.
        let apart = named.contains(names::EXPERT);
        let names: Vec<String> = match apart {
            true => (0..weight.stacked).map(|expert| named.replace(names::EXPERT, &expert.to_string())).collect(),
            false => vec![named],
        };
        let mut found: Option<Location> = None;
        for (index, name) in names.iter().enumerate() {
            let own = self.pieces(weight, &whole, name, apart.then_some(index))?;
            match &mut found {
                None => found = Some(own),
                Some(found) if found.stored == own.stored => found.pieces.extend(own.pieces),
                Some(found) => {
                    let [first, other] = [found.stored, own.stored].map(|format| format.format().name);
                    let problem = format!("stored as {other}, where the others of that weight are {first}");
                    return Err(unsupported(name, problem));
                }
            }
        }
        found.ok_or_else(|| Error::new(ErrorKind::Internal, "a weight of nothing").at(weight.name.as_str()))
    }

    /// The pieces that one tensor has of a weight: all, or those of one of the stacked.
    fn pieces(&mut self, weight: &Weight, whole: &Whole, name: &str, only: Option<usize>) -> Result<Location> {
        let stacked = if only.is_some() { 1 } else { weight.stacked };
        let vector = weight.kind == WeightKind::Vector;
        let tensor = self.tensors.get(name).copied();
        let numbers = tensor.is_none_or(|tensor| tensor.format.format().block_weights == 1);
        let transposed = whole.transposed && numbers;
        // Of the tensor, for each of the stacked.
        let (lines, columns) = match (transposed, whole.turned) {
            (true, _) => (weight.cols, whole.rows),
            (false, true) => (whole.rows, rows_of(weight)),
            (false, false) => (whole.rows, weight.cols),
        };
        let mut shape = if stacked > 1 { vec![stacked] } else { vec![] };
        match vector {
            true => shape.push(whole.rows),
            false => shape.extend([lines, columns]),
        }
        let tensor =
            tensor.ok_or_else(|| malformed(name, format!("the tensor is missing; its shape would be {shape:?}")))?;
        self.used.insert(tensor.name.as_str());
        // Matrices of heads are one to look at.
        let merged = [stacked.saturating_mul(lines), columns];
        if !same_shape(&tensor.shape, &shape, weight.kind) && (vector || tensor.shape != merged) {
            return Err(malformed(name, format!("shape {:?} where {shape:?} is needed", tensor.shape)));
        }
        if !vector && weight.stacked > 1 && !weight.cols.is_multiple_of(COLS_GROUP) {
            return Err(unsupported(name, format!("rows of {} weights are no multiple of {COLS_GROUP}", weight.cols)));
        }
        // Blocks that run along the wrong dimension become numbers.
        let format = if whole.turned && !numbers { TURNED } else { tensor.format };
        let window = format.format().planes.shared.window();
        if weight.stacked > 1 && !rows_of(weight).is_multiple_of(window) {
            let problem =
                format!("rows of stacked matrices share scales, and {} are no multiple of {window}", rows_of(weight));
            return Err(unsupported(name, problem));
        }
        // A whole vector is one row, a part of one as many rows as it has elements.
        let is_whole = whole.from.step == 1 && whole.rows == rows_of(weight) && !transposed && !whole.turned;
        let (rows, whole_rows, cols) = match (vector, is_whole) {
            (false, _) => (rows_of(weight), whole.rows, weight.cols),
            (true, true) => (1, 1, whole.rows),
            (true, false) => (rows_of(weight), whole.rows, 1),
        };
        let bytes_of = |format: FormatId, cols: usize| {
            let problem = || format!("rows of {cols} weights are no whole blocks of {}", format.format().name);
            format.row_bytes(cols).ok_or_else(|| malformed(name, problem()))
        };
        let row_bytes = bytes_of(format, cols)?;
        let line_bytes = if whole.turned { bytes_of(tensor.format, columns)? } else { row_bytes };
        let bytes = |rows: usize| (rows as u64).saturating_mul(line_bytes as u64);
        let needed = bytes(whole_rows.saturating_mul(stacked));
        if needed != tensor.size_bytes {
            return Err(malformed(name, format!("{} bytes where {needed} are needed", tensor.size_bytes)));
        }
        let piece = |index: usize| Piece {
            name: tensor.name.clone(),
            file: tensor.file,
            offset: tensor.offset.saturating_add(bytes(
                whole_rows.saturating_mul(index).saturating_add(if whole.turned { whole.from.first } else { 0 }),
            )),
            first_row: only.unwrap_or(index).saturating_mul(rows),
            rows,
            from: if whole.turned { Stride { first: 0, step: 1 } } else { whole.from },
            transposed: (transposed || whole.turned).then_some(columns),
        };
        let pieces = match is_whole {
            true => vec![Piece { rows: rows.saturating_mul(stacked), ..piece(0) }],
            false => (0..stacked).map(piece).collect(),
        };
        // The norm of what a recurrence gives is kept as it is, whatever a family does with the others.
        let norm = weight.name.ends_with("norm.weight") && !weight.name.ends_with("ssm_norm.weight");
        Ok(Location {
            format,
            stored: tensor.format,
            row_bytes,
            pieces,
            vector_offset: vector.then_some(if norm { self.norm_offset } else { 0.0 }),
        })
    }

    /// A bias that nobody adds would be a wrong answer.
    pub(super) fn refuse_other_biases(&self) -> Result<()> {
        let mut biases = self.used.iter().filter_map(|name| Some(format!("{}.bias", name.strip_suffix(".weight")?)));
        let other = |bias: &String| self.tensors.contains_key(bias.as_str()) && !self.used.contains(bias.as_str());
        match biases.find(other) {
            Some(bias) => Err(unsupported(&bias, "this bias is not supported".into())),
            None => Ok(()),
        }
    }
}
