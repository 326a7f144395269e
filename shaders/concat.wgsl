// y[t, g, offset + c] = x[t, g, c]: one of the values that stand side by side in every group. One invocation copies one
// element.
struct Params {
    groups: u32, cols: u32, group_cols: u32, x_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32, max_rows: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> x: array<f32>;                // (T, groups * cols), rows x_stride apart
@group(1) @binding(3) var<storage, read_write> y: array<f32>;          // (T, groups * group_cols), rows y_stride apart

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.groups * params.cols || id.y >= state[params.max_rows]) { return; }
    let at = id.x / params.cols * params.group_cols + id.x % params.cols;
    y[params.y_offset + id.y * params.y_stride + at] = x[params.x_offset + id.y * params.x_stride + id.x];
}
