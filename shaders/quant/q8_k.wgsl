// Plane 0: signed bytes, four to a word. Plane 1: nine words for each 256 weights, the first is d, a float.
@group(0) @binding(0) var<storage, read> plane0: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let d = bitcast<f32>(plane1[at / 32u * 9u]);
    let w = plane0[at];
    return Weights8(d * vec4<f32>(unpack4xI8(w.x)), d * vec4<f32>(unpack4xI8(w.y)));
}
