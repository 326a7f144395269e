// Activations rounded to signed bytes, 32 with one scale, as `round.wgsl` writes them: first the bytes of a row, four to a
// word, then for each 32 the scale and the scaled sum. Each format's file gives product32 over its planes.
struct Rounded { lo: vec4<u32>, hi: vec4<u32>, scale: f32, sum: f32 }

fn rounded(start: u32, block: u32) -> Rounded {                        // of a row from word `start` on
    let at = start / 4u + block * 2u;
    let factors = x[(start + params.cols / 4u + block * 2u) / 4u];
    let pair = bitcast<vec2<f32>>(select(factors.xy, factors.zw, block % 2u == 1u));
    return Rounded(x[at], x[at + 1u], pair.x, pair.y);
}

fn dot16(w: vec4<u32>, q: vec4<u32>) -> i32 {
    return dot4I8Packed(w.x, q.x) + dot4I8Packed(w.y, q.y) + dot4I8Packed(w.z, q.z) + dot4I8Packed(w.w, q.w);
}

fn nibbles32(w: vec4<u32>, q: Rounded) -> i32 {                        // of regrouped nibbles
    let low = w & vec4(0x0f0f0f0fu);
    let high = (w >> vec4(4u)) & vec4(0x0f0f0f0fu);
    return dot16(vec4(low.x, high.x, low.y, high.y), q.lo) + dot16(vec4(low.z, high.z, low.w, high.w), q.hi);
}
