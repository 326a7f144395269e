// Products of 32 rounded activations with Q6_K: numbers of six bits times bytes, 32 less for each, a scale for each 16.
fn six_bits(block: u32, g: u32) -> vec2<u32> {                         // group g of eight of a block of 256
    let low = (plane0[block * 26u + g / 16u * 8u + g % 8u] >> vec2(g / 8u % 2u * 4u)) & vec2(0x0f0f0f0fu);
    let high = plane0[block * 26u + 16u + g / 16u * 4u + g % 4u];
    return low | (((high >> vec2(g / 4u % 4u * 2u)) & vec2(0x03030303u)) << vec2(4u));
}

fn product32(row: u32, block: u32, x: Rounded) -> f32 {
    let at = row * (params.cols / 32u) + block;
    let whole = at / 8u;
    let g = at % 8u * 4u;
    let words = plane0[whole * 26u + 24u + g / 16u];
    let scales = unpack4xI8(select(words.x, words.y, g / 8u % 2u == 1u));
    let ones = vec4(0x01010101u);
    let lo = dot16(vec4(six_bits(whole, g), six_bits(whole, g + 1u)), x.lo) - 32 * dot16(ones, x.lo);
    let hi = dot16(vec4(six_bits(whole, g + 2u), six_bits(whole, g + 3u)), x.hi) - 32 * dot16(ones, x.hi);
    let first = g / 2u % 4u;
    return half_of(plane1[whole / 2u], whole) * x.scale * f32(scales[first] * lo + scales[first + 1u] * hi);
}
