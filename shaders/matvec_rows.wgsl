// y[t, r] = sum_c w[r, c] * x[t, c] for a few rows of activations, each with its additions in the order of matvec, so that
// a row has the same result as alone. One workgroup makes four outputs of every row; a weight is decoded once for all.
//
// NORM, RESIDUAL, GLU, BIAS: see matvec.
override NORM: bool = false;
override RESIDUAL: bool = false;
override BIAS: bool = false;

struct Params {
    rows: u32, cols: u32, x_offset: u32, y_offset: u32, norm_offset: u32, eps: f32, bias_offset: u32,
    x_stride: u32, y_stride: u32, max_rows: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> x: array<vec4<f32>>;          // (T, cols) from x_offset, rows x_stride apart
@group(1) @binding(3) var<storage, read> norms: array<vec4<f32>>;      // g: (cols) from norm_offset, bias: (rows)
@group(1) @binding(4) var<storage, read_write> y: array<f32>;          // (T, rows) from y_offset, rows y_stride apart

const MOST = 8u;                                                       // rows of a batch

@compute @workgroup_size(WG)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let row0 = (workgroup.y * grid.x + workgroup.x) * 4u;
    if (row0 >= params.rows) { return; }
    let tokens = min(state[params.max_rows], MOST);
    let last = params.rows - 1u;
    let row1 = min(row0 + 1u, last);
    let row2 = min(row0 + 2u, last);
    let row3 = min(row0 + 3u, last);
    let groups = params.cols / 8u;
    var sums: array<vec4<f32>, MOST>;
    var squares: array<vec4<f32>, MOST / 4u>;                          // four rows to a vector
    for (var group = lane.index; group < groups; group += WG) {
        let w0 = weights8(row0, group);
        let w1 = weights8(row1, group);
        let w2 = weights8(row2, group);
        let w3 = weights8(row3, group);
        var g0 = vec4(1.0);
        var g1 = vec4(1.0);
        if (NORM) {
            g0 = norms[params.norm_offset / 4u + group * 2u];
            g1 = norms[params.norm_offset / 4u + group * 2u + 1u];
        }
        for (var t = 0u; t < MOST; t++) {
            if (t >= tokens) { break; }
            let at = (params.x_offset + t * params.x_stride) / 4u + group * 2u;
            let x8 = columns8(Weights8(x[at], x[at + 1u]), group + 1u == groups);
            var x0 = x8.lo;
            var x1 = x8.hi;
            if (NORM) {
                squares[t / 4u][t % 4u] += dot(x0, x0) + dot(x1, x1);
                x0 *= g0;
                x1 *= g1;
            }
            sums[t] += vec4(
                dot(w0.lo, x0) + dot(w0.hi, x1),
                dot(w1.lo, x0) + dot(w1.hi, x1),
                dot(w2.lo, x0) + dot(w2.hi, x1),
                dot(w3.lo, x0) + dot(w3.hi, x1),
            );
        }
    }
    if (NORM) {
        for (var four = 0u; four < MOST / 4u; four++) {
            if (four * 4u >= tokens) { break; }
            squares[four] = reduce_sum(squares[four], lane);
        }
    }
    for (var t = 0u; t < MOST; t++) {
        if (t >= tokens) { break; }
        var found = reduce_sum(sums[t], lane);
        if (NORM) {
            let cols = params.cols - select(0u, 8u - TAIL, TAIL != 0u);
            found *= 1.0 / sqrt(squares[t / 4u][t % 4u] / f32(cols) + params.eps);
        }
        let y_row = params.y_offset + t * params.y_stride;
        if (GLU != 0u) {
            if (lane.index < 2u && row0 + lane.index * 2u < params.rows) {
                let i = lane.index * 2u;
                y[y_row + row0 / 2u + lane.index] = glu(found[i], found[i + 1u]);
            }
        } else if (lane.index < 4u && row0 + lane.index < params.rows) {
            let at = y_row + row0 + lane.index;
            var result = found[lane.index];
            if (BIAS) {
                let b = params.bias_offset + row0 + lane.index;
                result += norms[b / 4u][b % 4u];
            }
            if (RESIDUAL) { result += y[at]; }
            y[at] = result;
        }
    }
}
