// y = softmax(cap(scale * q K^T)) V, see seen.wgsl. One workgroup a query head of one row.
// Keys come in tiles of WG: an invocation scores one key, then all of them add the tile's values, each invocation some
// elements of the head. The softmax is kept online (Milakov & Gimelshein, arXiv 1805.02867).
var<workgroup> weights: array<f32, WG>;
var<workgroup> values_at: array<u32, WG>;                              // where a position's value starts

@compute @workgroup_size(WG)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let row = workgroup.y;
    if (row >= state[params.max_rows]) { return; }
    let query_head = workgroup.x;
    let n4 = params.head_dim / 4u;
    let values4 = params.value_dim / 4u;
    let kv_head = query_head / (params.heads / params.kv_heads);
    let seen = seen_by(row);
    let start = (row * params.stride + params.q_offset + query_head * params.head_dim) / 4u;
    for (var i = lane.index; i < n4; i += WG) { query[i] = qkv[start + i] * seen.scale; }
    workgroupBarrier();

    var largest = -3.0e38;
    var total = 0.0;
    if (params.sinks_offset != NO_WEIGHT) {
        largest = vectors[params.sinks_offset + query_head];
        total = 1.0;
    }
    // Four elements an invocation and round; WG is a quarter of MAX_HEAD4.
    var acc = array<vec4<f32>, 4>();
    for (var first = seen.begin; first < seen.end; first += WG) {
        let position = first + lane.index;
        var score = -3.0e38;
        if (position < seen.end) {
            let place = place_of(position, seen.pages, kv_head);
            values_at[lane.index] = place.value;
            var sum = vec4(0.0);
            for (var i = 0u; i < n4; i++) { sum += query[i] * kv_load4(place.key, params.head_dim, i * 4u); }
            score = capped(sum.x + sum.y + sum.z + sum.w);
        }
        let now = max(largest, reduce_max(score, lane));
        let shrink = exp(largest - now);
        let weight = select(0.0, exp(score - now), position < seen.end);
        weights[lane.index] = weight;
        total = total * shrink + reduce_sum(vec4(weight, 0.0, 0.0, 0.0), lane).x;
        largest = now;
        let count = min(WG, seen.end - first);
        var round = 0u;
        for (var i = lane.index; i < values4; i += WG) {
            var sum = acc[round] * shrink;
            for (var k = 0u; k < count; k++) {
                sum += weights[k] * kv_load4(values_at[k], value_head(), i * 4u);
            }
            acc[round] = sum;
            round += 1u;
        }
        workgroupBarrier();
    }
    let to = (params.y_offset + row * params.y_stride + query_head * params.value_dim) / 4u;
    var round = 0u;
    for (var i = lane.index; i < values4; i += WG) {
        y[to + i] = acc[round] / total;
        round += 1u;
    }
}
