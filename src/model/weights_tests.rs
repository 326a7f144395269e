//! Weights as they are read: pieces, orders of rows, every form that experts have in files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::locate::{Fused, Locator, Order};
use super::*;
use crate::format::{Dialect, Metadata, TensorInfo};
use crate::graph::{Builder, Graph};
use crate::quant::FormatId;
use crate::source::{LocalFuture, MemorySource, Source};

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

/// What arrived: weight, first row, bytes.
#[derive(Default)]
struct Rows(Vec<(usize, usize, Vec<u8>)>);

impl WeightSink for Rows {
    fn rows(&mut self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        self.0.push((weight.0, first_row, bytes.to_vec()));
        Ok(())
    }
}

fn checkpoint(dialect: Dialect, tensors: Vec<TensorInfo>, file: Rc<dyn Source>) -> Checkpoint {
    let metadata = Metadata {
        dialect,
        architecture: "test".into(),
        values: BTreeMap::new(),
        companions: BTreeMap::new(),
        small_tensors: BTreeMap::new(),
    };
    Checkpoint { metadata, tensors, orders: BTreeMap::new(), files: vec![file] }
}

fn tensor(name: &str, format: FormatId, shape: &[usize], offset: u64) -> TensorInfo {
    let cols = shape[shape.len() - 1];
    let size_bytes = (shape.iter().product::<usize>() / cols * format.row_bytes(cols).unwrap()) as u64;
    TensorInfo { name: name.into(), format, shape: shape.to_vec(), file: 0, offset, size_bytes }
}

fn locations(
    checkpoint: &Checkpoint,
    graph: &Graph,
    fused: &'static [Fused],
    norm_offset: f32,
) -> Result<Vec<Location>> {
    let mut locator = Locator::new(checkpoint, graph, (NAMES, fused), norm_offset);
    graph.weights.iter().map(|weight| locator.locate(weight)).collect()
}

#[test]
fn pieces_are_whole_rows_of_at_most_eight_mebibytes_in_file_order() {
    let mut g = Builder::new();
    g.vector("output_norm.weight", 8);
    g.matrix("output.weight", 1000, 5000);
    let graph = g.finish().unwrap();
    let source = Rc::new(Zeros(RefCell::new(vec![])));
    let tensors = vec![
        tensor("output.weight", FormatId::F32, &[1000, 5000], 64),
        tensor("output_norm.weight", FormatId::Bf16, &[8], 1 << 30),
    ];
    let checkpoint = checkpoint(Dialect::Gguf, tensors, Rc::clone(&source) as Rc<dyn Source>);
    let locations = locations(&checkpoint, &graph, &[], 1.0).unwrap();
    let mut sink = Rows::default();
    pollster::block_on(read_located(&checkpoint, &locations, &mut sink, &mut |_, _| Ok(()))).unwrap();
    // 419 rows of 20,000 bytes are the most that 8 MiB hold.
    let piece = 419 * 20_000;
    let rest = 162 * 20_000;
    let reads = vec![(64, piece), (64 + piece as u64, piece), (64 + 2 * piece as u64, rest), (1 << 30, 16)];
    assert_eq!(*source.0.borrow(), reads);
    let sizes: Vec<_> = sink.0.iter().map(|(weight, row, bytes)| (*weight, *row, bytes.len())).collect();
    assert_eq!(sizes, [(1, 0, piece), (1, 419, piece), (1, 838, rest), (0, 0, 32)]);
    // The vector arrives as f32, and to a norm's factors the offset is added.
    assert_eq!(sink.0[3].2, [1f32; 8].map(f32::to_le_bytes).concat());
}

const EXPERTS: usize = 11;
const ROWS: usize = 3;
const COLS: usize = 8;

const NAMES: &[super::super::names::Name] = &[("blk.{i}.both.weight", "b.{i}.both"), ("blk.{i}.both.bias", "")];

const fn both(order: Order, transposed: bool) -> [Fused; 2] {
    const PARTS: [&[&str]; 2] =
        [&["ffn_gate_exps.weight", "ffn_up_exps.weight"], &["ffn_gate_exps.bias", "ffn_up_exps.bias"]];
    let bias = Fused { whole: "both.bias", parts: PARTS[1], order, transposed, turned: &[], dialect: None };
    [Fused { whole: "both.weight", parts: PARTS[0], order, transposed, turned: &[], dialect: None }, bias]
}

static FOLLOWING: [Fused; 2] = both(Order::Following, false);
static ALTERNATING: [Fused; 2] = both(Order::Alternating, false);
static FOLLOWING_TRANSPOSED: [Fused; 2] = both(Order::Following, true);
static ALTERNATING_TRANSPOSED: [Fused; 2] = both(Order::Alternating, true);

/// Every number tells its weight, expert, row and column.
fn number(weight: usize, expert: usize, row: usize, col: usize) -> f32 {
    (weight * 100_000 + expert * 1000 + row * 10 + col) as f32
}

/// The number at an expert, a row and a column of a tensor.
type At<'a> = &'a dyn Fn(usize, usize, usize) -> f32;

/// Experts and their biases as a file has them: `tensors` are names, shapes, and what number is where.
fn file(dialect: Dialect, tensors: &[(String, Vec<usize>, At<'_>)]) -> Checkpoint {
    let (mut infos, mut bytes) = (vec![], vec![]);
    for (name, shape, at) in tensors {
        infos.push(tensor(name, FormatId::F32, shape, bytes.len() as u64));
        let [a, b, c] = [&vec![1; 3 - shape.len()][..], shape].concat()[..] else { panic!("{shape:?}") };
        for i in 0..a * b * c {
            bytes.extend(at(i / c / b, i / c % b, i % c).to_le_bytes());
        }
    }
    checkpoint(dialect, infos, Rc::new(MemorySource::new("file", bytes)))
}

#[test]
fn experts_are_read_from_every_form_that_files_have() {
    let mut g = Builder::new();
    for part in ["gate", "up"] {
        g.matrices(format!("blk.0.ffn_{part}_exps.weight"), EXPERTS, ROWS, COLS);
        g.table(format!("blk.0.ffn_{part}_exps.bias"), EXPERTS, ROWS);
    }
    let graph = g.finish().unwrap();
    // Weights 0 and 2 are matrices, 1 and 3 their biases.
    let expected: Vec<Vec<f32>> = (0..4)
        .map(|weight| {
            let cols = if weight % 2 == 0 { COLS } else { 1 };
            let places = (0..EXPERTS * ROWS * cols).map(|i| (i / cols / ROWS, i / cols % ROWS, i % cols));
            places.map(|(expert, row, col)| number(weight, expert, row, col)).collect()
        })
        .collect();

    let name = |part: &str| format!("blk.0.{part}");
    let (up, gate) = (|e, r, c| number(2, e, r, c), |e, r, c| number(0, e, r, c));
    let biases: [At<'_>; 2] = [&|_, e, r| number(1, e, r, 0), &|_, e, r| number(3, e, r, 0)];
    let stacked = file(
        Dialect::Gguf,
        &[
            (name("ffn_up_exps.weight"), vec![EXPERTS, ROWS, COLS], &up),
            (name("ffn_gate_exps.weight"), vec![EXPERTS, ROWS, COLS], &gate),
            (name("ffn_gate_exps.bias"), vec![EXPERTS, ROWS], biases[0]),
            (name("ffn_up_exps.bias"), vec![EXPERTS, ROWS], biases[1]),
        ],
    );
    let following = |e, r, c| number(r / ROWS * 2, e, r % ROWS, c);
    let alternating = |e, r, c| number(r % 2 * 2, e, r / 2, c);
    let (following_bias, alternating_bias) =
        (|_, e, r| number(r / ROWS * 2 + 1, e, r % ROWS, 0), |_, e, r| number(r % 2 * 2 + 1, e, r / 2, 0));
    let shape = vec![EXPERTS, 2 * ROWS, COLS];
    let turned = vec![EXPERTS, COLS, 2 * ROWS];
    let whole = |shape: &[usize], at: At<'_>, bias: At<'_>| {
        let bias = (name("both.bias"), vec![EXPERTS, 2 * ROWS], bias);
        file(Dialect::Gguf, &[bias, (name("both.weight"), shape.to_vec(), at)])
    };
    let cases = [
        ("stacked", stacked, &[][..]),
        ("following", whole(&shape, &following, &following_bias), &FOLLOWING),
        ("alternating", whole(&shape, &alternating, &alternating_bias), &ALTERNATING),
        (
            "following, transposed",
            whole(&turned, &|e, c, r| following(e, r, c), &following_bias),
            &FOLLOWING_TRANSPOSED,
        ),
        (
            "alternating, transposed",
            whole(&turned, &|e, c, r| alternating(e, r, c), &alternating_bias),
            &ALTERNATING_TRANSPOSED,
        ),
    ];
    for (case, checkpoint, fused) in cases {
        let locations = locations(&checkpoint, &graph, fused, 1.0).unwrap();
        let (mut sink, mut last) = (Rows::default(), (0, 0));
        let mut progress = |done, total| {
            last = (done, total);
            Ok(())
        };
        pollster::block_on(read_located(&checkpoint, &locations, &mut sink, &mut progress)).unwrap();
        let total = expected.iter().map(Vec::len).sum::<usize>() as u64 * 4;
        assert_eq!(last, (total, total), "{case}");
        let mut found: Vec<Vec<f32>> = expected.iter().map(|weight| vec![f32::NAN; weight.len()]).collect();
        for (weight, first_row, bytes) in sink.0 {
            let numbers = bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw));
            for (place, number) in found[weight][first_row * COLS..].iter_mut().zip(numbers) {
                *place = number;
            }
        }
        assert_eq!(found, expected, "{case}");
        // Any run of rows can be read alone.
        let bytes: Vec<u8> = expected[2].iter().flat_map(|number| number.to_le_bytes()).collect();
        for piece in &locations[2].pieces {
            for (first, rows) in [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (0, 3)] {
                let source = checkpoint.files[0].as_ref();
                let found = pollster::block_on(read(source, &locations[2], piece, first, rows)).unwrap();
                let row_bytes = COLS * 4;
                let expected = &bytes[(piece.first_row + first) * row_bytes..][..rows * row_bytes];
                assert_eq!(found, expected, "{case}: {rows} rows from {first} on");
            }
        }
    }
}

#[test]
fn a_tensor_an_expert_arrives_in_the_order_of_the_file() {
    let mut g = Builder::new();
    g.matrices("blk.0.ffn_up_exps.weight", EXPERTS, ROWS, COLS);
    let graph = g.finish().unwrap();
    // Sorted by name, as safetensors has them: 0, 1, 10, 2, ...
    let mut order: Vec<String> = (0..EXPERTS).map(|expert| expert.to_string()).collect();
    order.sort();
    let mut bytes = vec![];
    let infos = order.iter().map(|expert| {
        let name = format!("model.layers.0.mlp.experts.{expert}.up_proj.weight");
        let info = tensor(&name, FormatId::F32, &[ROWS, COLS], bytes.len() as u64);
        bytes.extend([expert.parse::<f32>().unwrap(); ROWS * COLS].iter().flat_map(|number| number.to_le_bytes()));
        info
    });
    let infos: Vec<TensorInfo> = infos.collect();
    let whole = checkpoint(Dialect::Hub, infos.clone(), Rc::new(MemorySource::new("file", bytes.clone())));
    let found = locations(&whole, &graph, &[], 0.0).unwrap();
    let mut sink = Rows::default();
    pollster::block_on(read_located(&whole, &found, &mut sink, &mut |_, _| Ok(()))).unwrap();
    let rows: Vec<usize> = sink.0.iter().map(|(_, row, _)| *row).collect();
    assert_eq!(rows, order.iter().map(|expert| expert.parse::<usize>().unwrap() * ROWS).collect::<Vec<_>>());
    for (_, row, bytes) in sink.0 {
        assert_eq!(bytes, [(row / ROWS) as f32; ROWS * COLS].map(f32::to_le_bytes).concat());
    }

    let damaged = |damage: &dyn Fn(&mut TensorInfo)| {
        let mut infos = infos.clone();
        damage(&mut infos[2]);
        let file = checkpoint(Dialect::Hub, infos, Rc::new(MemorySource::new("file", bytes.clone())));
        locations(&file, &graph, &[], 0.0).unwrap_err()
    };
    let tenth = "model.layers.0.mlp.experts.10.up_proj.weight";
    for (error, words) in [
        (damaged(&|info| info.name = "other".into()), "missing; its shape would be [3, 8]"),
        (damaged(&|info| info.shape = vec![4, 8]), "shape [4, 8] where [3, 8] is needed"),
        (
            damaged(&|info| {
                info.format = FormatId::Bf16;
                info.size_bytes /= 2;
            }),
            "stored as bf16, where the others of that weight are f32",
        ),
    ] {
        assert_eq!(error.place(), tenth);
        assert!(error.message().contains(words), "{error}");
    }
}
