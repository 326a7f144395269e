// Plane 0: regrouped nibbles. Plane 1: six bytes for each 32 weights, d (a half float) and the fifth bits in order.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let head = at / 4u * 3u;                                           // in units of two bytes
    let d = half_of(plane1[head / 2u], head);
    let byte = head * 2u + 2u + at % 4u;
    let high = byte_of(plane1[byte / 4u], byte);
    let w = plane0[at];
    let lo = low_nibbles(w) + four_bits(high) * 16u;
    let hi = high_nibbles(w) + four_bits(high >> 4u) * 16u;
    return Weights8(d * (vec4<f32>(lo) - 16.0), d * (vec4<f32>(hi) - 16.0));
}
