// y[t, r] = sum_c w[r, c] * x[t, c] for rows of rounded activations, each by itself; one team makes four outputs at a time.
@group(1) @binding(2) var<storage, read> x: array<vec4<u32>>;          // (T, cols / 4 + cols / 16), see rounded/common

@compute @workgroup_size(SIZE)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let t = workgroup.y;
    if (t >= rows_of_x()) { return; }
    let start = params.x_offset + t * params.x_stride;
    let last = params.rows - 1u;
    let step = grid.x * (SIZE / WG) * 4u;                              // outputs of all teams
    for (var r = team(lane, workgroup.x) * 4u; r < params.rows; r += step) {
        var sums = vec4(0.0);
        for (var block = member(lane); block < params.cols / 32u; block += WG) {
            let q = rounded(start, block);
            sums += vec4(
                product32(r, block, q),
                product32(min(r + 1u, last), block, q),
                product32(min(r + 2u, last), block, q),
                product32(min(r + 3u, last), block, q),
            );
        }
        sums = reduce_sum(sums, lane);
        if (member(lane) == 0u) { finish(t, r, sums); }
    }
}
