// The largest logits of one row, in one workgroup: up to 256 ids, a bound that no other exceeds, and what all of them come
// to (see Top in src/graph/held.rs). Ids without their bit in the mask do not take part.
//
// Nothing is sorted: the bound is the 257th largest, found byte by byte in histograms over integers that have the order of
// the logits, as in sample.wgsl; what lies above it is written in any order.

struct Params { vocab: u32, logits_offset: u32 }
struct Change { id: u32, bias: f32, divisor: f32, less: f32 }
struct Asked { changes: u32, named: u32, temperature: f32, masked: u32, list: array<Change> }

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> logits: array<f32>;           // (vocab) from logits_offset
@group(1) @binding(2) var<storage, read> asked: Asked;
@group(1) @binding(3) var<storage, read> history: array<u32>;          // the mask behind (vocab) counts
@group(1) @binding(4) var<storage, read_write> found: array<u32>;      // bad, count, written, bound, max, sum, mean, variance; ids and logits; those named

const LANES = 256u;
const TOP = 256u;
const HEADER = 8u;
const FOUND = 520u;                                                    // HEADER + 2 * TOP; changes.wgsl too

var<workgroup> values: array<f32, LANES>;
var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> bad: atomic<u32>;
var<workgroup> count: atomic<u32>;
var<workgroup> written: atomic<u32>;
var<workgroup> found_bin: u32;
var<workgroup> found_above: u32;

fn allowed(id: u32) -> bool {
    return asked.masked == 0u || ((history[params.vocab + id / 32u] >> (id % 32u)) & 1u) != 0u;
}

fn logit(id: u32) -> f32 { return logits[params.logits_offset + id]; }

// Sums over the workgroup.
fn total(lane: u32, value: f32) -> f32 {
    values[lane] = value;
    workgroupBarrier();
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width) { values[lane] += values[lane + width]; }
        workgroupBarrier();
    }
    let all = values[0];
    workgroupBarrier();
    return all;
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    var best = -3.0e38;
    var sum = 0.0;
    var mine = 0u;
    for (var id = lane; id < params.vocab; id += LANES) {
        let value = logit(id);
        if ((bitcast<u32>(value) & 0x7fffffffu) >= 0x7f800000u) { atomicStore(&bad, 1u); }
        if (allowed(id)) {
            best = max(best, value);
            sum += value;
            mine += 1u;
        }
    }
    atomicAdd(&count, mine);
    values[lane] = best;
    workgroupBarrier();
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width) { values[lane] = max(values[lane], values[lane + width]); }
        workgroupBarrier();
    }
    let largest = values[0];
    workgroupBarrier();
    let taking_part = f32(max(atomicLoad(&count), 1u));
    let mean = total(lane, sum) / taking_part;
    sum = 0.0;
    var squares = 0.0;
    for (var id = lane; id < params.vocab; id += LANES) {
        if (allowed(id)) {
            let value = logit(id);
            sum += exp((value - largest) / asked.temperature);
            squares += (value - mean) * (value - mean);
        }
    }
    let weight = total(lane, sum);
    let variance = total(lane, squares) / taking_part;
    // The one after the last that has room; where there are not so many, less than all.
    var key = 0u;
    var above = 0u;
    for (var shift = 24i; shift >= 0i; shift -= 8i) {
        atomicStore(&bins[lane], 0u);
        workgroupBarrier();
        for (var id = lane; id < params.vocab; id += LANES) {
            let own = ordered(logit(id));
            if (allowed(id) && (shift == 24i || (own >> u32(shift + 8i)) == (key >> u32(shift + 8i)))) {
                atomicAdd(&bins[(own >> u32(shift)) & 255u], 1u);
            }
        }
        workgroupBarrier();
        if (lane == 0u) {
            found_bin = 0u;
            found_above = above;
            var seen = above;
            for (var bin = 255i; bin >= 0i; bin--) {
                let size = atomicLoad(&bins[bin]);
                if (seen + size > TOP) {
                    found_bin = u32(bin);
                    found_above = seen;
                    break;
                }
                seen += size;
            }
        }
        workgroupBarrier();
        key |= found_bin << u32(shift);
        above = found_above;
        workgroupBarrier();
    }
    let everything = atomicLoad(&count) <= TOP;
    for (var id = lane; id < params.vocab; id += LANES) {
        let value = logit(id);
        if (allowed(id) && (everything || ordered(value) > key)) {
            let slot = HEADER + 2u * atomicAdd(&written, 1u);
            found[slot] = id;
            found[slot + 1u] = bitcast<u32>(value);
        }
    }
    for (var index = lane; index < asked.named; index += LANES) {
        let id = asked.list[index].id;
        found[FOUND + index] = select(0u, bitcast<u32>(logit(min(id, params.vocab - 1u))), id < params.vocab);
    }
    workgroupBarrier();
    if (lane == 0u) {
        found[0] = atomicLoad(&bad);
        found[1] = atomicLoad(&count);
        found[2] = atomicLoad(&written);
        found[3] = select(bitcast<u32>(unordered(key)), 0xff7fffffu, everything);
        found[4] = bitcast<u32>(largest);
        found[5] = bitcast<u32>(weight);
        found[6] = bitcast<u32>(mean);
        found[7] = bitcast<u32>(variance);
    }
}
