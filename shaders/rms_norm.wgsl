// y = x / sqrt(mean(x^2) + eps) * g, row by row; a row may be cut into parts that are normalised on their own. The first
// `cols` elements of a part are normalised, the rest is copied. One workgroup makes one part of one row.
override OUTPUTS: bool = false;                                        // the rows of x are the step's outputs

struct Params {
    cols: u32, part: u32, x_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32, norm_offset: u32, eps: f32,
    max_rows: u32,
}

const NO_WEIGHT = 0xffffffffu;

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> x: array<vec4<f32>>;          // (T, groups * part), rows x_stride apart
@group(1) @binding(3) var<storage, read> norms: array<vec4<f32>>;      // g: (cols) from norm_offset
@group(1) @binding(4) var<storage, read_write> y: array<vec4<f32>>;    // (T, groups * part), rows y_stride apart

@compute @workgroup_size(WG)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let row = workgroup.y;
    if (row >= state[params.max_rows + select(0u, 1u, OUTPUTS)]) { return; }
    let part = workgroup.x * params.part;
    let start = (params.x_offset + row * params.x_stride + part) / 4u;
    let to = (params.y_offset + row * params.y_stride + part) / 4u;
    let quads = (params.cols + 3u) / 4u;
    var squares = 0.0;
    for (var i = lane.index; i < quads; i += WG) {
        // What lies behind the last column is another value's.
        let v = select(vec4(0.0), x[start + i], vec4(i * 4u) + vec4(0u, 1u, 2u, 3u) < vec4(params.cols));
        squares += dot(v, v);
    }
    squares = reduce_sum(vec4(squares, 0.0, 0.0, 0.0), lane).x;
    let scale = 1.0 / sqrt(squares / f32(params.cols) + params.eps);
    let weighted = params.norm_offset != NO_WEIGHT;
    for (var i = lane.index; i < (params.part + 3u) / 4u; i += WG) {
        let value = x[start + i];
        var normed = value * scale;
        if (weighted) { normed *= norms[params.norm_offset / 4u + i]; }
        y[to + i] = select(value, normed, vec4(i * 4u) + vec4(0u, 1u, 2u, 3u) < vec4(params.cols));
    }
}
