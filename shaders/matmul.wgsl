// y[t, r] = sum_c w[r, c] * x[t, c] for many rows of activations. A workgroup of 128 makes a tile of 32 rows of x by 64
// rows of w: both are staged in workgroup memory, 32 columns at a time, so a weight is decoded once for 32 rows of x.
@group(1) @binding(2) var<storage, read> x: array<vec4<f32>>;          // (T, cols), rows x_stride apart

fn x8(t: u32, t_count: u32, group: u32) -> Weights8 {
    if (t >= t_count || group >= params.cols / 8u) { return Weights8(vec4(0.0), vec4(0.0)); }
    let at = (params.x_offset + t * params.x_stride) / 4u + group * 2u;
    return columns8(Weights8(x[at], x[at + 1u]), group + 1u == params.cols / 8u);
}

fn w8(r: u32, group: u32) -> Weights8 {
    if (r >= params.rows || group >= params.cols / 8u) { return Weights8(vec4(0.0), vec4(0.0)); }
    return weights8(r, group);
}

@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let t_count = rows_of_x();
    let first_t = workgroup.y * TILE_X;
    let first_r = workgroup.x * TILE_W;
    let groups = params.cols / 8u;
    let lane_t = (lane / 16u) * 4u;                                    // 8 x 16 invocations, 4 x 4 results each
    let lane_r = (lane % 16u) * 4u;
    var acc = array<vec4<f32>, 4>();                                   // (t, r)
    for (var group0 = 0u; group0 < groups; group0 += TILE_C / 8u) {
        workgroupBarrier();
        // Eight columns of four rows at a time: the first 64 invocations those of w, the next 32 those of x.
        if (lane < TILE_W) {
            let quad = lane / 4u;
            let eight = lane % 4u;
            let r = first_r + quad * 4u;
            let a = w8(r, group0 + eight);
            let b = w8(r + 1u, group0 + eight);
            let c = w8(r + 2u, group0 + eight);
            let d = w8(r + 3u, group0 + eight);
            stage_w(quad, eight, a, b, c, d);
        } else if (lane < TILE_W + TILE_X) {
            let quad = (lane - TILE_W) / 4u;
            let eight = lane % 4u;
            let t = first_t + quad * 4u;
            let a = x8(t, t_count, group0 + eight);
            let b = x8(t + 1u, t_count, group0 + eight);
            let c = x8(t + 2u, t_count, group0 + eight);
            let d = x8(t + 3u, t_count, group0 + eight);
            stage_x(quad, eight, a, b, c, d);
        }
        workgroupBarrier();
        add_tile(&acc, lane_t, lane_r);
    }
    let r = first_r + lane_r;
    for (var i = 0u; i < 4u; i++) {
        let t = first_t + lane_t + i;
        if (t >= t_count || r >= params.rows) { break; }
        finish(t, r, acc[i]);
    }
}
