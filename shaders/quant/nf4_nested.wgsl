// Plane 0: nibbles in order, eight weights to a word, which name levels. Plane 1, for each 64 rows: of the even rows and of
// the odd ones the offset, the place of the first block with the rows from one to the next, and scales, one for 256 blocks of
// 64 weights; then a code for each block, row by row (src/quant/runs.rs). Table: sixteen levels, then the magnitudes of codes.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;
@group(0) @binding(2) var<storage, read> table: array<f32>;

fn named(index: vec4<u32>) -> vec4<f32> {
    return vec4(table[index.x], table[index.y], table[index.z], table[index.w]);
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let blocks = params.cols / 64u;
    let entry_words = blocks / 4u + 4u;
    let window = row / 64u * (2u * entry_words + 16u * blocks);
    let entry = window + row % 2u * entry_words;
    let within = row % 64u;
    let start = plane1[entry + 1u];
    let place = (start & 0xffu) + within / 2u * (start >> 8u) * blocks + group / 8u;
    let byte = within * blocks + group / 8u;
    let code = byte_of(plane1[window + 2u * entry_words + byte / 4u], byte);
    let scale = bitcast<f32>(plane1[entry + 2u + place / 256u]);
    let largest = table[16u + code] * scale + bitcast<f32>(plane1[entry]);
    let w = plane0[row * (params.cols / 8u) + group];
    return Weights8(largest * named(first_nibbles(w)), largest * named(last_nibbles(w)));
}
