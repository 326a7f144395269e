// Plane 0: 208 bytes for each 256 weights. 64 bytes for each half of them with the low nibbles (byte i holds weight i
// low and weight i + 64 high), then 32 for each half with the high bits (the bits 2j, 2j + 1 of byte i are weight
// 32j + i), then a signed scale for each 16 weights. Plane 1: d, a half float.
@group(0) @binding(0) var<storage, read> plane0: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let g = at % 32u;
    let scales = plane0[block * 26u + 24u + g / 16u];
    let s = unpack4xI8(select(scales.x, scales.y, g / 8u % 2u == 1u))[g / 2u % 4u];
    let scale = half_of(plane1[block / 2u], block) * f32(s);
    let low = (plane0[block * 26u + g / 16u * 8u + g % 8u] >> vec2(g / 8u % 2u * 4u)) & vec2(0x0f0f0f0fu);
    let high = plane0[block * 26u + 16u + g / 16u * 4u + g % 4u];
    let shift = g / 4u % 4u * 2u;
    let lo = unpack4xU8(low.x) + bit_pairs(high.x, shift) * 16u;
    let hi = unpack4xU8(low.y) + bit_pairs(high.y, shift) * 16u;
    return Weights8(scale * (vec4<f32>(lo) - 32.0), scale * (vec4<f32>(hi) - 32.0));
}
