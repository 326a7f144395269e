// y[r] = sum_c w[r, c] * x[c] for one row of activations; one team makes four outputs.
//
// NORM: x is normalised on the way: the weights see x * g, and the result is scaled by 1 / sqrt(mean(x^2) + eps), since
// the norm's factor does not depend on c. RESIDUAL: y[r] += ... GLU: rows 2i and 2i + 1 are gate and up;
// y[i] = glu(gate, up). BIAS: y[r] = ... + bias[r].
override NORM: bool = false;
override RESIDUAL: bool = false;
override BIAS: bool = false;
override ADAPT: u32 = 0u;                                              // the product times 1: factor, 2: 1 + factor * gain[r]

struct Params {
    rows: u32, cols: u32, x_offset: u32, y_offset: u32, norm_offset: u32, eps: f32, bias_offset: u32,
    gain_offset: u32, factor: f32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> x: array<vec4<f32>>;          // (cols) from x_offset
@group(1) @binding(2) var<storage, read> norms: array<vec4<f32>>;      // g: (cols) from norm_offset, bias, gain: (rows)
@group(1) @binding(3) var<storage, read_write> y: array<f32>;          // (rows) from y_offset

@compute @workgroup_size(SIZE)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let row0 = team(lane, workgroup.y * grid.x + workgroup.x) * 4u;
    if (row0 >= params.rows) { return; }
    let last = params.rows - 1u;
    let row1 = min(row0 + 1u, last);
    let row2 = min(row0 + 2u, last);
    let row3 = min(row0 + 3u, last);
    let groups = params.cols / 8u;
    var sums = vec4(0.0);
    var squares = 0.0;
    for (var group = member(lane); group < groups; group += WG) {
        let at = params.x_offset / 4u + group * 2u;
        let x8 = columns8(Weights8(x[at], x[at + 1u]), group + 1u == groups);
        var x0 = x8.lo;
        var x1 = x8.hi;
        if (NORM) {
            squares += dot(x0, x0) + dot(x1, x1);
            x0 *= norms[params.norm_offset / 4u + group * 2u];
            x1 *= norms[params.norm_offset / 4u + group * 2u + 1u];
        }
        let w0 = weights8(row0, group);
        let w1 = weights8(row1, group);
        let w2 = weights8(row2, group);
        let w3 = weights8(row3, group);
        sums += vec4(
            dot(w0.lo, x0) + dot(w0.hi, x1),
            dot(w1.lo, x0) + dot(w1.hi, x1),
            dot(w2.lo, x0) + dot(w2.hi, x1),
            dot(w3.lo, x0) + dot(w3.hi, x1),
        );
    }
    sums = reduce_sum(sums, lane);
    if (NORM) {
        squares = reduce_sum(vec4(squares, 0.0, 0.0, 0.0), lane).x;
        let cols = params.cols - select(0u, 8u - TAIL, TAIL != 0u);
        sums *= 1.0 / sqrt(squares / f32(cols) + params.eps);
    }
    if (GLU != 0u) {
        for (var i = member(lane); i < 2u && row0 + i * 2u < params.rows; i += WG) {
            y[params.y_offset + row0 / 2u + i] = glu(sums[i * 2u], sums[i * 2u + 1u]);
        }
        return;
    }
    for (var i = member(lane); i < 4u && row0 + i < params.rows; i += WG) {
        let at = params.y_offset + row0 + i;
        var result = sums[i];
        if (ADAPT == 1u) { result *= params.factor; }
        if (ADAPT == 2u) {
            let g = params.gain_offset + row0 + i;
            result *= 1.0 + params.factor * norms[g / 4u][g % 4u];
        }
        if (BIAS) {
            let b = params.bias_offset + row0 + i;
            result += norms[b / 4u][b % 4u];
        }
        if (RESIDUAL) { result += y[at]; }
        y[at] = result;
    }
}
