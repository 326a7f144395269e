// Keys and values as 16-bit floats, two to a word. `kv` is one layer's pages; the kernel declares it as array<u32>.
fn kv_load4(at: u32) -> vec4<f32> {
    return vec4(unpack2x16float(kv[at / 2u]), unpack2x16float(kv[at / 2u + 1u]));
}

fn kv_store2(at: u32, a: f32, b: f32) {
    kv[at / 2u] = pack2x16float(vec2(a, b));
}
