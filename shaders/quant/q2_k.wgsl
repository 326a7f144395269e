// Plane 0: 64 bytes for each 256 weights, 32 for each half of them; the bits 2j, 2j + 1 of byte i are weight 32j + i of
// the half. Plane 1: five words for each 256 weights: a byte for each 16 of them (scale low, minimum high), then d and
// m, half floats.
@group(0) @binding(0) var<storage, read> plane0: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let g = at % 32u;
    let dm = unpack2x16float(plane1[block * 5u + 4u]);
    let s = byte_of(plane1[block * 5u + g / 8u], g / 2u);
    let scale = dm.x * f32(s & 15u);
    let minimum = dm.y * f32(s >> 4u);
    let w = plane0[block * 8u + g / 16u * 4u + g % 4u];
    let shift = g / 4u % 4u * 2u;
    return Weights8(
        scale * vec4<f32>(bit_pairs(w.x, shift)) - minimum,
        scale * vec4<f32>(bit_pairs(w.y, shift)) - minimum,
    );
}
