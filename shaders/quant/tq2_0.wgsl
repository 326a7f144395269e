// Plane 0: 64 bytes for each 256 weights, two bits each as in Q2_K. Plane 1: d, a half float.
@group(0) @binding(0) var<storage, read> plane0: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let g = at % 32u;
    let d = half_of(plane1[block / 2u], block);
    let w = plane0[block * 8u + g / 16u * 4u + g % 4u];
    let shift = g / 4u % 4u * 2u;
    return Weights8(d * (vec4<f32>(bit_pairs(w.x, shift)) - 1.0), d * (vec4<f32>(bit_pairs(w.y, shift)) - 1.0));
}
