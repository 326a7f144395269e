// Plane 0: regrouped nibbles, which name levels. Plane 1: d of each 32 weights, a half float.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 4u;
    let d = half_of(plane1[block / 2u], block);
    let w = plane0[at];
    return Weights8(d * levels(IQ4_LEVELS, low_nibbles(w)), d * levels(IQ4_LEVELS, high_nibbles(w)));
}
