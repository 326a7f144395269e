// Plane 0: regrouped nibbles. Plane 1: for each 256 weights d, m and the scales and minima of 32 each.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<vec4<u32>>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let sm = scale_and_minimum(plane1[at / 32u], at / 4u % 8u);
    let w = plane0[at];
    return Weights8(sm.x * vec4<f32>(low_nibbles(w)) - sm.y, sm.x * vec4<f32>(high_nibbles(w)) - sm.y);
}
