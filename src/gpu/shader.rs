//! Joins shader files into the source of one module; nothing else joins. See `shaders/README.md`.

use crate::graph::KvFormat;
use crate::kernel::Kernel;
use crate::quant::FormatId;

/// A piece of source under the name of its file.
struct Piece {
    name: &'static str,
    source: &'static str,
}

macro_rules! piece {
    ($name:literal) => {
        Piece { name: $name, source: include_str!(concat!("../../shaders/", $name)) }
    };
}

/// How matrices of a format are read, and the kernel that makes their planes.
fn format_pieces(format: FormatId) -> (Piece, Piece) {
    match format {
        FormatId::F32 => (piece!("quant/f32.wgsl"), piece!("repack/words.wgsl")),
        FormatId::F16 => (piece!("quant/f16.wgsl"), piece!("repack/words.wgsl")),
        FormatId::Bf16 => (piece!("quant/bf16.wgsl"), piece!("repack/words.wgsl")),
        FormatId::Q8_0 => (piece!("quant/q8_0.wgsl"), piece!("repack/q8_0.wgsl")),
        FormatId::Q4_0 => (piece!("quant/q4_0.wgsl"), piece!("repack/q4_0.wgsl")),
    }
}

/// What of the device shaders use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// Sums over a workgroup go through subgroups.
    pub subgroups: bool,
    /// The compiler wants `enable subgroups;`, which naga refuses and browsers demand.
    pub subgroups_directive: bool,
}

fn preamble(dialect: Dialect) -> String {
    let directive = if dialect.subgroups && dialect.subgroups_directive { "enable subgroups;\n" } else { "" };
    directive.to_owned()
}

fn join(preamble: String, pieces: &[Piece]) -> String {
    pieces.iter().fold(preamble, |mut source, piece| {
        source.push_str("// --- ");
        source.push_str(piece.name);
        source.push('\n');
        source.push_str(piece.source);
        source
    })
}

/// The source of a kernel for a weight format (where it has a weight) and a format of keys and values.
pub fn kernel_source(kernel: &Kernel, format: Option<FormatId>, kv: KvFormat, dialect: Dialect) -> String {
    let mut pieces = vec![];
    if let Some(format) = format {
        pieces.push(format_pieces(format).0);
    }
    if kernel.reduces {
        pieces.push(match dialect.subgroups {
            true => piece!("reduce/subgroup.wgsl"),
            false => piece!("reduce/workgroup.wgsl"),
        });
    }
    if kernel.kv {
        pieces.push(match kv {
            KvFormat::F16 => piece!("kv/f16.wgsl"),
            KvFormat::F32 => piece!("kv/f32.wgsl"),
        });
    }
    pieces.push(Piece { name: kernel.name, source: kernel.source });
    let directives = if kernel.reduces { preamble(dialect) } else { String::new() };
    join(directives, &pieces)
}

/// The source of the kernel that makes a format's planes.
pub fn repack_source(format: FormatId) -> String {
    join(String::new(), &[format_pieces(format).1])
}

/// Every source that can be joined, by a name that tells the combination.
pub fn all_sources(dialects: &[Dialect]) -> Vec<(String, String)> {
    let mut sources = vec![];
    for (format, description) in crate::quant::FORMATS {
        sources.push((format!("repack {}", description.name), repack_source(*format)));
    }
    for kernel in crate::kernel::KERNELS {
        let formats: Vec<Option<FormatId>> = match kernel.weights {
            true => crate::quant::FORMATS.iter().map(|(format, _)| Some(*format)).collect(),
            false => vec![None],
        };
        let kv_formats: &[KvFormat] = if kernel.kv { &[KvFormat::F16, KvFormat::F32] } else { &[KvFormat::F16] };
        let dialects = if kernel.reduces { dialects } else { dialects.get(..1).unwrap_or(dialects) };
        for format in &formats {
            for kv in kv_formats {
                for dialect in dialects {
                    let weights = format.map_or("", |format| format.format().name);
                    let name = format!("{} {weights} {kv:?} {dialect:?}", kernel.name);
                    sources.push((name, kernel_source(kernel, *format, *kv, *dialect)));
                }
            }
        }
    }
    sources
}
