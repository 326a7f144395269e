// Chooses the next id from one row of logits, in one workgroup: penalties, temperature, top-k, top-p, min-p, draw, in
// that order (see SamplerSettings). With temperature 0 the largest logit wins, the lower id among equals.
//
// Nothing is sorted. Both filters keep what lies at or above a threshold, and the threshold is found digit by digit:
// logits become integers of the same order, and four histograms of 256 bins narrow one byte each; top-k counts, top-p
// adds probabilities as fixed-point numbers, so that the result does not depend on the order of additions.
//
// The id goes to the decode program's state, which is also moved on by one position, and to a slot for reading back. A
// logit that is not a number gives the id 0xffffffff.
//
// A reply that is masked has a bit for each id behind the counts of its history: those without theirs do not take part.
//
// BATCH: every row is of another reply, and a workgroup chooses for one of them.
override BATCH: bool = false;

struct Params { vocab: u32, logits_offset: u32, logits_stride: u32, max_rows: u32 } // max_rows: of the decode program

struct Reply {
    temperature: f32, top_k: u32, top_p: f32, min_p: f32,
    repetition: f32, frequency: f32, presence: f32, seed: u32,
    place: u32,                                                        // whose history is its own
    masked: u32,                                                       // 1: not every id may be chosen; never in a batch
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> logits: array<f32>;           // (T, vocab) from logits_offset
@group(1) @binding(2) var<storage, read> replies: array<Reply>;        // of each row
@group(1) @binding(3) var<storage, read_write> history: array<u32>;    // (places, vocab): times generated, top bit: in the prompt; the mask
@group(1) @binding(4) var<storage, read_write> next: array<u32>;       // the decode program's state
@group(1) @binding(5) var<storage, read_write> ids: array<u32>;        // slots for reading back

const LANES = 256u;
const BAD = 0xffffffffu;
const FORBIDDEN = -1.0e32;                                             // below every logit, finite over any temperature

var<workgroup> values: array<f32, LANES>;
var<workgroup> indices: array<u32, LANES>;
var<workgroup> bins: array<atomic<u32>, 256>;                          // counts, or the high part of masses
var<workgroup> bins_low: array<atomic<u32>, 256>;                      // the low twelve bits of masses
var<workgroup> found_bin: u32;
var<workgroup> found_above: f32;

var<private> reply: Reply;
var<private> logits_at: u32;                                           // where the row's logits start
var<private> history_at: u32;

fn adjusted(id: u32) -> f32 {
    if (reply.masked != 0u && ((history[params.vocab + id / 32u] >> (id % 32u)) & 1u) == 0u) { return FORBIDDEN; }
    var logit = logits[logits_at + id];
    if (reply.repetition != 1.0 || reply.frequency != 0.0 || reply.presence != 0.0) {
        let seen = history[history_at + id];
        if (seen != 0u) { logit = select(logit * reply.repetition, logit / reply.repetition, logit > 0.0); }
        let times = f32(seen & 0x7fffffffu);
        logit -= reply.frequency * times + select(0.0, reply.presence, times > 0.0);
    }
    return logit;
}

// PCG-RXS-M-XS of 32 bits (O'Neill, HMC-CS-2014-0905).
fn pcg(input: u32) -> u32 {
    let state = input * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

fn uniform_draw(index: u32) -> f32 {
    return f32(pcg(pcg(reply.seed + index * 0x9e3779b9u)) >> 8u) / 16777216.0;
}

// The largest threshold such that what lies at or above it reaches `goal`: a number of ids (mass false) or a share of
// the probabilities (mass true). Ids below `floor` do not take part.
fn threshold(lane: u32, goal: f32, mass: bool, floor: u32, largest: f32) -> u32 {
    var prefix = 0u;
    var above = 0.0;                                                   // counted above the current prefix
    for (var shift = 24i; shift >= 0i; shift -= 8i) {
        atomicStore(&bins[lane], 0u);
        atomicStore(&bins_low[lane], 0u);
        workgroupBarrier();
        for (var id = lane; id < params.vocab; id += LANES) {
            let value = adjusted(id) / reply.temperature;
            let key = ordered(value);
            let same = shift == 24i || (key >> u32(shift + 8i)) == (prefix >> u32(shift + 8i));
            if (same && key >= floor) {
                let bin = (key >> u32(shift)) & 255u;
                if (mass) {
                    let quanta = u32(exp(value - largest) * 16777216.0);
                    atomicAdd(&bins[bin], quanta >> 12u);
                    atomicAdd(&bins_low[bin], quanta & 4095u);
                } else {
                    atomicAdd(&bins[bin], 1u);
                }
            }
        }
        workgroupBarrier();
        if (lane == 0u) {
            var sum = above;
            var chosen = 0u;
            var above_chosen = above;
            for (var bin = 255i; bin >= 0i; bin--) {
                var size = f32(atomicLoad(&bins[bin]));
                if (mass) { size = size / 4096.0 + f32(atomicLoad(&bins_low[bin])) / 16777216.0; }
                if (size > 0.0) {
                    chosen = u32(bin);
                    above_chosen = sum;
                    sum += size;
                    if (sum >= goal) { break; }
                }
            }
            found_bin = chosen;
            found_above = above_chosen;
        }
        workgroupBarrier();
        prefix |= found_bin << u32(shift);
        above = found_above;
        workgroupBarrier();
    }
    return prefix;
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let row = workgroup.y;
    let settings = replies[row];                                       // uniform, as branches around barriers must be
    reply = settings;
    logits_at = params.logits_offset + row * params.logits_stride;
    history_at = settings.place * params.vocab;
    let m = params.max_rows;
    // A batch has an index and a slot for each row, others have one of each in the header.
    let index_at = select(m + 2u, m + 8u + 2u * m + row, BATCH);
    let slot_at = select(m + 3u, m + 8u + 3u * m + row, BATCH);
    // The largest logit, its id, and whether all are numbers.
    var best = -3.0e38;
    var best_id = 0u;
    for (var id = lane; id < params.vocab; id += LANES) {
        let value = adjusted(id);
        let bits = bitcast<u32>(value) & 0x7fffffffu;
        if (bits > 0x7f800000u || (bits == 0x7f800000u && value > 0.0)) { best_id = BAD; }
        if (value > best && best_id != BAD) { best = value; best_id = id; }
    }
    values[lane] = best;
    indices[lane] = best_id;
    workgroupBarrier();
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width) {
            let other = indices[lane + width];
            let mine = indices[lane];
            let wins = values[lane + width] > values[lane] || (values[lane + width] == values[lane] && other < mine);
            if (other == BAD || (mine != BAD && wins)) {
                values[lane] = values[lane + width];
                indices[lane] = other;
            }
        }
        workgroupBarrier();
    }
    var chosen = select(indices[0], BAD, settings.masked != 0u && values[0] <= FORBIDDEN);
    let index = next[index_at];
    if (settings.temperature > 0.0) {
        let largest = values[0] / reply.temperature;
        workgroupBarrier();
        var keep = 0u;
        if (settings.top_k > 0u) { keep = threshold(lane, f32(reply.top_k), false, 0u, largest); }
        // What is kept, as one sum an invocation over ids that follow one another: the draw goes by the order of ids.
        let share = (params.vocab + LANES - 1u) / LANES;
        if (settings.top_p < 1.0) {
            var mass = 0.0;
            for (var id = lane * share; id < min((lane + 1u) * share, params.vocab); id++) {
                let value = adjusted(id) / reply.temperature;
                if (ordered(value) >= keep) { mass += exp(value - largest); }
            }
            values[lane] = mass;
            workgroupBarrier();
            var all = 0.0;
            for (var i = 0u; i < LANES; i++) { all += values[i]; }
            workgroupBarrier();
            keep = max(keep, threshold(lane, reply.top_p * all, true, keep, largest));
        }
        var mass = 0.0;
        for (var id = lane * share; id < min((lane + 1u) * share, params.vocab); id++) {
            let value = adjusted(id) / reply.temperature;
            let p = exp(value - largest);
            if (ordered(value) >= keep && p >= reply.min_p) { mass += p; }
        }
        values[lane] = mass;
        workgroupBarrier();
        if (lane == 0u && chosen != BAD) {
            var all = 0.0;
            for (var i = 0u; i < LANES; i++) { all += values[i]; }
            let goal = uniform_draw(index) * all;
            var sum = 0.0;
            var holder = LANES;                                        // the invocation whose ids reach the goal
            var before = 0.0;
            var last = 0u;                                             // the last one with any, against rounding
            for (var i = 0u; i < LANES; i++) {
                if (values[i] > 0.0) { last = i; before = sum; }
                sum += values[i];
                if (values[i] > 0.0 && sum > goal) { holder = i; break; }
            }
            if (holder == LANES) { holder = last; }
            sum = before;
            for (var id = holder * share; id < min((holder + 1u) * share, params.vocab); id++) {
                let value = adjusted(id) / reply.temperature;
                let p = exp(value - largest);
                if (p > 0.0 && ordered(value) >= keep && p >= reply.min_p) {
                    chosen = id;
                    sum += p;
                    if (sum > goal) { break; }
                }
            }
        }
    }
    if (lane == 0u) {
        if (chosen < params.vocab) { history[history_at + chosen] += 1u; }
        let slot = next[slot_at];
        ids[slot] = chosen;
        // Tokens, from the last row to the first, then the header, then positions.
        next[m - 1u - row] = chosen;
        next[index_at] = index + 1u;
        next[slot_at] = slot + 1u;
        next[m + 8u + row] += 1u;
    }
}
