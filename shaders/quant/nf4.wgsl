// Nibbles in order, eight weights to a word, which name levels. BLOCK 0: plane 0 has them alone, plane 1 the largest magnitude
// of each 64 weights. Else plane 0 has, for each BLOCK weights, a scale, codes of magnitudes, one byte for each 64 weights,
// and the nibbles; plane 1 the offsets of the even rows of 16 and of the odd ones. Table: sixteen levels, then the magnitudes of
// codes.
override BLOCK: u32 = 0u;

@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<f32>;
@group(0) @binding(2) var<storage, read> table: array<f32>;

fn named(index: vec4<u32>) -> vec4<f32> {
    return vec4(table[index.x], table[index.y], table[index.z], table[index.w]);
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    var word = at;
    var largest = 0.0;
    if (BLOCK == 0u) {
        largest = plane1[at / 8u];
    } else {
        let within = at % max(BLOCK / 8u, 1u);                         // words of nibbles before it in its block
        let block = at / max(BLOCK / 8u, 1u) * (1u + BLOCK / 256u + BLOCK / 8u);
        let code = byte_of(plane0[block + 1u + within / 32u], within / 8u);
        largest = table[16u + code] * bitcast<f32>(plane0[block]) + plane1[row / 16u * 2u + row % 2u];
        word = block + 1u + BLOCK / 256u + within;
    }
    let w = plane0[word];
    return Weights8(largest * named(first_nibbles(w)), largest * named(last_nibbles(w)));
}
