// Plane 0: nibbles in order, eight weights to a word. Plane 1: for each BLOCK weights a half float and a zero point of a
// byte; or, for PAIR, two half floats and a byte with two zero points, each for half of the block; or, for ROWWISE, one
// of each for a row.
override BLOCK: u32 = 64u;
override PAIR: bool = false;
override ROWWISE: bool = false;

@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn bytes_at(byte: u32) -> u32 {
    return bytes_of(plane1[byte / 4u], plane1[byte / 4u + 1u], byte);
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = select(at / (BLOCK / 8u), row, ROWWISE);
    var scale_at = block * 3u;
    var zero = bytes_at(scale_at + 2u) & 0xffu;
    if (PAIR) {
        let part = at / 4u % 2u;
        scale_at = block * 5u + part * 2u;
        zero = (bytes_at(block * 5u + 4u) >> (part * 4u)) & 15u;
    }
    let scale = unpack2x16float(bytes_at(scale_at)).x;
    let w = plane0[at];
    return Weights8(
        scale * (vec4<f32>(first_nibbles(w)) - f32(zero)),
        scale * (vec4<f32>(last_nibbles(w)) - f32(zero)),
    );
}
