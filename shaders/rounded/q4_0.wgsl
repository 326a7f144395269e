// Products of 32 rounded activations with Q4_0: nibbles times bytes, and 8 less for each.
fn product32(row: u32, block: u32, x: Rounded) -> f32 {
    let at = row * (params.cols / 32u) + block;
    let sum = nibbles32(vec4(plane0[at * 4u], plane0[at * 4u + 1u], plane0[at * 4u + 2u], plane0[at * 4u + 3u]), x);
    return half_of(plane1[at / 2u], at) * (x.scale * f32(sum) - 8.0 * x.sum);
}
