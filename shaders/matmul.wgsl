// y[t, r] = sum_c w[r, c] * x[t, c] for many rows of activations. A workgroup of 128 makes a tile of 32 rows of x by 64
// rows of w: both are staged in workgroup memory, 32 columns at a time, so a weight is decoded once for 32 rows of x.
//
// RESIDUAL: y += ... GLU: rows 2i and 2i + 1 of w are gate and up; y[t, i] = activation(gate) * up. BIAS: y = ... + bias.
override RESIDUAL: bool = false;
override GLU: u32 = 0u;                                                // 1: silu, 2: gelu (tanh)
override BIAS: bool = false;
override OUTPUTS: bool = false;                                        // the rows of x are the step's outputs

struct Params {
    rows: u32, cols: u32, x_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32, max_rows: u32, bias_offset: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> x: array<vec4<f32>>;          // (T, cols), rows x_stride apart
@group(1) @binding(3) var<storage, read> norms: array<f32>;            // bias: (rows) from bias_offset
@group(1) @binding(4) var<storage, read_write> y: array<f32>;          // (T, rows or rows / 2), rows y_stride apart

const TILE_X = 32u;
const TILE_W = 64u;
const TILE_C = 32u;
const PITCH_X = TILE_X + 1u;                                           // one more, so that a column is not one memory bank
const PITCH_W = TILE_W + 1u;

var<workgroup> tile_x: array<f32, TILE_C * PITCH_X>;                   // (column, row of x)
var<workgroup> tile_w: array<f32, TILE_C * PITCH_W>;                   // (column, row of w)

fn activation(v: f32) -> f32 {
    if (GLU == 2u) { return 0.5 * v * (1.0 + tanh(clamp(0.7978845608 * (v + 0.044715 * v * v * v), -20.0, 20.0))); }
    return v / (1.0 + exp(-v));
}

@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let t_count = state[params.max_rows + select(0u, 1u, OUTPUTS)];
    let first_t = workgroup.y * TILE_X;
    let first_r = workgroup.x * TILE_W;
    let groups = params.cols / 8u;
    let lane_t = (lane / 16u) * 4u;                                    // 8 x 16 invocations, 4 x 4 results each
    let lane_r = (lane % 16u) * 4u;
    var acc = array<vec4<f32>, 4>();                                   // (t, r)
    for (var group0 = 0u; group0 < groups; group0 += TILE_C / 8u) {
        workgroupBarrier();
        for (var i = lane; i < TILE_X * 4u; i += 128u) {               // 8 columns of one row of x at a time
            let t = first_t + i / 4u;
            let group = group0 + i % 4u;
            var lo = vec4(0.0);
            var hi = vec4(0.0);
            if (t < t_count && group < groups) {
                let at = (params.x_offset + t * params.x_stride) / 4u + group * 2u;
                lo = x[at];
                hi = x[at + 1u];
            }
            for (var c = 0u; c < 4u; c++) {
                tile_x[((i % 4u) * 8u + c) * PITCH_X + i / 4u] = lo[c];
                tile_x[((i % 4u) * 8u + 4u + c) * PITCH_X + i / 4u] = hi[c];
            }
        }
        for (var i = lane; i < TILE_W * 4u; i += 128u) {               // 8 weights of one row at a time
            let r = first_r + i / 4u;
            let group = group0 + i % 4u;
            var w = Weights8(vec4(0.0), vec4(0.0));
            if (r < params.rows && group < groups) { w = weights8(r, group); }
            for (var c = 0u; c < 4u; c++) {
                tile_w[((i % 4u) * 8u + c) * PITCH_W + i / 4u] = w.lo[c];
                tile_w[((i % 4u) * 8u + 4u + c) * PITCH_W + i / 4u] = w.hi[c];
            }
        }
        workgroupBarrier();
        for (var c = 0u; c < TILE_C; c++) {
            let at_w = c * PITCH_W + lane_r;
            let at_x = c * PITCH_X + lane_t;
            let w = vec4(tile_w[at_w], tile_w[at_w + 1u], tile_w[at_w + 2u], tile_w[at_w + 3u]);
            acc[0] += tile_x[at_x] * w;
            acc[1] += tile_x[at_x + 1u] * w;
            acc[2] += tile_x[at_x + 2u] * w;
            acc[3] += tile_x[at_x + 3u] * w;
        }
    }
    for (var i = 0u; i < 4u; i++) {
        let t = first_t + lane_t + i;
        if (t >= t_count) { break; }
        let at = params.y_offset + t * params.y_stride;
        let r = first_r + lane_r;
        if (GLU != 0u) {
            if (r < params.rows) { y[at + r / 2u] = activation(acc[i].x) * acc[i].y; }
            if (r + 2u < params.rows) { y[at + r / 2u + 1u] = activation(acc[i].z) * acc[i].w; }
        } else {
            for (var j = 0u; j < 4u; j++) {
                if (r + j >= params.rows) { break; }
                var result = acc[i][j];
                if (BIAS) { result += norms[params.bias_offset + r + j]; }
                if (RESIDUAL) { result += y[at + r + j]; }
                y[at + r + j] = result;
            }
        }
    }
}
