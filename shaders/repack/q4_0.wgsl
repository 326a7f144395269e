// Blocks of 18 bytes (f16 scale, 16 bytes: byte i holds weight i low and weight i + 16 high) to plane 0 (eight
// consecutive weights a word, see quant/q4_0.wgsl) and plane 1 (scales). One invocation, one block. Two blocks share a
// word of plane 1 and may come from different uploads: plane 1 starts at zero and is or-ed.
struct Params { blocks_per_row: u32, rows: u32, first_row: u32, row_step: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> raw: array<u32>;              // (rows, blocks_per_row) blocks
@group(0) @binding(2) var<storage, read_write> plane0: array<u32>;
@group(0) @binding(3) var<storage, read_write> plane1: array<atomic<u32>>;

fn raw_half(at: u32) -> u32 {                                          // 16 bits at an even byte offset
    return (raw[at / 4u] >> ((at & 2u) * 8u)) & 0xffffu;
}

fn raw_word(at: u32) -> u32 {
    return raw_half(at) | (raw_half(at + 2u) << 16u);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let source = id.y * grid.x * 64u + id.x;
    if (source >= params.rows * params.blocks_per_row) { return; }
    let row = params.first_row + source / params.blocks_per_row * params.row_step;
    let block = row * params.blocks_per_row + source % params.blocks_per_row;
    let at = source * 18u;
    for (var i = 0u; i < 2u; i++) {
        // Eight bytes: the low nibbles are the weights 8i .. 8i + 8, the high ones the weights 16 + 8i .. 24 + 8i.
        let a = raw_word(at + 2u + i * 8u);
        let b = raw_word(at + 6u + i * 8u);
        plane0[block * 4u + i] = (a & 0x0f0f0f0fu) | ((b & 0x0f0f0f0fu) << 4u);
        plane0[block * 4u + 2u + i] = ((a >> 4u) & 0x0f0f0f0fu) | (b & 0xf0f0f0f0u);
    }
    atomicOr(&plane1[block / 2u], raw_half(at) << ((block & 1u) * 16u));
}
