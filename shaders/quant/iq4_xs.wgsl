// Plane 0: regrouped nibbles, which name levels. Plane 1: for each 256 weights d, a half float, and eight scales of six
// bits: the high two of each (16 bits together), then the low four of each.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<vec2<u32>>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let head = plane1[at / 32u];
    let index = at / 4u % 8u;
    let high = (head.x >> (16u + index * 2u)) & 3u;
    let low = (head.y >> (index * 4u)) & 15u;
    let scale = half_of(head.x, 0u) * (f32(low | (high << 4u)) - 32.0);
    let w = plane0[at];
    return Weights8(scale * levels(IQ4_LEVELS, low_nibbles(w)), scale * levels(IQ4_LEVELS, high_nibbles(w)));
}
