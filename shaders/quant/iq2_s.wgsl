// Plane 0: 80 bytes for each 256 weights: a byte for each eight that names eight magnitudes, a byte for each eight with
// their signs, two high bits of the names for each eight, a scale of four bits for each 16. Plane 1: d, a half float.
// Table: eight magnitudes an entry.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;
@group(0) @binding(2) var<storage, read> grid: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let g = at % 32u;
    let low = byte_of(plane0[block * 20u + g / 4u], g);
    let signs = byte_of(plane0[block * 20u + 8u + g / 4u], g);
    let high = (plane0[block * 20u + 16u + g / 16u] >> (g % 16u * 2u)) & 3u;
    let s = (plane0[block * 20u + 18u + g / 16u] >> (g / 2u % 8u * 4u)) & 15u;
    let scale = half_of(plane1[block / 2u], block) * (0.5 + f32(s)) * 0.25;
    let index = low | (high << 8u);
    let entry = half_bits(grid[index / 2u], index);
    return signed8(scale, levels2(entry), levels2(entry >> 8u), signs);
}
