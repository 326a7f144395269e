// Plane 0: 96 bytes for each 256 weights: a byte for each four that names four magnitudes, then a word for each 32 with
// four times seven bits for signs and the scale. Plane 1: d, a half float. Table: four magnitudes an entry.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;
@group(0) @binding(2) var<storage, read> grid: array<u32>;

fn magnitudes(index: u32) -> vec4<f32> {                               // evenly spaced, but for the last
    let code = codes3(half_bits(grid[index / 2u], index));
    return vec4<f32>(4u + code * 8u + ((code + 1u) >> vec4(3u)) * 2u);
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let g = at % 32u;
    let q = half_bits(plane0[block * 24u + g / 2u], g);
    let s = plane0[block * 24u + 16u + g / 4u];
    let scale = half_of(plane1[block / 2u], block) * (0.5 + f32(s >> 28u)) * 0.5;
    return signed8(scale, magnitudes(q & 0xffu), magnitudes(q >> 8u), even_signs(s >> (g % 4u * 7u)));
}
