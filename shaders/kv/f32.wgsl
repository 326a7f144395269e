// Keys and values as 32-bit floats. `kv` is one layer's pages; the kernel declares it as array<u32>.
fn kv_load4(at: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4(kv[at], kv[at + 1u], kv[at + 2u], kv[at + 3u]));
}

fn kv_store2(at: u32, a: f32, b: f32) {
    kv[at] = bitcast<u32>(a);
    kv[at + 1u] = bitcast<u32>(b);
}
