// Plane 0: 96 bytes for each 256 weights: 32 bytes with the third bits (bit j of byte i is weight 32j + i), then two
// bits of each weight as in Q2_K. Plane 1: 14 bytes for each 256 weights: the low four bits of 16 scales (the nibbles
// of 8 bytes, scale i, then i + 8), the high two of them (of 4 bytes, scales i, i + 4, ...), and d, a half float.
@group(0) @binding(0) var<storage, read> plane0: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn plane1_byte(byte: u32) -> u32 {
    return byte_of(plane1[byte / 4u], byte);
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let g = at % 32u;
    let head = block * 14u;
    let d = half_of(plane1[(head + 12u) / 4u], head / 2u);
    let s = g / 2u;
    let low = (plane1_byte(head + s % 8u) >> (s / 8u * 4u)) & 15u;
    let high = (plane1_byte(head + 8u + s % 4u) >> (s / 4u * 2u)) & 3u;
    let scale = d * (f32(low | (high << 4u)) - 32.0);
    let h = plane0[block * 12u + g % 4u];
    let w = plane0[block * 12u + 4u + g / 16u * 4u + g % 4u];
    let shift = g / 4u % 4u * 2u;
    let lo = bit_pairs(w.x, shift) + single_bits(h.x, g / 4u) * 4u;
    let hi = bit_pairs(w.y, shift) + single_bits(h.y, g / 4u) * 4u;
    return Weights8(scale * (vec4<f32>(lo) - 4.0), scale * (vec4<f32>(hi) - 4.0));
}
