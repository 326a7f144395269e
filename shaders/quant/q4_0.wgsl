// Plane 0: nibbles, eight to a word: byte j of a word holds weight j (low nibble) and weight j + 4 (high nibble) of its
// eight. Plane 1: the f16 scale of each 32 weights, two to a word.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

struct Weights8 { lo: vec4<f32>, hi: vec4<f32> }

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 4u;
    let scales = unpack2x16float(plane1[block / 2u]);
    let scale = select(scales.x, scales.y, (block & 1u) == 1u);
    let w = plane0[at];
    return Weights8(
        scale * (vec4<f32>(unpack4xU8(w & 0x0f0f0f0fu)) - 8.0),
        scale * (vec4<f32>(unpack4xU8((w >> 4u) & 0x0f0f0f0fu)) - 8.0),
    );
}
