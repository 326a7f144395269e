// Plane 0: regrouped nibbles. Plane 1: for each 32 weights d and m, half floats, and the fifth bits in order.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<vec2<u32>>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let head = plane1[at / 4u];
    let dm = unpack2x16float(head.x);
    let high = byte_of(head.y, at);
    let w = plane0[at];
    let lo = low_nibbles(w) + four_bits(high) * 16u;
    let hi = high_nibbles(w) + four_bits(high >> 4u) * 16u;
    return Weights8(dm.x * vec4<f32>(lo) + dm.y, dm.x * vec4<f32>(hi) + dm.y);
}
