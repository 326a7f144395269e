// y = softmax(cap(scale * q K^T)) V over the positions that the row sees: those of its sequence up to its own (or all of
// them where it is not causal), less than `window` away, in its own chunk. cap(s) = softcap * tanh(s / softcap). A sink is
// a score that takes part in the softmax and stands for no value. One workgroup a query head of one row.
// Keys come in tiles of WG: an invocation scores one key, then all of them add the tile's values, each invocation some
// elements of the head. The softmax is kept online (Milakov & Gimelshein, arXiv 1805.02867).
struct Params {
    heads: u32, kv_heads: u32, head_dim: u32, value_dim: u32, stride: u32, q_offset: u32, y_offset: u32, y_stride: u32,
    scale: f32, softcap: f32, temperature_floor: f32, temperature: f32,
    window: u32, chunk: u32, sinks_offset: u32, causal: u32, latent: u32, max_rows: u32, // softcap, window, chunk: 0 is none
}

const NO_WEIGHT = 0xffffffffu;

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> vectors: array<f32>;          // sinks: (heads) from sinks_offset
@group(1) @binding(3) var<storage, read> qkv: array<vec4<f32>>;        // (T, stride)
@group(1) @binding(4) var<storage, read_write> kv: array<u32>;         // the layer's pages
@group(1) @binding(5) var<storage, read_write> y: array<vec4<f32>>;    // (T, heads * value_dim), rows y_stride apart

const PAGE = 32u;
const MAX_HEAD4 = 256u;                                                // a head of 1024 elements

var<workgroup> query: array<vec4<f32>, MAX_HEAD4>;
var<workgroup> weights: array<f32, WG>;
var<workgroup> values_at: array<u32, WG>;                              // where a position's value starts

@compute @workgroup_size(WG)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let m = params.max_rows;
    let row = workgroup.y;
    if (row >= state[m]) { return; }
    let query_head = workgroup.x;
    let n4 = params.head_dim / 4u;
    let values4 = params.value_dim / 4u;
    let latent = params.latent != 0u;
    let key_words = kv_words(params.head_dim);                         // of one head; of all of a position's below
    let value_words = select(kv_words(params.value_dim), 0u, latent);
    let position_keys = params.kv_heads * key_words;
    let position_values = params.kv_heads * value_words;
    let value_head = select(params.value_dim, params.head_dim, latent);
    let kv_head = query_head / (params.heads / params.kv_heads);
    let own = state[m + 8u + row];
    let pages = state[m + 8u + m + row];
    var end = own + 1u;
    // The length of a sequence stands before its page table.
    if (params.causal == 0u) { end = min(state[pages - 1u], select(own + params.window, 0xffffffffu, params.window == 0u)); }
    var begin = select(0u, own + 1u - min(own + 1u, params.window), params.window > 0u);
    if (params.chunk > 0u) { begin = max(begin, own / params.chunk * params.chunk); }

    let steps = floor(f32(own + 1u) / params.temperature_floor);
    let scale = params.scale * (1.0 + params.temperature * log(1.0 + steps));
    let start = (row * params.stride + params.q_offset + query_head * params.head_dim) / 4u;
    for (var i = lane.index; i < n4; i += WG) { query[i] = qkv[start + i] * scale; }
    workgroupBarrier();

    var largest = -3.0e38;
    var total = 0.0;
    if (params.sinks_offset != NO_WEIGHT) {
        largest = vectors[params.sinks_offset + query_head];
        total = 1.0;
    }
    // Four elements an invocation and round; WG is a quarter of MAX_HEAD4.
    var acc = array<vec4<f32>, 4>();
    for (var first = begin; first < end; first += WG) {
        let position = first + lane.index;
        var score = -3.0e38;
        if (position < end) {
            let page = state[pages + position / PAGE] * PAGE * (position_keys + position_values);
            let at = page + (position % PAGE) * position_keys + kv_head * key_words;
            // Values follow the keys of their page, or are the beginning of the key.
            let value_at = page + PAGE * position_keys + (position % PAGE) * position_values + kv_head * value_words;
            values_at[lane.index] = select(value_at, at, latent);
            var sum = vec4(0.0);
            for (var i = 0u; i < n4; i++) { sum += query[i] * kv_load4(at, params.head_dim, i * 4u); }
            score = sum.x + sum.y + sum.z + sum.w;
            if (params.softcap > 0.0) { score = params.softcap * tanh(clamp(score / params.softcap, -20.0, 20.0)); }
        }
        let now = max(largest, reduce_max(score, lane));
        let shrink = exp(largest - now);
        let weight = select(0.0, exp(score - now), position < end);
        weights[lane.index] = weight;
        total = total * shrink + reduce_sum(vec4(weight, 0.0, 0.0, 0.0), lane).x;
        largest = now;
        let count = min(WG, end - first);
        var round = 0u;
        for (var i = lane.index; i < values4; i += WG) {
            var sum = acc[round] * shrink;
            for (var k = 0u; k < count; k++) {
                sum += weights[k] * kv_load4(values_at[k], value_head, i * 4u);
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
