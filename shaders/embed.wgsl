// y[t, c] = table[by(t), c], by the number BY: 0 token, 1 position + offset, 2 segment. One invocation makes eight columns
// of one row.
override BY: u32 = 0u;

struct Params {                                                        // this shard holds the rows first_row .. + rows
    cols: u32, first_row: u32, rows: u32, max_rows: u32, offset: u32, y_offset: u32, y_stride: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read_write> y: array<vec4<f32>>;    // (T, cols) from y_offset, rows y_stride apart

fn index(row: u32) -> u32 {
    let m = params.max_rows;
    switch (BY) {
        case 1u: { return state[m + 8u + row] + params.offset; }
        case 2u: { return state[m + 8u + 3u * m + row]; }
        default: { return state[m - 1u - row]; }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let groups = params.cols / 8u;
    let row = id.y;
    let group = id.x;
    if (group >= groups || row >= state[params.max_rows]) { return; }
    let wanted = index(row);
    if (wanted < params.first_row || wanted - params.first_row >= params.rows) { return; }
    let w = weights8(wanted - params.first_row, group);
    let at = (params.y_offset + row * params.y_stride) / 4u + group * 2u;
    y[at] = w.lo;
    y[at + 1u] = w.hi;
}
