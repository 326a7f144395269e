// y = softmax(cap(scale * q K^T)) V, see seen.wgsl. One workgroup makes SHARE query heads of one row, which read the same keys
// and values, each loaded once for all of them. For devices where waiting costs more than what a wide device is filled with.
// Keys come in tiles of TILE: an invocation scores KEYS of them, then all of them add the tile's values, each invocation some
// elements of the heads. The softmax is kept online (Milakov & Gimelshein, arXiv 1805.02867).
override SHARE: u32 = 1u;                                              // query heads of a workgroup, at most four, of one key head
override KEYS: u32 = 1u;                                               // keys of a tile that an invocation scores
override ROUNDS: u32 = 4u;                                             // WG times as many vectors are a value, at most four
override TILE: u32 = WG * KEYS;
override SCORES: u32 = TILE * SHARE;

var<workgroup> weights: array<f32, SCORES>;                            // scores, then weights, of each head
var<workgroup> values_at: array<u32, TILE>;                            // where a position's value starts

@compute @workgroup_size(WG)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let row = workgroup.y;
    if (row >= state[params.max_rows]) { return; }
    let query_head = workgroup.x * SHARE;                              // the first
    let n4 = params.head_dim / 4u;
    let values4 = params.value_dim / 4u;
    let kv_head = query_head / (params.heads / params.kv_heads);
    let seen = seen_by(row);
    let start = (row * params.stride + params.q_offset + query_head * params.head_dim) / 4u;
    for (var i = lane.index; i < n4 * SHARE; i += WG) { query[i] = qkv[start + i] * seen.scale; }
    workgroupBarrier();

    // A component a head.
    var largest = vec4(-3.0e38);
    var total = vec4(0.0);
    if (params.sinks_offset != NO_WEIGHT) {
        for (var g = 0u; g < SHARE; g++) { largest[g] = vectors[params.sinks_offset + query_head + g]; }
        total = vec4(1.0);
    }
    var acc = array<vec4<f32>, 16>();                                  // (rounds, heads)
    for (var first = seen.begin; first < seen.end; first += TILE) {
        let count = min(TILE, seen.end - first);
        for (var slot = lane.index; slot < TILE; slot += WG) {
            if (slot >= count) { break; }
            let place = place_of(first + slot, seen.pages, kv_head);
            values_at[slot] = place.value;
            var sums = array<vec4<f32>, 4>();
            for (var i = 0u; i < n4; i++) {
                let key = kv_load4(place.key, params.head_dim, i * 4u);
                for (var g = 0u; g < SHARE; g++) { sums[g] += query[g * n4 + i] * key; }
            }
            for (var g = 0u; g < SHARE; g++) {
                let sum = sums[g];
                weights[g * TILE + slot] = capped(sum.x + sum.y + sum.z + sum.w);
            }
        }
        // Each invocation looks at its own scores before all meet.
        var now = largest;
        for (var g = 0u; g < SHARE; g++) {
            var most = -3.0e38;
            for (var slot = lane.index; slot < count; slot += WG) { most = max(most, weights[g * TILE + slot]); }
            now[g] = max(largest[g], reduce_max(most, lane));
        }
        var added = vec4(0.0);
        for (var g = 0u; g < SHARE; g++) {
            for (var slot = lane.index; slot < count; slot += WG) {
                let weight = exp(weights[g * TILE + slot] - now[g]);
                weights[g * TILE + slot] = weight;
                added[g] += weight;
            }
        }
        let shrink = exp(largest - now);
        total = total * shrink + reduce_sum(added, lane);
        largest = now;
        for (var round = 0u; round < ROUNDS; round++) {
            let i = lane.index + round * WG;
            if (i >= values4) { break; }
            var sums = array<vec4<f32>, 4>();
            for (var g = 0u; g < SHARE; g++) { sums[g] = acc[round * 4u + g] * shrink[g]; }
            for (var k = 0u; k < count; k++) {
                let value = kv_load4(values_at[k], value_head(), i * 4u);
                for (var g = 0u; g < SHARE; g++) { sums[g] += weights[g * TILE + k] * value; }
            }
            for (var g = 0u; g < SHARE; g++) { acc[round * 4u + g] = sums[g]; }
        }
        workgroupBarrier();
    }
    let to = (params.y_offset + row * params.y_stride + query_head * params.value_dim) / 4u;
    for (var round = 0u; round < ROUNDS; round++) {
        let i = lane.index + round * WG;
        if (i >= values4) { break; }
        for (var g = 0u; g < SHARE; g++) { y[to + g * values4 + i] = acc[round * 4u + g] / total[g]; }
    }
}
