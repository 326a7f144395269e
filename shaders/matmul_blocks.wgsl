// y[t, r] = sum_c w[r, c] * x[t, c] for many rows of activations, as matmul, but each invocation makes four rows of x by four
// rows of w by itself: nothing is staged, nobody waits. For devices where waiting costs more than what is shared saves.
@group(1) @binding(2) var<storage, read> x: array<vec4<f32>>;          // (T, cols), rows x_stride apart
override SIZE: u32 = 16u;                                              // invocations of a workgroup, side by side in w

// What row t of x adds to its results with four rows of w.
fn products(t: u32, group: u32, w0: Weights8, w1: Weights8, w2: Weights8, w3: Weights8) -> vec4<f32> {
    let at = (params.x_offset + t * params.x_stride) / 4u + group * 2u;
    let v = columns8(Weights8(x[at], x[at + 1u]), (group + 1u) * 8u == params.cols);
    return vec4(
        dot(w0.lo, v.lo) + dot(w0.hi, v.hi),
        dot(w1.lo, v.lo) + dot(w1.hi, v.hi),
        dot(w2.lo, v.lo) + dot(w2.hi, v.hi),
        dot(w3.lo, v.lo) + dot(w3.hi, v.hi),
    );
}

@compute @workgroup_size(SIZE)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let t_count = rows_of_x();
    let t = workgroup.y * 4u;
    let r = (workgroup.x * SIZE + lane) * 4u;
    if (t >= t_count || r >= params.rows) { return; }
    // Rows that are not there are read as the last that is, and dropped.
    let last_t = t_count - 1u;
    let last_r = params.rows - 1u;
    var acc0 = vec4(0.0);
    var acc1 = vec4(0.0);
    var acc2 = vec4(0.0);
    var acc3 = vec4(0.0);
    for (var group = 0u; group < params.cols / 8u; group++) {
        let w0 = weights8(r, group);
        let w1 = weights8(min(r + 1u, last_r), group);
        let w2 = weights8(min(r + 2u, last_r), group);
        let w3 = weights8(min(r + 3u, last_r), group);
        acc0 += products(t, group, w0, w1, w2, w3);
        acc1 += products(min(t + 1u, last_t), group, w0, w1, w2, w3);
        acc2 += products(min(t + 2u, last_t), group, w0, w1, w2, w3);
        acc3 += products(min(t + 3u, last_t), group, w0, w1, w2, w3);
    }
    finish(t, r, acc0);
    if (t + 1u < t_count) { finish(t + 1u, r, acc1); }
    if (t + 2u < t_count) { finish(t + 2u, r, acc2); }
    if (t + 3u < t_count) { finish(t + 3u, r, acc3); }
}
