// What works element by element, by the number OP: 0 a + b, 1 glu(a, b), 2 a + bias, 3 factor * a,
// 4 factor * tanh(a / factor), 5 the sum of so many parts of a, 6 glu(a, 1). One invocation makes four elements.
override OP: u32 = 0u;
override PAIRS: bool = false;                                          // the even columns of a are a, the odd ones b
override OUTPUTS: bool = false;                                        // the rows are the step's outputs
override ONE_GATE: bool = false;                                       // rows of a have one column, for all of b

struct Params {
    cols: u32, a_offset: u32, a_stride: u32, b_offset: u32, b_stride: u32, y_offset: u32, y_stride: u32, max_rows: u32,
    bias_offset: u32, factor: f32, parts: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> a: array<vec4<f32>>;          // (T, cols or parts * cols), rows a_stride apart
@group(1) @binding(3) var<storage, read> b: array<vec4<f32>>;          // (T, cols), rows b_stride apart
@group(1) @binding(4) var<storage, read> norms: array<vec4<f32>>;      // bias: (cols) from bias_offset
@group(1) @binding(5) var<storage, read_write> y: array<vec4<f32>>;    // (T, cols), rows y_stride apart

fn glu4(gate: vec4<f32>, up: vec4<f32>) -> vec4<f32> {
    return vec4(glu(gate.x, up.x), glu(gate.y, up.y), glu(gate.z, up.z), glu(gate.w, up.w));
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    if (id.x >= (params.cols + 3u) / 4u || row >= state[params.max_rows + select(0u, 1u, OUTPUTS)]) { return; }
    let a_at = params.a_offset + row * params.a_stride;
    var va = a[a_at / 4u + select(id.x, 0u, ONE_GATE)];
    if (ONE_GATE) { va = vec4(va[a_at % 4u]); }
    var vb = b[(params.b_offset + row * params.b_stride) / 4u + id.x];
    if (PAIRS) {
        let at = a_at / 4u + id.x * 2u;
        va = vec4(a[at].xz, a[at + 1u].xz);
        vb = vec4(a[at].yw, a[at + 1u].yw);
    }
    var result = va;
    switch (OP) {
        case 1u: { result = glu4(va, vb); }
        case 2u: { result = va + norms[params.bias_offset / 4u + id.x]; }
        case 3u: { result = params.factor * va; }
        // tanh is clamped: some devices overflow inside it.
        case 4u: { result = params.factor * tanh(clamp(va / params.factor, vec4(-20.0), vec4(20.0))); }
        case 5u: {
            for (var part = 1u; part < params.parts; part++) {
                result += a[(params.a_offset + row * params.a_stride + part * params.cols) / 4u + id.x];
            }
        }
        case 6u: { result = glu4(va, vec4(1.0)); }
        default: { result = va + vb; }
    }
    y[(params.y_offset + row * params.y_stride) / 4u + id.x] = result;
}
