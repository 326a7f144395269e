// Plane 0: the weights, row after row, two to a word; each is the upper half of a float32.
@group(0) @binding(0) var<storage, read> plane0: array<vec4<u32>>;

fn bf16_pair(w: u32) -> vec2<f32> {
    return vec2(bitcast<f32>(w << 16u), bitcast<f32>(w & 0xffff0000u));
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let w = plane0[row * (params.cols / 8u) + group];
    return Weights8(vec4(bf16_pair(w.x), bf16_pair(w.y)), vec4(bf16_pair(w.z), bf16_pair(w.w)));
}
