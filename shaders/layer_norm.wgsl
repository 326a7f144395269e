// y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * g + b, row by row. One workgroup makes one row.
override OUTPUTS: bool = false;                                        // the rows of x are the step's outputs
override BIAS: bool = false;                                           // b is there

struct Params {
    cols: u32, x_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32, norm_offset: u32, bias_offset: u32, eps: f32,
    max_rows: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> x: array<vec4<f32>>;          // (T, cols), rows x_stride apart
@group(1) @binding(3) var<storage, read> norms: array<vec4<f32>>;      // g: (cols) from norm_offset, b: (cols) from bias_offset
@group(1) @binding(4) var<storage, read_write> y: array<vec4<f32>>;    // (T, cols), rows y_stride apart

// Elements 4 i .. 4 i + 4 of a row from `start`; zeros behind its last column.
fn quad(start: u32, i: u32, less: f32) -> vec4<f32> {
    return select(vec4(0.0), x[start + i] - less, vec4(i * 4u) + vec4(0u, 1u, 2u, 3u) < vec4(params.cols));
}

@compute @workgroup_size(WG)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let row = workgroup.y;
    if (row >= state[params.max_rows + select(0u, 1u, OUTPUTS)]) { return; }
    let n4 = (params.cols + 3u) / 4u;
    let start = (params.x_offset + row * params.x_stride) / 4u;
    let to = (params.y_offset + row * params.y_stride) / 4u;
    var sum = vec4(0.0);
    for (var i = lane.index; i < n4; i += WG) { sum += quad(start, i, 0.0); }
    sum = reduce_sum(sum, lane);
    let mean = (sum.x + sum.y + sum.z + sum.w) / f32(params.cols);
    var squares = 0.0;
    for (var i = lane.index; i < n4; i += WG) {
        let apart = quad(start, i, mean);
        squares += dot(apart, apart);
    }
    squares = reduce_sum(vec4(squares, 0.0, 0.0, 0.0), lane).x;
    let scale = 1.0 / sqrt(squares / f32(params.cols) + params.eps);
    for (var i = lane.index; i < n4; i += WG) {
        var value = quad(start, i, mean) * scale * norms[params.norm_offset / 4u + i];
        if (BIAS) { value += norms[params.bias_offset / 4u + i]; }
        y[to + i] = value;
    }
}
