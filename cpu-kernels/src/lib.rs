//! The hot loops of the CPU backend: products of matrices in every block format with rows of activations, norms, softmax and
//! gates. A crate of its own so that it is compiled for speed where everything else is compiled for size.
//!
//! Vectors are those of the `wide` crate: SSE2, NEON and WebAssembly's SIMD128, the least that every device has.
//!
//! Two ways of multiplying: [`float`] in 32-bit floats throughout, and [`integer`] by the blocks' own codes with
//! activations of 16 bits. In both a token's results do not depend on the tokens beside it, to the last bit: a prompt at once
//! or in pieces, a reply alone or in company have the same ids.

mod activations;
mod blocks;
pub mod elementwise;
pub mod float;
mod fused;
mod groups;
pub mod integer;
mod k_quants;
mod legacy;
mod levels;
mod widening;

pub use activations::Activations;
pub use blocks::{BLOCKS, Blocks, blocks};

/// Rows of a matrix that are multiplied together, and tokens of a panel: the lanes of a vector of 32-bit numbers.
const LANES: usize = 4;
