// The experts of each token by their scores, and their weights: see Routing in src/graph/experts.rs. One workgroup a token.
// Nothing is sorted: an expert's place is the number of those that go before it.
override SCORE: u32 = 0u;                                              // 0: softmax, 1: softmax of the chosen, 2: sigmoid
override BIAS: bool = false;
override NORMALISE: bool = false;
override GROUPS: u32 = 1u;
override GROUPS_USED: u32 = 1u;
override TWO_BEST: bool = false;                                       // groups by their two best, otherwise by the best

struct Params {
    experts: u32, used: u32, x_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32, bias_offset: u32, max_rows: u32,
    scale: f32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> x: array<f32>;                // scores: (T, experts), rows x_stride apart
@group(1) @binding(3) var<storage, read> norms: array<f32>;            // bias: (experts) from bias_offset
@group(1) @binding(4) var<storage, read_write> y: array<f32>;          // (T, used numbers, used weights), rows y_stride apart

const MAX_EXPERTS = 1024u;
const NEVER = -3.0e38;

var<workgroup> values: array<f32, MAX_EXPERTS>;                        // by expert
var<workgroup> choice: array<f32, MAX_EXPERTS>;                        // by expert
var<workgroup> group_scores: array<f32, GROUPS>;

// Whether what has this score and number goes before another.
fn before(score: f32, number: u32, other_score: f32, other: u32) -> bool {
    return score > other_score || (score == other_score && number < other);
}

@compute @workgroup_size(WG)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let token = workgroup.y;
    if (token >= state[params.max_rows]) { return; }
    let start = params.x_offset + token * params.x_stride;
    let to = params.y_offset + token * params.y_stride;
    var largest = NEVER;
    for (var e = lane.index; e < params.experts; e += WG) { largest = max(largest, x[start + e]); }
    largest = reduce_max(largest, lane);
    var total = 0.0;
    for (var e = lane.index; e < params.experts; e += WG) {
        var value = x[start + e];
        if (SCORE == 0u) { value = exp(value - largest); }
        if (SCORE == 2u) { value = 1.0 / (1.0 + exp(-value)); }
        values[e] = value;
        total += value;
    }
    total = reduce_sum(vec4(total, 0.0, 0.0, 0.0), lane).x;
    for (var e = lane.index; e < params.experts; e += WG) {
        if (SCORE == 0u) { values[e] /= total; }
        choice[e] = values[e];
        if (BIAS) { choice[e] += norms[params.bias_offset + e]; }
    }
    workgroupBarrier();

    if (GROUPS > 1u) {
        let size = params.experts / GROUPS;
        for (var g = lane.index; g < GROUPS; g += WG) {
            var best = NEVER;
            var next = NEVER;
            for (var e = g * size; e < (g + 1u) * size; e++) {
                next = max(next, min(best, choice[e]));
                best = max(best, choice[e]);
            }
            group_scores[g] = best + select(0.0, next, TWO_BEST);
        }
        workgroupBarrier();
        for (var e = lane.index; e < params.experts; e += WG) {
            let mine = e / size;
            var place = 0u;
            for (var g = 0u; g < GROUPS; g++) {
                if (before(group_scores[g], g, group_scores[mine], mine)) { place += 1u; }
            }
            if (place >= GROUPS_USED) { choice[e] = NEVER; }
        }
        workgroupBarrier();
    }

    // Softmax of the chosen: relative to the best of them, which is the best of all where there are no groups.
    var chosen = 0.0;
    for (var e = lane.index; e < params.experts; e += WG) {
        var place = 0u;
        for (var other = 0u; other < params.experts; other++) {
            if (before(choice[other], other, choice[e], e)) { place += 1u; }
        }
        if (place < params.used) {
            if (SCORE == 1u) { values[e] = exp(values[e] - largest); }
            chosen += values[e];
            y[to + place] = f32(e);
            y[to + params.used + place] = values[e];
        }
    }
    chosen = reduce_sum(vec4(chosen, 0.0, 0.0, 0.0), lane).x;
    var factor = params.scale;
    if (SCORE == 1u) { factor /= chosen; } else if (NORMALISE) { factor /= chosen + 1e-20; }
    storageBarrier();
    for (var s = lane.index; s < params.used; s += WG) { y[to + params.used + s] *= factor; }
}
