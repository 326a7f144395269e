// Prepares one head of one row for attention: optional norm of its first elements (query and key), rotation by the row's
// position, and for keys and values the write into their page. One workgroup a head: query heads first (in place), then
// key heads, then value heads where values are no part of the keys.
//
// The angle of pair i at position p is p * inv_freq[i]. Sines of large angles are imprecise on many GPUs, so the table
// holds, made in double precision, cos and sin for the multiples of 64 and for 0 .. 64, and the sum's formula joins them.
override Q_NORM: bool = false;
override K_NORM: bool = false;
override ADJACENT: bool = false;                                       // pairs are (2i, 2i + 1) instead of (i, i + n / 2)

struct Params {
    heads: u32, kv_heads: u32, head_dim: u32, value_dim: u32,          // value_dim 0: only keys are kept
    stride: u32, q_offset: u32, k_offset: u32, v_offset: u32,
    q_norm_offset: u32, k_norm_offset: u32, q_norm_cols: u32, k_norm_cols: u32, q_eps: f32, k_eps: f32,
    rope_offset: u32, pairs: u32, first: u32, max_rows: u32,           // pairs 0: no rotation; first: element of a head
}

const NO_WEIGHT = 0xffffffffu;

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> norms: array<f32>;
@group(1) @binding(3) var<storage, read> rope: array<vec2<f32>>;       // from rope_offset: (64, pairs), (multiples, pairs)
@group(1) @binding(4) var<storage, read_write> qkv: array<f32>;        // (T, stride)
@group(1) @binding(5) var<storage, read_write> kv: array<u32>;         // the layer's pages

const PAGE = 32u;

@compute @workgroup_size(WG)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let m = params.max_rows;
    let row = workgroup.y;
    if (row >= state[m]) { return; }
    let position = state[m + 8u + row];
    let is_q = workgroup.x < params.heads;
    let is_k = !is_q && workgroup.x < params.heads + params.kv_heads;
    var index = workgroup.x;                                           // of the head among its kind
    var start = params.q_offset;
    if (is_k) {
        index -= params.heads;
        start = params.k_offset;
    } else if (!is_q) {
        index -= params.heads + params.kv_heads;
        start = params.v_offset;
    }
    let n = select(params.value_dim, params.head_dim, is_q || is_k);
    let base = row * params.stride + start + index * n;
    let normed = select(params.k_norm_cols, params.q_norm_cols, is_q);

    var squares = 0.0;
    for (var i = lane.index; i < n; i += WG) {
        let value = qkv[base + i];
        head[i] = value;
        if (i < normed) { squares += value * value; }
    }
    if ((Q_NORM && is_q) || (K_NORM && is_k)) {
        squares = reduce_sum(vec4(squares, 0.0, 0.0, 0.0), lane).x;
        let scale = 1.0 / sqrt(squares / f32(normed) + select(params.k_eps, params.q_eps, is_q));
        let norm = select(params.k_norm_offset, params.q_norm_offset, is_q);
        for (var i = lane.index; i < normed; i += WG) {
            var factor = scale;
            if (norm != NO_WEIGHT) { factor *= norms[norm + i]; }
            head[i] *= factor;
        }
    }
    workgroupBarrier();

    if (is_q || is_k) {
        for (var i = lane.index; i < params.pairs; i += WG) {
            let fine = rope[params.rope_offset + (position % 64u) * params.pairs + i];
            let coarse = rope[params.rope_offset + (64u + position / 64u) * params.pairs + i];
            let c = fine.x * coarse.x - fine.y * coarse.y;
            let s = fine.y * coarse.x + fine.x * coarse.y;
            let at_a = params.first + select(i, 2u * i, ADJACENT);
            let at_b = params.first + select(i + params.pairs, 2u * i + 1u, ADJACENT);
            let a = head[at_a];
            let b = head[at_b];
            head[at_a] = a * c - b * s;
            head[at_b] = a * s + b * c;
        }
    }
    workgroupBarrier();

    if (is_q) {
        for (var i = lane.index; i < n; i += WG) { qkv[base + i] = head[i]; }
    } else {
        let page = state[state[m + 8u + m + row] + position / PAGE];
        let key_words = kv_words(params.head_dim);
        let page_start = page * PAGE * params.kv_heads * (key_words + kv_words(params.value_dim));
        let part = select(PAGE * params.kv_heads * key_words, 0u, is_k);
        let to = page_start + part + ((position % PAGE) * params.kv_heads + index) * kv_words(n);
        for (var u = lane.index; u < kv_units(n); u += WG) { kv_store(to, n, u); }
    }
}
