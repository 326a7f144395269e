// y[t, s, c] = x[t, s, order[e, c]]: columns in another order, for matrices whose columns stand in it. e is 0, or the number of
// expert that the route gives slot s. One invocation moves one element.
override ROUTED: bool = false;
override OUTPUTS: bool = false;                                        // the rows are the step's outputs

struct Params {
    cols: u32, slots: u32, x_offset: u32, x_stride: u32, x_slot: u32, route_offset: u32, route_stride: u32,
    y_offset: u32, y_stride: u32, order_offset: u32, max_rows: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> x: array<f32>;                // (T, cols), or slots of x_slot; rows x_stride apart
@group(1) @binding(3) var<storage, read> route: array<f32>;            // (T, 2 * slots), rows route_stride apart
@group(1) @binding(4) var<storage, read> norms: array<f32>;            // order: (experts, cols) from order_offset
@group(1) @binding(5) var<storage, read_write> y: array<f32>;          // (T, slots * cols), rows y_stride apart

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    if (id.x >= params.cols * params.slots || row >= state[params.max_rows + select(0u, 1u, OUTPUTS)]) { return; }
    let slot = id.x / params.cols;
    var expert = 0u;
    if (ROUTED) { expert = u32(route[params.route_offset + row * params.route_stride + slot]); }
    let column = u32(norms[params.order_offset + expert * params.cols + id.x % params.cols]);
    y[params.y_offset + row * params.y_stride + id.x] = x[params.x_offset + row * params.x_stride + slot * params.x_slot + column];
}
