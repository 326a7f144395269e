// Keys and values as 16-bit floats, two to a word.
fn kv_words(n: u32) -> u32 { return n / 2u; }

fn kv_units(n: u32) -> u32 { return n / 2u; }

fn kv_load4(start: u32, n: u32, i: u32) -> vec4<f32> {
    let at = start + i / 2u;
    return vec4(unpack2x16float(kv[at]), unpack2x16float(kv[at + 1u]));
}

fn kv_store(start: u32, n: u32, u: u32) {
    kv[start + u] = pack2x16float(vec2(head[2u * u], head[2u * u + 1u]));
}
