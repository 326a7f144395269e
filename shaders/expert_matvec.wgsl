// y[t, s, r] = f * (sum_c w[e, r, c] * x[t, s, c] + bias[e, r]) by the matrix of the expert e = e(t, s) that slot s of
// token t is routed to, or e = s, for few rows of activations. One team makes four rows of one slot of one token. A shard of the matrices holds
// some of their rows; what the others hold is left to their launches.
//
// WEIGHTED: f is the route's weight, otherwise 1. NORM: x is normalised on the way (see matvec). GLU: rows 2i and 2i + 1
// are gate and up; y[t, s, i] = glu(gate, up). SUM: y[t, r] = sum_s ..., one team makes four rows of one token.
// RESIDUAL: y += ...
override ROUTED: bool = false;
override WEIGHTED: bool = false;
override NORM: bool = false;
override SUM: bool = false;
override RESIDUAL: bool = false;
override BIAS: bool = false;
override PAIRS: bool = false;                                          // biases of gate and up, whose rows alternate
override ADAPT: u32 = 0u;                                              // 1: f is multiplied by the factor of an adapter

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
@group(1) @binding(3) var<storage, read> norms: array<vec4<f32>>;      // g: (cols) from norm_offset, biases: (experts * rows)
@group(1) @binding(4) var<storage, read> route: array<f32>;            // (T, experts' numbers, weights), route_stride apart
@group(1) @binding(5) var<storage, read_write> y: array<f32>;          // (T, slots * rows, halved by GLU, or rows)

fn expert_of(token: u32, slot: u32) -> u32 {
    if (!ROUTED) { return slot; }
    return u32(route[params.route_offset + token * params.route_stride + slot]);
}

fn bias_of(row: u32) -> f32 {                                          // `row` of all experts' rows
    var at = params.bias_offset + row;
    if (PAIRS) { at = select(params.bias_offset, params.up_bias_offset, row % 2u == 1u) + row / 2u; }
    return norms[at / 4u][at % 4u];
}

@compute @workgroup_size(SIZE)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let token = select(workgroup.y / params.slots, workgroup.y, SUM);
    if (token >= state[params.max_rows]) { return; }
    let first_slot = select(workgroup.y % params.slots, 0u, SUM);
    let end_slot = select(first_slot + 1u, params.slots, SUM);
    let row0 = team(lane, workgroup.x) * 4u;
    let four = vec4(0u, 1u, 2u, 3u);
    let groups = params.cols / 8u;
    var sums = vec4(0.0);
    var biases = vec4(0.0);
    var squares = 0.0;
    var here = vec4(false);                                            // rows that this shard has, for any slot
    for (var slot = first_slot; slot < end_slot; slot++) {
        let base = expert_of(token, slot) * params.rows + row0;
        let rows = vec4(base) + four;
        let held = (row0 + four < vec4(params.rows)) & (rows >= vec4(params.first_row))
            & (rows < vec4(params.first_row + params.shard_rows));
        if (!any(held)) { continue; }
        here |= held;
        var factor = 1.0;
        if (WEIGHTED) { factor = route[params.route_offset + token * params.route_stride + params.slots + slot]; }
        if (ADAPT != 0u) { factor *= params.adapt_factor; }
        // Rows that are not here are read as some that is, and dropped.
        let inside = clamp(rows, vec4(params.first_row), vec4(params.first_row + params.shard_rows - 1u)) - params.first_row;
        let start = (params.x_offset + token * params.x_stride + slot * params.x_slot) / 4u;
        var partial = vec4(0.0);
        for (var group = member(lane); group < groups; group += WG) {
            var x0 = x[start + group * 2u];
            var x1 = x[start + group * 2u + 1u];
            if (NORM) {
                squares += dot(x0, x0) + dot(x1, x1);
                x0 *= norms[params.norm_offset / 4u + group * 2u];
                x1 *= norms[params.norm_offset / 4u + group * 2u + 1u];
            }
            let w0 = weights8(inside.x, group);
            let w1 = weights8(inside.y, group);
            let w2 = weights8(inside.z, group);
            let w3 = weights8(inside.w, group);
            partial += vec4(
                dot(w0.lo, x0) + dot(w0.hi, x1),
                dot(w1.lo, x0) + dot(w1.hi, x1),
                dot(w2.lo, x0) + dot(w2.hi, x1),
                dot(w3.lo, x0) + dot(w3.hi, x1),
            );
        }
        sums += select(vec4(0.0), factor * partial, held);
        if (BIAS) {
            let bias = vec4(bias_of(rows.x), bias_of(rows.y), bias_of(rows.z), bias_of(rows.w));
            biases += select(vec4(0.0), factor * bias, held);
        }
    }
    // With SUM the first shard writes every row, since what it lacks is added to it; otherwise each row has one writer.
    if (!any(here) && (!SUM || RESIDUAL)) { return; }
    sums = reduce_sum(sums, lane);
    if (NORM) {
        squares = reduce_sum(vec4(squares, 0.0, 0.0, 0.0), lane).x;
        sums *= 1.0 / sqrt(squares / f32(params.cols) + params.eps);
    }
    sums += biases;
    let at = params.y_offset + token * params.y_stride;
    for (var i = member(lane); i < 4u && row0 + i < params.rows; i += WG) {
        if (GLU != 0u) {
            if (i < 2u && here[i * 2u]) {
                y[at + (first_slot * params.rows + row0) / 2u + i] = glu(sums[i * 2u], sums[i * 2u + 1u]);
            }
        } else if (here[i] || SUM) {
            let to = at + first_slot * params.rows + row0 + i;
            y[to] = select(0.0, y[to], RESIDUAL) + sums[i];
        }
    }
}
