// Plane 0: the weights, row after row, two to a word.
@group(0) @binding(0) var<storage, read> plane0: array<vec4<u32>>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let w = plane0[row * (params.cols / 8u) + group];
    return Weights8(
        vec4(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
}
