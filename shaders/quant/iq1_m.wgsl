// Plane 0: 48 bytes for each 256 weights: a byte for each eight that names eight of -1, 0, 1, then four bits for each
// eight: three high bits of the name and whether the weights are shifted down. Plane 1: four times 16 bits, each with
// four scales of three bits; the highest four bits of each are d, a half float. Table: that of IQ1_S.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> grid: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let g = at % 32u;
    let low = byte_of(plane0[block * 12u + g / 4u], g);
    let h = plane0[block * 12u + 8u + g / 8u] >> (g % 8u * 4u);
    let s = plane1[block];
    let top = (s >> vec2(12u)) & vec2(15u);
    let d = half_of(top.x | ((s.x >> 28u) << 4u) | (top.y << 8u) | ((s.y >> 28u) << 12u), 0u);
    let code = half_bits(select(s.x, s.y, g >= 16u), g / 8u) >> (g / 2u % 4u * 3u);
    let scale = d * f32((code & 7u) * 2u + 1u);
    let index = low | ((h & 7u) << 8u);
    return shifted8(scale, half_bits(grid[index / 2u], index), (h & 8u) != 0u);
}
