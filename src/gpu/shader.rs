//! Joins shader files into the source of one module; nothing else joins. See `shaders/README.md`.

use crate::graph::KvFormat;
use crate::kernel::{Kernel, Teams};
use crate::quant::FormatId;

/// A piece of source under the name of its file.
#[derive(Clone, Copy)]
struct Piece {
    name: &'static str,
    source: &'static str,
}

macro_rules! piece {
    ($name:literal) => {
        Piece { name: $name, source: wgsl!($name) }
    };
}

/// Formats that are multiplied by integers, and how.
const ROUNDED: &[(FormatId, Piece)] = &[
    (FormatId::Q8_0, piece!("rounded/q8_0.wgsl")),
    (FormatId::Q4_0, piece!("rounded/q4_0.wgsl")),
    (FormatId::Q4K, piece!("rounded/q4_k.wgsl")),
    (FormatId::Q6K, piece!("rounded/q6_k.wgsl")),
];

/// Whether a format is multiplied by integers.
pub(super) fn rounds(format: FormatId) -> bool {
    ROUNDED.iter().any(|(id, _)| *id == format)
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
        let format = format.format();
        pieces.extend([piece!("quant/common.wgsl"), Piece { name: format.name, source: format.shader }]);
    }
    match kernel.reduces {
        Some(Teams::Workgroup) if dialect.subgroups => pieces.push(piece!("reduce/subgroup.wgsl")),
        Some(Teams::Workgroup) => pieces.push(piece!("reduce/workgroup.wgsl")),
        Some(Teams::Invocation) => pieces.push(piece!("reduce/alone.wgsl")),
        None => {}
    }
    if kernel.kv {
        pieces.push(piece!("kv/common.wgsl"));
        pieces.push(match kv {
            KvFormat::F16 => piece!("kv/f16.wgsl"),
            KvFormat::F32 => piece!("kv/f32.wgsl"),
            KvFormat::Q8_0 => piece!("kv/q8_0.wgsl"),
            KvFormat::Q4_0 => piece!("kv/q4_0.wgsl"),
        });
    }
    if kernel.sees {
        pieces.push(piece!("seen.wgsl"));
    }
    if kernel.recurrent {
        pieces.push(piece!("state/slots.wgsl"));
    }
    if kernel.tiles {
        pieces.push(piece!("tiles.wgsl"));
    }
    if kernel.glu {
        pieces.push(piece!("glu.wgsl"));
    }
    if kernel.order {
        pieces.push(piece!("order.wgsl"));
    }
    if kernel.product {
        pieces.push(piece!("product.wgsl"));
    }
    if let Some((_, piece)) = ROUNDED.iter().find(|(id, _)| kernel.rounded && Some(*id) == format) {
        pieces.extend([piece!("rounded/common.wgsl"), *piece]);
    }
    pieces.push(Piece { name: kernel.name.trim_end_matches("_alone"), source: kernel.source });
    let directives = if kernel.reduces == Some(Teams::Workgroup) { preamble(dialect) } else { String::new() };
    join(directives, &pieces)
}

/// The source of the kernel that makes planes of blocks.
pub fn repack_source() -> String {
    join(String::new(), &[piece!("repack.wgsl")])
}

/// Every source that can be joined, by a name that tells the combination.
pub fn all_sources(dialects: &[Dialect]) -> Vec<(String, String)> {
    let mut sources = vec![("repack".to_owned(), repack_source())];
    for kernel in crate::kernel::KERNELS {
        let formats: Vec<Option<FormatId>> = match kernel.weights {
            true => {
                let mut formats: Vec<FormatId> = crate::quant::FORMATS.iter().map(|(format, _)| *format).collect();
                // Formats that differ in numbers only have one shader.
                formats.dedup_by_key(|format| format.format().shader);
                formats.retain(|format| !kernel.rounded || rounds(*format));
                formats.into_iter().map(Some).collect()
            }
            false => vec![None],
        };
        let kv_formats: &[KvFormat] = if kernel.kv { &KvFormat::ALL } else { &[KvFormat::F16] };
        let dialects =
            if kernel.reduces == Some(Teams::Workgroup) { dialects } else { dialects.get(..1).unwrap_or(dialects) };
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
