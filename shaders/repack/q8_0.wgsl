// Blocks of 34 bytes (f16 scale, 32 signed bytes) to plane 0 (bytes) and plane 1 (scales). One invocation, one block.
// Two blocks share a word of plane 1 and may come from different uploads: plane 1 starts at zero and is or-ed.
struct Params { blocks_per_row: u32, rows: u32, first_row: u32, row_step: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> raw: array<u32>;              // (rows, blocks_per_row) blocks
@group(0) @binding(2) var<storage, read_write> plane0: array<u32>;
@group(0) @binding(3) var<storage, read_write> plane1: array<atomic<u32>>;

fn raw_half(at: u32) -> u32 {                                          // 16 bits at an even byte offset
    return (raw[at / 4u] >> ((at & 2u) * 8u)) & 0xffffu;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let source = id.y * grid.x * 64u + id.x;
    if (source >= params.rows * params.blocks_per_row) { return; }
    let row = params.first_row + source / params.blocks_per_row * params.row_step;
    let block = row * params.blocks_per_row + source % params.blocks_per_row;
    let at = source * 34u;
    for (var i = 0u; i < 8u; i++) {
        plane0[block * 8u + i] = raw_half(at + 2u + i * 4u) | (raw_half(at + 4u + i * 4u) << 16u);
    }
    atomicOr(&plane1[block / 2u], raw_half(at) << ((block & 1u) * 16u));
}
