// SWIGLU: y = silu(a) * b, else y = a + b; element by element. One invocation makes four elements.
override SWIGLU: bool = false;
override OUTPUTS: bool = false;                                        // the rows are the step's outputs

struct Params {
    cols: u32, a_offset: u32, a_stride: u32, b_offset: u32, b_stride: u32, y_offset: u32, y_stride: u32, max_rows: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> a: array<vec4<f32>>;          // (T, cols), rows a_stride apart
@group(1) @binding(3) var<storage, read> b: array<vec4<f32>>;          // (T, cols), rows b_stride apart
@group(1) @binding(4) var<storage, read_write> y: array<vec4<f32>>;    // (T, cols), rows y_stride apart

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    if (id.x >= params.cols / 4u || row >= state[params.max_rows + select(0u, 1u, OUTPUTS)]) { return; }
    let va = a[(params.a_offset + row * params.a_stride) / 4u + id.x];
    let vb = b[(params.b_offset + row * params.b_stride) / 4u + id.x];
    let at = (params.y_offset + row * params.y_stride) / 4u + id.x;
    y[at] = select(va + vb, va / (1.0 + exp(-va)) * vb, SWIGLU);
}
