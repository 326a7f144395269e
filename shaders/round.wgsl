// Rounds rows of activations to signed bytes, 32 with one scale (`rounded/common.wgsl` tells how they lie), for products by
// integers. NORM: x is normalised first, as in rms_norm. One workgroup a row.
override NORM: bool = false;
override OUTPUTS: bool = false;                                        // the rows of x are the step's outputs

struct Params {
    cols: u32, x_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32, norm_offset: u32, eps: f32, max_rows: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> x: array<vec4<f32>>;          // (T, cols) from x_offset, rows x_stride apart
@group(1) @binding(3) var<storage, read> norms: array<vec4<f32>>;      // g: (cols) from norm_offset
@group(1) @binding(4) var<storage, read_write> y: array<u32>;          // (T, cols / 4 + cols / 16)

@compute @workgroup_size(WG)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let row = workgroup.y;
    if (row >= state[params.max_rows + select(0u, 1u, OUTPUTS)]) { return; }
    let start = (params.x_offset + row * params.x_stride) / 4u;
    var scale = 1.0;
    if (NORM) {
        var squares = 0.0;
        for (var i = lane.index; i < params.cols / 4u; i += WG) { squares += dot(x[start + i], x[start + i]); }
        squares = reduce_sum(vec4(squares, 0.0, 0.0, 0.0), lane).x;
        scale = 1.0 / sqrt(squares / f32(params.cols) + params.eps);
    }
    let to = params.y_offset + row * params.y_stride;
    for (var block = lane.index; block < params.cols / 32u; block += WG) {
        var values = array<vec4<f32>, 8>();
        var largest = vec4(0.0);
        for (var i = 0u; i < 8u; i++) {
            var v = x[start + block * 8u + i] * scale;
            if (NORM) { v *= norms[params.norm_offset / 4u + block * 8u + i]; }
            values[i] = v;
            largest = max(largest, abs(v));
        }
        let d = max(max(largest.x, largest.y), max(largest.z, largest.w)) / 127.0;
        let id = select(1.0 / d, 0.0, d == 0.0);
        var sum = vec4(0);
        for (var i = 0u; i < 8u; i++) {
            let q = vec4<i32>(round(values[i] * id));
            sum += q;
            y[to + block * 8u + i] = pack4xI8(q);
        }
        let at = to + params.cols / 4u + block * 2u;
        y[at] = bitcast<u32>(d);
        y[at + 1u] = bitcast<u32>(d * f32(sum.x + sum.y + sum.z + sum.w));
    }
}
