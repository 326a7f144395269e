// y = softmax(cap(scale * q K^T)) V over the positions of the row's sequence up to its own, or the last WINDOW of them;
// cap(s) = softcap * tanh(s / softcap). One workgroup a query head of one row.
// Keys come in tiles of WG: an invocation scores one key, then all of them add the tile's values, each invocation some
// elements of the head. The softmax is kept online (Milakov & Gimelshein, arXiv 1805.02867).
struct Params {
    heads: u32, kv_heads: u32, head_dim: u32, stride: u32, q_offset: u32, y_stride: u32, scale: f32, max_rows: u32,
    window: u32, softcap: f32,                                         // 0: none
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> qkv: array<vec4<f32>>;        // (T, stride)
@group(1) @binding(3) var<storage, read_write> kv: array<u32>;         // the layer's pages
@group(1) @binding(4) var<storage, read_write> y: array<vec4<f32>>;    // (T, heads * head_dim), rows y_stride apart

const PAGE = 32u;
const MAX_HEAD4 = 128u;                                                // a head of 512 elements

var<workgroup> query: array<vec4<f32>, MAX_HEAD4>;
var<workgroup> weights: array<f32, WG>;
var<workgroup> keys_at: array<u32, WG>;                                // where a position's key starts

@compute @workgroup_size(WG)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let m = params.max_rows;
    let row = workgroup.y;
    if (row >= state[m]) { return; }
    let head = workgroup.x;
    let n4 = params.head_dim / 4u;
    let width = params.kv_heads * params.head_dim;
    let head_at = head / (params.heads / params.kv_heads) * params.head_dim;
    let length = state[m + 8u + row] + 1u;
    let begin = select(0u, length - min(length, params.window), params.window > 0u);
    let pages = state[m + 8u + m + row];

    let start = (row * params.stride + params.q_offset + head * params.head_dim) / 4u;
    for (var i = lane.index; i < n4; i += WG) { query[i] = qkv[start + i] * params.scale; }
    workgroupBarrier();

    var largest = -3.0e38;
    var total = 0.0;
    // Four elements an invocation and round; WG is at least a quarter of MAX_HEAD4.
    var acc = array<vec4<f32>, 4>();
    for (var first = begin; first < length; first += WG) {
        let position = first + lane.index;
        var score = -3.0e38;
        if (position < length) {
            let page = state[pages + position / PAGE];
            let at = (page * 2u * PAGE + position % PAGE) * width + head_at;
            keys_at[lane.index] = at;
            var sum = vec4(0.0);
            for (var i = 0u; i < n4; i++) { sum += query[i] * kv_load4(at + i * 4u); }
            score = sum.x + sum.y + sum.z + sum.w;
            if (params.softcap > 0.0) { score = params.softcap * tanh(clamp(score / params.softcap, -20.0, 20.0)); }
        }
        let now = max(largest, reduce_max(score, lane));
        let shrink = exp(largest - now);
        let weight = select(0.0, exp(score - now), position < length);
        weights[lane.index] = weight;
        total = total * shrink + reduce_sum(vec4(weight, 0.0, 0.0, 0.0), lane).x;
        largest = now;
        let count = min(WG, length - first);
        var round = 0u;
        for (var i = lane.index; i < n4; i += WG) {
            var sum = acc[round] * shrink;
            for (var k = 0u; k < count; k++) {
                sum += weights[k] * kv_load4(keys_at[k] + PAGE * width + i * 4u);
            }
            acc[round] = sum;
            round += 1u;
        }
        workgroupBarrier();
    }
    let to = (row * params.y_stride + head * params.head_dim) / 4u;
    var round = 0u;
    for (var i = lane.index; i < n4; i += WG) {
        y[to + i] = acc[round] / total;
        round += 1u;
    }
}
