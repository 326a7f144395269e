// Plane 0: regrouped nibbles. Plane 1: d and m of each 32 weights, half floats.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let dm = unpack2x16float(plane1[at / 4u]);
    let w = plane0[at];
    return Weights8(dm.x * vec4<f32>(low_nibbles(w)) + dm.y, dm.x * vec4<f32>(high_nibbles(w)) + dm.y);
}
