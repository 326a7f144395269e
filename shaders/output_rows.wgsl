// y[i] = x[outputs[i]]: the rows whose logits were asked for. One invocation copies four columns.
struct Params { quads: u32, x_offset: u32, x_stride: u32, max_rows: u32 }

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> x: array<vec4<f32>>;          // (T, 4 * quads), rows x_stride apart
@group(1) @binding(3) var<storage, read_write> y: array<vec4<f32>>;    // (outputs, 4 * quads)

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let m = params.max_rows;
    if (id.x >= params.quads || id.y >= state[m + 1u]) { return; }
    let row = state[m + 8u + 2u * m + id.y];
    y[id.y * params.quads + id.x] = x[(params.x_offset + row * params.x_stride) / 4u + id.x];
}
