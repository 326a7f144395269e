// Plane 0: regrouped nibbles. Plane 1: for each 256 weights d, m and the scales and minima of 32 each as in Q4_K, then
// 32 bytes with the fifth bits: bit j of byte i is weight 32j + i.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<vec4<u32>>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let head = at / 32u * 3u;
    let index = at / 4u % 8u;
    let sm = scale_and_minimum(plane1[head], index);
    let bits = plane1[head + 1u + at % 4u / 2u];
    let high = select(bits.xy, bits.zw, at % 2u == 1u);
    let w = plane0[at];
    let lo = low_nibbles(w) + single_bits(high.x, index) * 16u;
    let hi = high_nibbles(w) + single_bits(high.y, index) * 16u;
    return Weights8(sm.x * vec4<f32>(lo) - sm.y, sm.x * vec4<f32>(hi) - sm.y);
}
