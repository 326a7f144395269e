// Plane 0: bytes, four to a word. Plane 1: for each BLOCK weights a half float and a zero point of a byte; for ROWWISE,
// for each row.
override BLOCK: u32 = 64u;
override ROWWISE: bool = false;

@group(0) @binding(0) var<storage, read> plane0: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn bytes_at(byte: u32) -> u32 {
    return bytes_of(plane1[byte / 4u], plane1[byte / 4u + 1u], byte);
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let head = select(at / (BLOCK / 8u), row, ROWWISE) * 3u;
    let scale = unpack2x16float(bytes_at(head)).x;
    let zero = f32(bytes_at(head + 2u) & 0xffu);
    let w = plane0[at];
    return Weights8(scale * (vec4<f32>(unpack4xU8(w.x)) - zero), scale * (vec4<f32>(unpack4xU8(w.y)) - zero));
}
