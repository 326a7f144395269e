// Keys and values as nibbles in order, eight to a word, 8 for zero, with a half float for each block behind all of a head's
// nibbles. One invocation writes two blocks, whose scales share a word.
fn kv_words(n: u32) -> u32 { return n / 8u + kv_scale_words(n); }

fn kv_units(n: u32) -> u32 { return kv_scale_words(n); }

fn kv_load4(start: u32, n: u32, i: u32) -> vec4<f32> {
    let block = i / kv_block(n);
    let scale = unpack2x16float(kv[start + n / 8u + block / 2u] >> (block % 2u * 16u)).x;
    let nibbles = kv[start + i / 8u] >> (i % 8u * 4u);
    return scale * (vec4<f32>((vec4(nibbles) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u)) - 8.0);
}

fn kv_store(start: u32, n: u32, u: u32) {
    let size = kv_block(n);
    var scales = vec2(0.0);
    for (var part = 0u; part < 2u; part++) {
        let first = (u * 2u + part) * size;
        if (first >= n) { break; }
        var extreme = 0.0;
        for (var i = 0u; i < size; i++) {
            let x = head[first + i];
            if (abs(x) > abs(extreme)) { extreme = x; }
        }
        let d = extreme / -8.0;
        let id = select(1.0 / d, 0.0, d == 0.0);
        for (var i = 0u; i < size; i += 8u) {
            var word = 0u;
            for (var j = 0u; j < 8u; j++) { word |= min(u32(head[first + i + j] * id + 8.5), 15u) << (j * 4u); }
            kv[start + (first + i) / 8u] = word;
        }
        scales[part] = d;
    }
    kv[start + n / 8u + u] = pack2x16float(scales);
}
