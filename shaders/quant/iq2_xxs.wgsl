// Plane 0: for each 32 weights four bytes that name eight magnitudes each, then a word with four times seven bits for
// signs and the scale. Plane 1: d of each 256 weights, a half float. Table: eight magnitudes an entry.
@group(0) @binding(0) var<storage, read> plane0: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;
@group(0) @binding(2) var<storage, read> grid: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let part = plane0[at / 4u];
    let scale = half_of(plane1[block / 2u], block) * (0.5 + f32(part.y >> 28u)) * 0.25;
    let index = byte_of(part.x, at);
    let entry = half_bits(grid[index / 2u], index);
    return signed8(scale, levels2(entry), levels2(entry >> 8u), even_signs(part.y >> (at % 4u * 7u)));
}
