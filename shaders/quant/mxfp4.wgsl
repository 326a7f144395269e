// Plane 0: regrouped nibbles, floats of four bits. Plane 1: e of each 32 weights, a byte; their scale is 2^(e - 128)
// and the levels are twice the floats.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

const MXFP4_LEVELS = vec4<u32>(0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 4u;
    let e = byte_of(plane1[block / 4u], block);
    let scale = bitcast<f32>(select((e - 1u) << 23u, 0x200000u << e, e < 2u));
    let w = plane0[at];
    return Weights8(scale * levels(MXFP4_LEVELS, low_nibbles(w)), scale * levels(MXFP4_LEVELS, high_nibbles(w)));
}
