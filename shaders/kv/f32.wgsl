// Keys and values as 32-bit floats.
fn kv_words(n: u32) -> u32 { return n; }

fn kv_units(n: u32) -> u32 { return n; }

fn kv_load4(start: u32, n: u32, i: u32) -> vec4<f32> {
    let at = start + i;
    return bitcast<vec4<f32>>(vec4(kv[at], kv[at + 1u], kv[at + 2u], kv[at + 3u]));
}

fn kv_store(start: u32, n: u32, u: u32) {
    kv[start + u] = bitcast<u32>(head[u]);
}
