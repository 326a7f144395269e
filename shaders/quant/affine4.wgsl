// Plane 0: nibbles in order, eight weights to a word. Plane 1: scale and bias of each GROUP weights, two half floats, or
// two upper halves of float32 (BFLOAT).
override GROUP: u32 = 64u;
override BFLOAT: bool = false;

@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let head = plane1[at / (GROUP / 8u)];
    let sb = two_floats(head, BFLOAT);
    let w = plane0[at];
    return Weights8(sb.x * vec4<f32>(first_nibbles(w)) + sb.y, sb.x * vec4<f32>(last_nibbles(w)) + sb.y);
}
