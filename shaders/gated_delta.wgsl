// The gated delta rule (arXiv 2412.06464) over the rows of a sequence: a head's state S (keys, values) becomes
// a S + k d^T with d = b (v - (a S)^T k), and gives S^T q; a = exp(-exp(a_log) softplus(decay + dt)), b = sigmoid(beta),
// q and k of length 1, q divided by sqrt(keys). Columns of S do not meet, so an invocation makes one of a head and may read
// and write it in the same slot; a workgroup has some of the columns of one head.
struct Params {
    key_heads: u32, value_heads: u32, key_dim: u32, value_dim: u32, qkv_offset: u32, qkv_stride: u32,
    beta_offset: u32, beta_stride: u32, decay_offset: u32, decay_stride: u32, y_offset: u32, y_stride: u32,
    a_log_offset: u32, dt_offset: u32, max_rows: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> norms: array<f32>;            // a_log, dt: (value_heads)
@group(1) @binding(3) var<storage, read> qkv: array<f32>;              // (T, q | k | v), rows qkv_stride apart
@group(1) @binding(4) var<storage, read> beta: array<f32>;             // (T, value_heads)
@group(1) @binding(5) var<storage, read> decay: array<f32>;            // (T, value_heads)
@group(1) @binding(6) var<storage, read_write> y: array<f32>;          // (T, value_heads * value_dim)
@group(1) @binding(7) var<storage, read_write> slots: array<f32>;      // (slots, value_heads, key_dim, value_dim)

const MAX_KEY = 256u;

var<workgroup> query: array<f32, MAX_KEY>;
var<workgroup> key: array<f32, MAX_KEY>;

fn softplus(v: f32) -> f32 {
    return max(v, 0.0) + log(1.0 + exp(-abs(v)));
}

@compute @workgroup_size(WG)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let n = params.value_dim;
    let tiles = (n + WG - 1u) / WG;
    let head = workgroup.x / tiles;
    let column = workgroup.x % tiles * WG + lane.index;
    let keys = params.key_heads * params.key_dim;
    let key_at = head / (params.value_heads / params.key_heads) * params.key_dim;
    let sequence = sequence_of(workgroup.y, params.max_rows);
    let to = (sequence.after * params.value_heads + head) * params.key_dim * n + column;
    var from_at = (sequence.before * params.value_heads + head) * params.key_dim * n + column;
    var fresh = sequence.fresh;
    for (var i = 0u; i < sequence.rows; i++) {
        let row = state[sequence.list + i];
        let start = params.qkv_offset + row * params.qkv_stride;
        workgroupBarrier();                                            // readers of the row before are done
        var squares = vec4(0.0);
        for (var j = lane.index; j < params.key_dim; j += WG) {
            let q = qkv[start + key_at + j];
            let k = qkv[start + keys + key_at + j];
            query[j] = q;
            key[j] = k;
            squares += vec4(q * q, k * k, 0.0, 0.0);
        }
        squares = reduce_sum(squares, lane);
        let q_scale = 1.0 / (sqrt(squares.x + 1e-6) * sqrt(f32(params.key_dim)));
        let k_scale = 1.0 / sqrt(squares.y + 1e-6);
        if (column < n) {
            let step = softplus(decay[params.decay_offset + row * params.decay_stride + head] + norms[params.dt_offset + head]);
            let a = exp(-exp(norms[params.a_log_offset + head]) * step);
            let b = 1.0 / (1.0 + exp(-beta[params.beta_offset + row * params.beta_stride + head]));
            var known = 0.0;
            for (var j = 0u; j < params.key_dim; j++) {
                known += select(slots[from_at + j * n], 0.0, fresh) * key[j];
            }
            let delta = b * (qkv[start + 2u * keys + head * n + column] - a * known * k_scale) * k_scale;
            var result = 0.0;
            for (var j = 0u; j < params.key_dim; j++) {
                let value = a * select(slots[from_at + j * n], 0.0, fresh) + key[j] * delta;
                slots[to + j * n] = value;
                result += value * query[j];
            }
            y[params.y_offset + row * params.y_stride + head * n + column] = result * q_scale;
        }
        from_at = to;
        fresh = false;
    }
}
