// Plane 0: nibbles in order, eight weights to a word, which name levels. Plane 1: the largest magnitude of each 64 weights.
// Table: the sixteen levels.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<f32>;
@group(0) @binding(2) var<storage, read> table: array<f32>;

fn named(index: vec4<u32>) -> vec4<f32> {
    return vec4(table[index.x], table[index.y], table[index.z], table[index.w]);
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let w = plane0[at];
    let largest = plane1[at / 8u];
    return Weights8(largest * named(first_nibbles(w)), largest * named(last_nibbles(w)));
}
