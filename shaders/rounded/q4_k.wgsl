// Products of 32 rounded activations with Q4_K: nibbles times bytes, and the minimum of each.
fn product32(row: u32, block: u32, x: Rounded) -> f32 {
    let at = row * (params.cols / 32u) + block;
    let sm = scale_and_minimum(plane1[at / 8u], at % 8u);
    let sum = nibbles32(vec4(plane0[at * 4u], plane0[at * 4u + 1u], plane0[at * 4u + 2u], plane0[at * 4u + 3u]), x);
    return sm.x * x.scale * f32(sum) - sm.y * x.sum;
}
