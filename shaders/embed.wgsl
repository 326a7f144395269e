// y[t, c] = table[token[t], c]. One invocation makes eight columns of one row.
struct Params { cols: u32, first_row: u32, rows: u32, max_rows: u32 }  // this shard holds the ids first_row .. + rows

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read_write> y: array<vec4<f32>>;    // (T, cols)

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let groups = params.cols / 8u;
    let row = id.y;
    let group = id.x;
    if (group >= groups || row >= state[params.max_rows]) { return; }
    let token = state[params.max_rows - 1u - row];
    if (token < params.first_row || token - params.first_row >= params.rows) { return; }
    let w = weights8(token - params.first_row, group);
    let at = (row * groups + group) * 2u;
    y[at] = w.lo;
    y[at + 1u] = w.hi;
}
