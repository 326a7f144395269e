// Plane 0: floats of eight bits, four to a word. Plane 1: the scale of each row (ROWWISE), or, for 128 columns each, that
// of every second row of 16: first the even rows', then the odd ones'.
override E5M2: bool = false;
override ROWWISE: bool = false;

@group(0) @binding(0) var<storage, read> plane0: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> plane1: array<f32>;

fn floats(word: u32) -> vec4<f32> {
    let bytes = unpack4xU8(word);
    if (E5M2) {                                                        // the upper byte of a half float
        return vec4(
            unpack2x16float((bytes.x << 8u) | (bytes.y << 24u)),
            unpack2x16float((bytes.z << 8u) | (bytes.w << 24u)),
        );
    }
    let magnitude = bytes & vec4(0x7fu);
    let normal = bitcast<vec4<f32>>((magnitude << vec4(20u)) + vec4(120u << 23u));
    let value = select(normal, vec4<f32>(magnitude) * 0.001953125, magnitude < vec4(8u));
    return select(value, -value, bytes >= vec4(0x80u));
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let tile = (row / 16u * 2u + row % 2u) * ((params.cols + 127u) / 128u) + group / 16u;
    let scale = plane1[select(tile, row, ROWWISE)];
    let w = plane0[row * (params.cols / 8u) + group];
    return Weights8(scale * floats(w.x), scale * floats(w.y));
}
