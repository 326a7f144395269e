// Sums and maxima over a workgroup through its memory: halving trees, so the order of additions is fixed.
override WG: u32 = 64u;                                                // invocations, a power of two
override SIZE: u32 = WG;                                               // invocations of a workgroup: it is one team

struct Lane { @builtin(local_invocation_index) index: u32 }

// A workgroup is one team, whose members are its invocations.
fn team(lane: Lane, workgroup: u32) -> u32 { return workgroup; }
fn member(lane: Lane) -> u32 { return lane.index; }

var<workgroup> reduce_parts: array<vec4<f32>, WG>;

fn reduce_sum(value: vec4<f32>, lane: Lane) -> vec4<f32> {
    workgroupBarrier();                                                // earlier readers are done
    reduce_parts[lane.index] = value;
    workgroupBarrier();
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        if (lane.index < width) { reduce_parts[lane.index] += reduce_parts[lane.index + width]; }
        workgroupBarrier();
    }
    return reduce_parts[0];
}

fn reduce_max(value: f32, lane: Lane) -> f32 {
    workgroupBarrier();
    reduce_parts[lane.index].x = value;
    workgroupBarrier();
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        if (lane.index < width) {
            reduce_parts[lane.index].x = max(reduce_parts[lane.index].x, reduce_parts[lane.index + width].x);
        }
        workgroupBarrier();
    }
    return reduce_parts[0].x;
}

// Sums of several vectors at once, by the same additions: each invocation puts what it has of vectors 0 .. MANY, all
// pass `reduce_many`, then any of them gets elements of any sum.
const MANY = 10u;
override MANY_PARTS: u32 = WG * MANY;

var<workgroup> reduce_many_parts: array<vec4<f32>, MANY_PARTS>;

fn reduce_put(vector: u32, value: vec4<f32>, lane: Lane) {
    reduce_many_parts[vector * WG + lane.index] = value;
}

fn reduce_many(count: u32, lane: Lane) {
    workgroupBarrier();
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        if (lane.index < width) {
            for (var v = 0u; v < count; v++) {
                let at = v * WG + lane.index;
                reduce_many_parts[at] += reduce_many_parts[at + width];
            }
        }
        workgroupBarrier();
    }
}

fn reduce_get(vector: u32, element: u32, lane: Lane) -> f32 {
    return reduce_many_parts[vector * WG][element];
}
