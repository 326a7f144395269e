//! Reading weights: in the order of the files, in pieces of whole rows, into whatever takes them.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Fused, Plan};
use crate::error::{At, Error, ErrorKind, Result};
use crate::format::{Checkpoint, TensorInfo};
use crate::graph::{Weight, WeightId, WeightKind};
use crate::quant::FormatId;
use crate::source::Source;

/// Largest piece: large enough for throughput, small beside any memory limit.
const PIECE_BYTES: usize = 8 << 20;

/// Takes weights as they are read.
pub trait WeightSink {
    /// Whole rows of `weight` from `first_row` on, in the plan's format of that weight. The rows of a weight arrive
    /// in order.
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()>;
}

/// Where a weight lies.
#[derive(Clone, Debug)]
pub(super) struct Location {
    name: String,
    file: usize,
    offset: u64,
    rows: usize,
    row_bytes: usize,
    /// For a vector, which is handed on as f32.
    vector: Option<Vector>,
}

/// Which rows of which tensor are a weight.
pub(super) struct Slice {
    /// The project's name of the tensor.
    pub tensor: String,
    /// Rows of the tensor.
    pub rows: usize,
    /// Its first row that is the weight's.
    pub first_row: usize,
}

impl Slice {
    /// The whole tensor of the weight's name, or its part of a fused one. `rows` are those of all weights by name.
    pub(super) fn of(weight: &Weight, rows: &BTreeMap<&str, usize>, fused: &[Fused]) -> Self {
        let whole = Self { tensor: weight.name.clone(), rows: weight.rows, first_row: 0 };
        let Some((layer, part)) = weight.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
            return whole;
        };
        let Some(fused) = fused.iter().find(|fused| fused.parts.contains(&part)) else { return whole };
        let rows_of = |part: &&str| rows.get(format!("blk.{layer}.{part}").as_str()).copied().unwrap_or(0);
        Self {
            tensor: format!("blk.{layer}.{}", fused.whole),
            rows: fused.parts.iter().map(rows_of).fold(0, usize::saturating_add),
            first_row: fused
                .parts
                .iter()
                .take_while(|other| **other != part)
                .map(rows_of)
                .fold(0, usize::saturating_add),
        }
    }
}

/// How a vector is stored, its length, and what is added to each element.
#[derive(Clone, Copy, Debug)]
struct Vector {
    format: FormatId,
    len: usize,
    offset: f32,
}

impl Location {
    /// The location of a tensor that was found to have the shape of `weight`. To the weights of norms `norm_offset` is
    /// added.
    pub(super) fn of(tensor: &TensorInfo, weight: &Weight, slice: &Slice, norm_offset: f32) -> Result<Self> {
        let malformed = |problem: String| Error::new(ErrorKind::MalformedModel, problem).at(tensor.name.as_str());
        let format = tensor.format.format().name;
        let row_bytes = tensor
            .format
            .row_bytes(weight.cols)
            .ok_or_else(|| malformed(format!("rows of {} weights are no whole blocks of {format}", weight.cols)))?;
        let bytes = |rows: usize| (rows as u64).saturating_mul(row_bytes as u64);
        let vector = weight.kind == WeightKind::Vector;
        if bytes(slice.rows) != tensor.size_bytes {
            return Err(malformed(format!("{} bytes where {} are needed", tensor.size_bytes, bytes(slice.rows))));
        }
        Ok(Location {
            name: tensor.name.clone(),
            file: tensor.file,
            offset: tensor.offset.saturating_add(bytes(slice.first_row)),
            // A small table comes in one piece, as a vector does.
            rows: if vector { 1 } else { weight.rows },
            row_bytes: if vector { row_bytes.saturating_mul(weight.rows) } else { row_bytes },
            vector: vector.then(|| Vector {
                format: tensor.format,
                len: weight.cols.saturating_mul(weight.rows),
                offset: if weight.name.ends_with("norm.weight") { norm_offset } else { 0.0 },
            }),
        })
    }

    /// The name of the tensor.
    pub(super) fn tensor(&self) -> &str {
        &self.name
    }

    /// Bytes of the weight.
    pub(super) fn size_bytes(&self) -> u64 {
        (self.rows as u64).saturating_mul(self.row_bytes as u64)
    }

    /// Rows of one piece.
    fn piece_rows(&self) -> usize {
        PIECE_BYTES.checked_div(self.row_bytes).unwrap_or(1).max(1)
    }
}

/// Reads every weight of the plan once, in the order of the files, and hands it to `sink` in pieces of at most 8 MiB
/// (or one row). `progress` is told the bytes read so far and their total, before the first piece and after each;
/// an error of its own ends the reading.
pub async fn read_weights(
    checkpoint: &Checkpoint,
    plan: &Plan,
    sink: &mut dyn WeightSink,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let mut order: Vec<(WeightId, &Location)> =
        plan.locations.iter().enumerate().map(|(index, location)| (WeightId(index), location)).collect();
    order.sort_by_key(|(_, location)| (location.file, location.offset));

    let (mut done, total) = (0u64, plan.weight_bytes());
    progress(done, total)?;
    for (weight, location) in order {
        read_rows(&checkpoint.files, location, &mut |first_row, bytes, len| {
            sink.rows(weight, first_row, bytes)?;
            done = done.saturating_add(len as u64);
            progress(done, total)
        })
        .await?;
    }
    Ok(())
}

/// Reads one weight of the plan from its files and hands it to `take` in pieces of whole rows, first row and bytes, in
/// the plan's format of that weight.
pub async fn read_weight(
    files: &[Rc<dyn Source>],
    plan: &Plan,
    weight: WeightId,
    take: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let location = plan.locations.get(weight.0);
    let location = location.ok_or_else(|| Error::new(ErrorKind::Internal, "the plan has no such weight"))?;
    read_rows(files, location, &mut |first_row, bytes, _| take(first_row, bytes)).await
}

/// Pieces of a weight: first row, bytes as they are handed on, how many were read.
type Take<'a> = dyn FnMut(usize, &[u8], usize) -> Result<()> + 'a;

async fn read_rows(files: &[Rc<dyn Source>], location: &Location, take: &mut Take<'_>) -> Result<()> {
    let source =
        files.get(location.file).ok_or_else(|| Error::new(ErrorKind::Internal, "the plan is of another checkpoint"))?;
    let mut first_row = 0usize;
    while first_row < location.rows {
        let rows = location.piece_rows().min(location.rows.saturating_sub(first_row));
        let start = (first_row as u64).saturating_mul(location.row_bytes as u64);
        let len = rows.saturating_mul(location.row_bytes);
        let bytes = source.read(location.offset.saturating_add(start), len).await.at(|| location.name.clone())?;
        let bytes = match location.vector {
            Some(vector) => as_f32(vector, &bytes),
            None => bytes,
        };
        take(first_row, &bytes, len)?;
        first_row = first_row.saturating_add(rows);
    }
    Ok(())
}

/// The elements of a vector as the bytes of f32.
fn as_f32(vector: Vector, bytes: &[u8]) -> Vec<u8> {
    let mut decoded = vec![0f32; vector.len];
    (vector.format.format().decode)(bytes, &mut decoded);
    decoded.iter().flat_map(|weight| (weight + vector.offset).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use super::*;
    use crate::format::{Dialect, Metadata};
    use crate::graph::{Activation, Graph};
    use crate::model::Hyper;
    use crate::source::{LocalFuture, Source};

    /// A file of zeros that writes down what was read of it.
    struct Zeros(RefCell<Vec<(u64, usize)>>);

    impl Source for Zeros {
        fn name(&self) -> &str {
            "zeros"
        }

        fn size_bytes(&self) -> u64 {
            1 << 40
        }

        fn read(&self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
            self.0.borrow_mut().push((offset, len));
            Box::pin(async move { Ok(vec![0; len]) })
        }
    }

    struct Rows(Vec<(usize, usize, usize)>);

    impl WeightSink for Rows {
        fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
            self.0.push((weight.0, first_row, bytes.len()));
            Ok(())
        }
    }

    /// A plan over two weights: a vector stored as bf16 that lies after a matrix of 20 MB, declared before it.
    fn plan_and_checkpoint(source: Rc<Zeros>) -> (Plan, Checkpoint) {
        let tensor = |name: &str, format: FormatId, shape: &[usize], offset: u64| {
            let cols = shape[shape.len() - 1];
            let size_bytes = (shape.iter().product::<usize>() / cols * format.row_bytes(cols).unwrap()) as u64;
            TensorInfo { name: name.into(), format, shape: shape.to_vec(), file: 0, offset, size_bytes }
        };
        let weight = |name: &str, rows: usize, cols: usize, kind| Weight { name: name.into(), rows, cols, kind };
        let weights = vec![weight("norm", 1, 8, WeightKind::Vector), weight("matrix", 1000, 5000, WeightKind::Matrix)];
        let tensors =
            vec![tensor("matrix", FormatId::F32, &[1000, 5000], 64), tensor("norm", FormatId::Bf16, &[8], 1 << 30)];
        let place = |tensor: &TensorInfo, weight: &Weight| {
            Location::of(tensor, weight, &Slice::of(weight, &BTreeMap::new(), &[]), 0.0).unwrap()
        };
        let locations = vec![place(&tensors[1], &weights[0]), place(&tensors[0], &weights[1])];
        let hyper = Hyper {
            dim: 8,
            n_layers: 1,
            n_heads: 1,
            n_kv_heads: 1,
            head_dim: 8,
            ffn_dim: 8,
            vocab: 8,
            norm_eps: 0.0,
            ropes: vec![],
            long_rope: None,
            layers: vec![],
            attention_scale: 1.0,
            attention_softcap: None,
            logit_softcap: None,
            embedding_scale: None,
            conv_taps: 0,
            activation: Activation::Silu,
            norm_offset: 0.0,
            biases: BTreeSet::new(),
            context: 8,
            tied: true,
        };
        let graph = Graph { weights, ..Graph::default() };
        let formats = vec![FormatId::F32, FormatId::F32];
        let plan = Plan { architecture: "test", context: hyper.context, hyper, graph, formats, locations };
        let metadata = Metadata {
            dialect: Dialect::Gguf,
            architecture: "test".into(),
            values: BTreeMap::new(),
            companions: BTreeMap::new(),
            small_tensors: BTreeMap::new(),
        };
        (plan, Checkpoint { metadata, tensors, files: vec![source] })
    }

    #[test]
    fn pieces_are_whole_rows_of_at_most_eight_mebibytes_in_file_order() {
        let source = Rc::new(Zeros(RefCell::new(vec![])));
        let (plan, checkpoint) = plan_and_checkpoint(Rc::clone(&source));
        let mut sink = Rows(vec![]);
        pollster::block_on(read_weights(&checkpoint, &plan, &mut sink, &mut |_, _| Ok(()))).unwrap();
        // 419 rows of 20,000 bytes are the most that 8 MiB hold.
        let piece = 419 * 20_000;
        let rest = 162 * 20_000;
        let reads = vec![(64, piece), (64 + piece as u64, piece), (64 + 2 * piece as u64, rest), (1 << 30, 16)];
        assert_eq!(*source.0.borrow(), reads);
        // The vector arrives as f32, twice as long as it is stored.
        assert_eq!(sink.0, vec![(1, 0, piece), (1, 419, piece), (1, 838, rest), (0, 0, 32)]);
    }

    #[test]
    fn a_vector_is_widened_to_f32() {
        let bytes: Vec<u8> = [1.0f32, -2.5].iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
        let vector = Vector { format: FormatId::Bf16, len: 2, offset: 0.0 };
        assert_eq!(as_f32(vector, &bytes), [1.0f32, -2.5].map(f32::to_le_bytes).concat());
        assert_eq!(as_f32(Vector { offset: 1.0, ..vector }, &bytes), [2.0f32, -1.5].map(f32::to_le_bytes).concat());
    }
}
