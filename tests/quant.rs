//! Every format decodes its golden blocks exactly, on the CPU and on the GPU.

mod common;
#[path = "common/synthetic.rs"]
mod synthetic;

use headwater::cpu::Cpu;
use headwater::gpu::Gpu;
use headwater::graph::{Backend, KvFormat, PAGE_TOKENS, Row, Step};
use headwater::model::{WeightSink, plan, read_weights};
use headwater::quant::{ENCODERS, FORMATS, FormatId};
use pollster::block_on;
use synthetic::{Shape, checkpoint};

/// Rows of a format and what they decode to.
struct Golden {
    raw: Vec<u8>,
    weights: Vec<f32>,
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
}

/// The golden rows; of the types that have none, since nothing is quantised in them or no file has them, rows written
/// down from their definition.
fn golden(format: FormatId) -> Golden {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/quant_blocks.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let source = floats(file.tensor("src").unwrap().data());
    match format {
        FormatId::F32 => {
            Golden { raw: source.iter().flat_map(|weight| weight.to_le_bytes()).collect(), weights: source }
        }
        FormatId::F16 => {
            let halves: Vec<half::f16> = source.iter().map(|weight| half::f16::from_f32(*weight)).collect();
            Golden {
                raw: halves.iter().flat_map(|half| half.to_le_bytes()).collect(),
                weights: halves.iter().map(|half| half.to_f32()).collect(),
            }
        }
        FormatId::Q8K => {
            let mut golden = Golden { raw: vec![], weights: vec![] };
            for factor in [0.25f32, -0.01, 3e-5, 0.7] {
                golden.raw.extend(factor.to_le_bytes());
                golden.raw.extend(0..=255u8);
                golden.raw.extend([0x5a; 32]);
                golden.weights.extend((0..=255u8).map(|code| factor * f32::from(code.cast_signed())));
            }
            golden
        }
        // What is not of GGUF: see tests/packed/write.py.
        _ if format.format().gguf_type.is_none() => {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/packed/blocks.safetensors");
            let bytes = std::fs::read(path).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let tensor = |part: &str| file.tensor(&format!("{}.{part}", format.format().name)).unwrap().data().to_vec();
            Golden { raw: tensor("raw"), weights: floats(&tensor("f32")) }
        }
        _ => {
            let name = format.format().name.to_uppercase();
            let tensor =
                |part: &str| file.tensor(&format!("{name}.{part}")).unwrap_or_else(|_| panic!("{name}.{part}"));
            Golden { raw: tensor("raw").data().into(), weights: floats(tensor("f32").data()) }
        }
    }
}

#[test]
fn golden_blocks_decode_exactly() {
    for (format, description) in FORMATS {
        let golden = golden(*format);
        let mut weights = vec![f32::NAN; golden.weights.len()];
        assert_eq!(golden.raw.len() / description.block_bytes * description.block_weights, weights.len());
        (description.decode)(&golden.raw, &mut weights);
        for (index, (found, expected)) in weights.iter().zip(&golden.weights).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{} {index}: {found} {expected}", description.name);
        }
    }
}

/// A tensor of the test data.
fn data(file: &str, name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/{file}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap_or_else(|_| panic!("{name}")).data().to_vec()
}

#[test]
fn simple_encoders_make_the_references_blocks() {
    let source = floats(&data("quant_blocks", "src"));
    for format in [FormatId::Q8_0, FormatId::Q4_0, FormatId::Q4_1, FormatId::Q5_0, FormatId::Q5_1] {
        let expected = data("quant_encoded", &format!("{}.raw", format.format().name.to_uppercase()));
        let mut found = vec![];
        format.encoder().unwrap()(&source, &mut found);
        assert_eq!(found, expected, "{format:?}");
    }
}

#[test]
fn encoders_of_superblocks_are_as_near_as_the_references() {
    let source = floats(&data("quant_blocks", "src"));
    for format in [FormatId::Q4K, FormatId::Q5K, FormatId::Q6K] {
        let mut found = vec![];
        format.encoder().unwrap()(&source, &mut found);
        let expected = &data("quant_blocks", &format!("{}.raw", format.format().name.to_uppercase()))[..found.len()];
        let error = |blocks: &[u8]| {
            let mut weights = vec![0.0f32; source.len()];
            (format.format().decode)(blocks, &mut weights);
            weights.iter().zip(&source).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        };
        let (ours, theirs) = (error(&found), error(expected));
        println!("{format:?}: squared error {ours:.4e}, the reference's {theirs:.4e}");
        // The reference was given weights of importance, with which it looks for scales in another way.
        assert!(ours <= 1.05 * theirs, "{format:?}: {ours} {theirs}");
    }
}

#[test]
fn encoders_take_zeros_and_extremes() {
    let rows = [vec![0.0f32; 256], vec![1e-30; 256], vec![-3.5; 256], (0..256).map(|i| i as f32 * 1e-3).collect()];
    for (format, encode) in ENCODERS {
        for row in &rows {
            let mut blocks = vec![];
            encode(row, &mut blocks);
            assert_eq!(blocks.len(), format.row_bytes(256).unwrap(), "{format:?}");
            let mut weights = vec![f32::NAN; 256];
            (format.format().decode)(&blocks, &mut weights);
            let largest = row.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
            for (found, expected) in weights.iter().zip(row) {
                // Scales are half floats: what is too small for one is zero.
                assert!((found - expected).abs() <= largest / 7.0 + 1e-6, "{format:?}: {found} {expected}");
            }
        }
    }
}

/// Columns of the matrix below: whole blocks of the format, and a power of four where blocks allow, so that the norm before it
/// is exact.
fn columns(format: FormatId) -> usize {
    format.format().block_weights.max(256)
}

/// What a norm over columns that are no power of four rounds.
fn rounding(cols: usize) -> f32 {
    if cols.ilog2().is_multiple_of(2) { 0.0 } else { 3e-7 }
}

/// A model whose logits are the weights: token `c` is the unit vector `c`, the layer adds zeros, the norm keeps a unit
/// vector, and the rows of the output matrix are the golden ones over and over. `logits[c][r]` is weight `c` of row `r`.
fn reader(format: FormatId, raw: &[u8]) -> headwater::format::Checkpoint {
    let cols = columns(format);
    let shape = Shape {
        architecture: "llama",
        output_format: Some(format),
        dim: cols,
        n_layers: 1,
        vocab: cols,
        ..Shape::default()
    };
    checkpoint(&shape, &mut |name, format, dims| match name {
        // 1024 / sqrt(1024^2 / 256) / 16 = 1, all powers of two, beside which the epsilon is nothing.
        "token_embd.weight" => {
            let unit = |i| if i % (cols + 1) == 0 { 1024.0f32 } else { 0.0 };
            (0..cols * cols).flat_map(|i| unit(i).to_le_bytes()).collect()
        }
        "output_norm.weight" => (0..cols).flat_map(|_| (cols as f32).sqrt().recip().to_le_bytes()).collect(),
        "output.weight" => {
            let bytes = format.row_bytes(cols).unwrap() * cols;
            raw.iter().copied().cycle().take(bytes).collect()
        }
        _ => vec![0; dims.iter().product::<usize>() * 4],
    })
}

/// The logits of every token alone, `(cols tokens, cols rows)`.
fn logits(backend: &dyn Backend, cols: usize) -> Vec<f32> {
    let pages: Vec<Vec<u32>> = vec![vec![0]];
    let mut logits = vec![];
    for first in (0..cols as u32).step_by(PAGE_TOKENS) {
        let rows: Vec<Row> = (0..PAGE_TOKENS as u32)
            .map(|position| Row { token: first + position, position, sequence: 0, segment: 0 })
            .collect();
        let outputs: Vec<u32> = (0..PAGE_TOKENS as u32).collect();
        logits.extend(
            block_on(backend.forward(&Step { rows: &rows, pages: &pages, states: &[], outputs: &outputs })).unwrap(),
        );
    }
    logits
}

/// Loads the golden rows of a format, and compares what the backend makes of them: at most `tolerance` of the largest
/// weight of a row apart.
fn compare<B: Backend + WeightSink>(
    format: FormatId,
    tolerance: f32,
    make: impl FnOnce(&headwater::model::Plan) -> B,
) -> Result<(), String> {
    let golden = golden(format);
    let checkpoint = reader(format, &golden.raw);
    let plan = plan(&checkpoint).unwrap();
    let mut backend = make(&plan);
    block_on(read_weights(&checkpoint, &plan, &mut backend, &mut |_, _| Ok(()))).unwrap();
    let cols = columns(format);
    let (logits, tolerance) = (logits(&backend, cols), tolerance.max(rounding(cols)));
    let mut worst = 0.0f32;
    for (r, row) in golden.weights.chunks_exact(cols).cycle().take(cols).enumerate() {
        let largest = row.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
        for (c, expected) in row.iter().enumerate() {
            let found = logits[c * cols + r];
            let error = (found - expected).abs() / largest;
            if error.is_nan() || error > tolerance {
                return Err(format!("{format:?}: row {r}, weight {c}: {found} where {expected} is right"));
            }
            worst = worst.max(error);
        }
    }
    println!("{format:?}: {worst:e}");
    Ok(())
}

#[test]
fn golden_blocks_are_read_on_the_gpu() {
    let mut failures = vec![];
    for (format, _) in FORMATS {
        for device in common::TEAMS.map(common::device) {
            // A compiler may make one operation with one rounding of a product and a sum.
            let made = compare(*format, 2e-7, |plan| block_on(Gpu::new(&device, plan, KvFormat::F32, 1)).unwrap());
            failures.extend(made.err());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn golden_blocks_are_read_on_the_cpu() {
    for (format, _) in FORMATS {
        compare(*format, 0.0, |plan| Cpu::new(plan, KvFormat::F32, 1).unwrap()).unwrap();
        compare(*format, 1e-6, |plan| Cpu::rounding(plan, KvFormat::F32, 1).unwrap()).unwrap();
    }
}
