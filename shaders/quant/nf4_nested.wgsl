// Plane 0, for each BLOCK weights: a scale, codes of magnitudes, one byte for each 64 weights, and nibbles in order, eight
// weights to a word, which name levels. Plane 1: the offset of each row. Table: sixteen levels, then the magnitudes of codes.
override BLOCK: u32 = 256u;

@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<f32>;
@group(0) @binding(2) var<storage, read> table: array<f32>;

fn named(index: vec4<u32>) -> vec4<f32> {
    return vec4(table[index.x], table[index.y], table[index.z], table[index.w]);
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let within = at % (BLOCK / 8u);                                    // words of nibbles before it in its block
    let block = at / (BLOCK / 8u) * (1u + BLOCK / 256u + BLOCK / 8u);
    let code = (plane0[block + 1u + within / 32u] >> (within / 8u % 4u * 8u)) & 0xffu;
    let largest = table[16u + code] * bitcast<f32>(plane0[block]) + plane1[row];
    let w = plane0[block + 1u + BLOCK / 256u + within];
    return Weights8(largest * named(first_nibbles(w)), largest * named(last_nibbles(w)));
}
