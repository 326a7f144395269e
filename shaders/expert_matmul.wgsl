// y[t, s, r] = f * (sum_c w[e, r, c] * x[t, s, c] + bias[e, r]) for many rows of activations, e = e(t, s) as in
// expert_matvec, which has the same parameters. A workgroup of 128 makes 64 rows of one expert for all that are routed to
// it: it looks them up, then takes 32 at a time, so that a weight is decoded once for all of them (as in matmul).
//
// WEIGHTED: f is the route's weight, otherwise 1. GLU: rows 2i and 2i + 1 are gate and up; y[t, s, i] = glu(gate, up).
override ROUTED: bool = false;
override WEIGHTED: bool = false;
override BIAS: bool = false;
override PAIRS: bool = false;                                          // biases of gate and up, whose rows alternate
override ADAPT: u32 = 0u;                                              // 1: f is multiplied by the factor of an adapter
override MAX_ROWS: u32 = 128u;                                         // most rows of a step

struct Params {
    rows: u32, cols: u32, slots: u32,                                  // of one expert; slots of a token
    first_row: u32, shard_rows: u32,                                   // what this shard holds of all experts' rows
    x_offset: u32, x_stride: u32, x_slot: u32,                         // x_slot: from one slot's x to the next, or 0
    y_offset: u32, y_stride: u32, route_offset: u32, route_stride: u32,
    norm_offset: u32, eps: f32, bias_offset: u32, up_bias_offset: u32, max_rows: u32, adapt_factor: f32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> x: array<vec4<f32>>;          // (T, cols or slots * cols), rows x_stride apart
@group(1) @binding(3) var<storage, read> norms: array<f32>;            // biases: (experts * rows)
@group(1) @binding(4) var<storage, read> route: array<f32>;            // (T, experts' numbers, weights), route_stride apart
@group(1) @binding(5) var<storage, read_write> y: array<f32>;          // (T, slots * rows, halved by GLU)

const LANES = 128u;
var<workgroup> routed: array<u32, MAX_ROWS>;                           // token * slots + slot; a token takes an expert once
var<workgroup> found: atomic<u32>;
var<workgroup> found_all: u32;

fn x8(place: u32, count: u32, group: u32) -> Weights8 {
    if (place >= count || group >= params.cols / 8u) { return Weights8(vec4(0.0), vec4(0.0)); }
    let token = routed[place] / params.slots;
    let slot = routed[place] % params.slots;
    let at = (params.x_offset + token * params.x_stride + slot * params.x_slot) / 4u + group * 2u;
    return Weights8(x[at], x[at + 1u]);
}

fn held(r: u32, row: u32) -> bool {                                    // row r of the expert, `row` of all
    return r < params.rows && row >= params.first_row && row < params.first_row + params.shard_rows;
}

fn w8(expert: u32, r: u32, group: u32) -> Weights8 {
    let row = expert * params.rows + r;
    if (!held(r, row) || group >= params.cols / 8u) { return Weights8(vec4(0.0), vec4(0.0)); }
    return weights8(row - params.first_row, group);
}

fn bias_of(row: u32) -> f32 {                                          // `row` of all experts' rows
    if (!BIAS) { return 0.0; }
    var at = params.bias_offset + row;
    if (PAIRS) { at = select(params.bias_offset, params.up_bias_offset, row % 2u == 1u) + row / 2u; }
    return norms[at];
}

@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let expert = workgroup.y;
    let first_r = workgroup.x * TILE_W;
    let first_of_all = expert * params.rows + first_r;
    if (first_of_all >= params.first_row + params.shard_rows || first_of_all + TILE_W <= params.first_row) { return; }
    for (var token = lane; token < state[params.max_rows]; token += LANES) {
        for (var slot = 0u; slot < params.slots; slot++) {
            var number = slot;
            if (ROUTED) { number = u32(route[params.route_offset + token * params.route_stride + slot]); }
            if (number == expert) {
                let place = atomicAdd(&found, 1u);
                if (place < MAX_ROWS) { routed[place] = token * params.slots + slot; }
            }
        }
    }
    workgroupBarrier();
    if (lane == 0u) { found_all = min(atomicLoad(&found), MAX_ROWS); }
    let count = workgroupUniformLoad(&found_all);

    let lane_t = (lane / 16u) * 4u;                                    // 8 x 16 invocations, 4 x 4 results each
    let lane_r = (lane % 16u) * 4u;
    let groups = params.cols / 8u;
    for (var first = 0u; first < count; first += TILE_X) {
        var acc = array<vec4<f32>, 4>();                               // (t, r)
        for (var group0 = 0u; group0 < groups; group0 += TILE_C / 8u) {
            workgroupBarrier();
            if (lane < TILE_W) {
                let quad = lane / 4u;
                let eight = lane % 4u;
                let r = first_r + quad * 4u;
                let a = w8(expert, r, group0 + eight);
                let b = w8(expert, r + 1u, group0 + eight);
                let c = w8(expert, r + 2u, group0 + eight);
                let d = w8(expert, r + 3u, group0 + eight);
                stage_w(quad, eight, a, b, c, d);
            } else if (lane < TILE_W + TILE_X) {
                let quad = (lane - TILE_W) / 4u;
                let eight = lane % 4u;
                let t = first + quad * 4u;
                let a = x8(t, count, group0 + eight);
                let b = x8(t + 1u, count, group0 + eight);
                let c = x8(t + 2u, count, group0 + eight);
                let d = x8(t + 3u, count, group0 + eight);
                stage_x(quad, eight, a, b, c, d);
            }
            workgroupBarrier();
            add_tile(&acc, lane_t, lane_r);
        }
        for (var i = 0u; i < 4u; i++) {
            if (first + lane_t + i >= count) { break; }
            let token = routed[first + lane_t + i] / params.slots;
            let slot = routed[first + lane_t + i] % params.slots;
            var factor = 1.0;
            if (WEIGHTED) { factor = route[params.route_offset + token * params.route_stride + params.slots + slot]; }
            if (ADAPT != 0u) { factor *= params.adapt_factor; }
            let at = params.y_offset + token * params.y_stride;
            for (var j = 0u; j < 4u; j++) {
                let r = first_r + lane_r + j;
                let row = expert * params.rows + r;
                if (!held(r, row)) { continue; }
                let result = factor * (acc[i][j] + bias_of(row));
                if (GLU == 0u) {
                    y[at + slot * params.rows + r] = result;
                } else if (j % 2u == 0u) {
                    // Pairs lie in one shard: shards begin at even rows.
                    let up = factor * (acc[i][j + 1u] + bias_of(row + 1u));
                    y[at + (slot * params.rows + r) / 2u] = glu(result, up);
                }
            }
        }
    }
}
