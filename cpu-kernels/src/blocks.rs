//! Block formats as codes of small integers with factors, for [`integer`](crate::integer) products: one row of the table a
//! format, which `src/quant` describes in full.

use crate::fused::{self, Product};
use crate::{groups, k_quants, legacy, levels};

/// Reads a row of a matrix.
pub(crate) type Read = fn(bytes: &[u8], row: &mut Row<'_>);

/// A row as integers: weight `i` is `factors[g] * codes[i] + addends[g]`, `g` being its group.
pub(crate) struct Row<'a> {
    /// Nine bits and a sign at most, so that 32 products with activations fit a sum of 32 bits.
    pub(crate) codes: &'a mut [i16],
    pub(crate) factors: &'a mut [f32],
    /// Only written where the format has them.
    pub(crate) addends: &'a mut [f32],
}

/// How weights share factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// A factor for 16.
    Of16,
    /// A factor and an addend for 16.
    Of16WithAddends,
    /// A factor for 32.
    Of32,
    /// A factor and an addend for 32.
    Of32WithAddends,
}

impl Group {
    /// Weights of a group.
    pub(crate) fn len(self) -> usize {
        match self {
            Group::Of16 | Group::Of16WithAddends => 16,
            Group::Of32 | Group::Of32WithAddends => 32,
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Blocks {
    /// As `src/quant` calls the format.
    pub name: &'static str,
    pub(crate) group: Group,
    pub(crate) read: Read,
    /// The product with a single token, where there is one of the format's own.
    pub(crate) by_one: Option<Product>,
}

/// The format of a name, where its weights are integers with factors.
pub fn blocks(name: &str) -> Option<&'static Blocks> {
    BLOCKS.iter().find(|blocks| blocks.name == name)
}

const fn row(name: &'static str, group: Group, read: Read) -> Blocks {
    Blocks { name, group, read, by_one: None }
}

/// The same with a product of its own for a single token.
const fn fused(name: &'static str, group: Group, read: Read, by_one: Product) -> Blocks {
    Blocks { name, group, read, by_one: Some(by_one) }
}

/// Every format that has integers. Of the others some name entries of tables, some are floats.
pub const BLOCKS: &[Blocks] = &[
    fused("q8_0", Group::Of32, legacy::q8_0, fused::q8_0),
    fused("q4_0", Group::Of32, legacy::q4_0, fused::q4_0),
    row("q4_1", Group::Of32WithAddends, legacy::q4_1),
    row("q5_0", Group::Of32, legacy::q5_0),
    row("q5_1", Group::Of32WithAddends, legacy::q5_1),
    row("q2_k", Group::Of16WithAddends, k_quants::q2_k),
    row("q3_k", Group::Of16, k_quants::q3_k),
    fused("q4_k", Group::Of32WithAddends, k_quants::q4_k, fused::q4_k),
    row("q5_k", Group::Of32WithAddends, k_quants::q5_k),
    fused("q6_k", Group::Of16, k_quants::q6_k, fused::q6_k),
    row("q8_k", Group::Of32, k_quants::q8_k),
    row("iq4_nl", Group::Of32, levels::iq4_nl),
    row("iq4_xs", Group::Of32, levels::iq4_xs),
    row("mxfp4", Group::Of32, levels::mxfp4),
    row("affine4_g32_f16", Group::Of32WithAddends, groups::affine_f16::<32, 4>),
    row("affine4_g64_f16", Group::Of32WithAddends, groups::affine_f16::<64, 4>),
    row("affine4_g128_f16", Group::Of32WithAddends, groups::affine_f16::<128, 4>),
    row("affine4_g32_bf16", Group::Of32WithAddends, groups::affine_bf16::<32, 4>),
    row("affine4_g64_bf16", Group::Of32WithAddends, groups::affine_bf16::<64, 4>),
    row("affine4_g128_bf16", Group::Of32WithAddends, groups::affine_bf16::<128, 4>),
    row("affine8_g32_f16", Group::Of32WithAddends, groups::affine_f16::<32, 8>),
    row("affine8_g64_f16", Group::Of32WithAddends, groups::affine_f16::<64, 8>),
    row("affine8_g128_f16", Group::Of32WithAddends, groups::affine_f16::<128, 8>),
    row("affine8_g32_bf16", Group::Of32WithAddends, groups::affine_bf16::<32, 8>),
    row("affine8_g64_bf16", Group::Of32WithAddends, groups::affine_bf16::<64, 8>),
    row("affine8_g128_bf16", Group::Of32WithAddends, groups::affine_bf16::<128, 8>),
    row("zero4_g32", Group::Of32, groups::zero4_pairs),
    row("zero4_g64", Group::Of32, groups::zero::<64, 4>),
    row("zero4_g128", Group::Of32, groups::zero::<128, 4>),
    row("zero8_g32", Group::Of32, groups::zero::<32, 8>),
    row("zero8_g64", Group::Of32, groups::zero::<64, 8>),
    row("zero8_g128", Group::Of32, groups::zero::<128, 8>),
];
