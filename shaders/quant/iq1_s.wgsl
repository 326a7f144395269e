// Plane 0: 48 bytes for each 256 weights: a byte for each eight that names eight of -1, 0, 1, then 16 bits for each 32:
// four times three high bits of the names, three of a scale, and whether the weights are shifted down. Plane 1: d, a
// half float. Table: eight values an entry.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;
@group(0) @binding(2) var<storage, read> grid: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let g = at % 32u;
    let low = byte_of(plane0[block * 12u + g / 4u], g);
    let h = half_bits(plane0[block * 12u + 8u + g / 8u], g / 4u);
    let scale = half_of(plane1[block / 2u], block) * f32(((h >> 12u) & 7u) * 2u + 1u);
    let index = low | (((h >> (g % 4u * 3u)) & 7u) << 8u);
    return shifted8(scale, half_bits(grid[index / 2u], index), h >= 0x8000u);
}
