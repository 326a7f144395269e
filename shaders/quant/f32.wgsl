// Plane 0: the weights, row after row.
@group(0) @binding(0) var<storage, read> plane0: array<vec4<u32>>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = (row * (params.cols / 8u) + group) * 2u;
    return Weights8(bitcast<vec4<f32>>(plane0[at]), bitcast<vec4<f32>>(plane0[at + 1u]));
}
