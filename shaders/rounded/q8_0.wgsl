// Products of 32 rounded activations with Q8_0: bytes times bytes.
fn product32(row: u32, block: u32, x: Rounded) -> f32 {
    let at = row * (params.cols / 32u) + block;
    let w = plane0[at * 4u];
    let w1 = plane0[at * 4u + 1u];
    let w2 = plane0[at * 4u + 2u];
    let w3 = plane0[at * 4u + 3u];
    let sum = dot16(vec4(w, w1), x.lo) + dot16(vec4(w2, w3), x.hi);
    return half_of(plane1[at / 2u], at) * x.scale * f32(sum);
}
