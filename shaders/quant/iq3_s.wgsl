// Plane 0: 108 bytes for each 256 weights: a byte for each four that names four magnitudes, a bit above it for each
// four, a bit for each sign, a scale of four bits for each 32. Plane 1: d, a half float. Table: four magnitudes an entry.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;
@group(0) @binding(2) var<storage, read> grid: array<u32>;

fn magnitudes(index: u32) -> vec4<f32> {
    return vec4<f32>(1u + codes3(half_bits(grid[index / 2u], index)) * 2u);
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let g = at % 32u;
    let q = half_bits(plane0[block * 27u + g / 2u], g);
    let high = plane0[block * 27u + 16u + g / 16u] >> (g % 16u * 2u);
    let signs = byte_of(plane0[block * 27u + 18u + g / 4u], g);
    let s = (plane0[block * 27u + 26u] >> (g / 4u * 4u)) & 15u;
    let scale = half_of(plane1[block / 2u], block) * f32(1u + 2u * s);
    let lo = (q & 0xffu) | ((high & 1u) << 8u);
    let hi = (q >> 8u) | ((high & 2u) << 7u);
    return signed8(scale, magnitudes(lo), magnitudes(hi), signs);
}
