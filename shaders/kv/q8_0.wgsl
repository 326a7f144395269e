// Keys and values as signed bytes, four to a word, with a half float for each block behind all of a head's bytes. One
// invocation writes two blocks, whose scales share a word.
fn kv_words(n: u32) -> u32 { return n / 4u + kv_scale_words(n); }

fn kv_units(n: u32) -> u32 { return kv_scale_words(n); }

fn kv_load4(start: u32, n: u32, i: u32) -> vec4<f32> {
    let block = i / kv_block(n);
    let scale = unpack2x16float(kv[start + n / 4u + block / 2u] >> (block % 2u * 16u)).x;
    return scale * vec4<f32>(unpack4xI8(kv[start + i / 4u]));
}

fn kv_store(start: u32, n: u32, u: u32) {
    let size = kv_block(n);
    var scales = vec2(0.0);
    for (var part = 0u; part < 2u; part++) {
        let first = (u * 2u + part) * size;
        if (first >= n) { break; }
        var largest = 0.0;
        for (var i = 0u; i < size; i++) { largest = max(largest, abs(head[first + i])); }
        let d = largest / 127.0;
        let id = select(1.0 / d, 0.0, d == 0.0);
        for (var i = 0u; i < size; i += 4u) {
            let x = vec4(head[first + i], head[first + i + 1u], head[first + i + 2u], head[first + i + 3u]) * id;
            // Halves go away from zero.
            let q = vec4<i32>(sign(x) * floor(abs(x) + 0.5));
            kv[start + (first + i) / 4u] = pack4xI8(q);
        }
        scales[part] = d;
    }
    kv[start + n / 4u + u] = pack2x16float(scales);
}
