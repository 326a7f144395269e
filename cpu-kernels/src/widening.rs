//! Sixteen bytes as integers of 16 bits. The one place where the `wide` crate leaves to chance what WebAssembly has instructions
//! for.

use wide::i16x8;
#[cfg(not(target_arch = "wasm32"))]
use wide::{i8x16, i16x16, u8x16};

/// Signed bytes.
#[cfg(not(target_arch = "wasm32"))]
#[inline(always)]
pub(crate) fn signed(bytes: &[u8; 16]) -> [i16x8; 2] {
    bytemuck::cast(i16x16::from_i8x16(bytemuck::cast::<[u8; 16], i8x16>(*bytes)))
}

/// Signed bytes.
#[cfg(target_arch = "wasm32")]
#[inline(always)]
pub(crate) fn signed(bytes: &[u8; 16]) -> [i16x8; 2] {
    use core::arch::wasm32::{i16x8_extend_high_i8x16, i16x8_extend_low_i8x16, v128};

    let bytes: v128 = bytemuck::cast(*bytes);
    [bytemuck::cast(i16x8_extend_low_i8x16(bytes)), bytemuck::cast(i16x8_extend_high_i8x16(bytes))]
}

/// Unsigned bytes.
#[cfg(not(target_arch = "wasm32"))]
#[inline(always)]
pub(crate) fn unsigned(bytes: &[u8; 16]) -> [i16x8; 2] {
    let bytes = u8x16::new(*bytes);
    [i16x8::from_u8x16_low(bytes), i16x8::from_u8x16_high(bytes)]
}

/// Unsigned bytes.
#[cfg(target_arch = "wasm32")]
#[inline(always)]
pub(crate) fn unsigned(bytes: &[u8; 16]) -> [i16x8; 2] {
    use core::arch::wasm32::{u16x8_extend_high_u8x16, u16x8_extend_low_u8x16, v128};

    let bytes: v128 = bytemuck::cast(*bytes);
    [bytemuck::cast(u16x8_extend_low_u8x16(bytes)), bytemuck::cast(u16x8_extend_high_u8x16(bytes))]
}
