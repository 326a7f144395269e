// Plane 0: 72 bytes for each 256 weights. 16 bits for each eight: nine that name eight magnitudes and seven for signs;
// then a scale of four bits for each 16. Plane 1: d, a half float. Table: eight magnitudes an entry.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;
@group(0) @binding(2) var<storage, read> grid: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let g = at % 32u;
    let q = half_bits(plane0[block * 18u + g / 2u], g);
    let s = (plane0[block * 18u + 16u + g / 16u] >> (g / 2u % 8u * 4u)) & 15u;
    let scale = half_of(plane1[block / 2u], block) * (0.5 + f32(s)) * 0.25;
    let index = q & 511u;
    let entry = half_bits(grid[index / 2u], index);
    return signed8(scale, levels2(entry), levels2(entry >> 8u), even_signs(q >> 9u));
}
