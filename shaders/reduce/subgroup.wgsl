// Sums and maxima over a workgroup: inside subgroups by their own instructions, between them through workgroup memory.
// Right for every subgroup size and for any assignment of invocations to subgroups.
override WG: u32 = 64u;                                                // invocations, a power of two
override SIZE: u32 = WG;                                               // invocations of a workgroup: it is one team

struct Lane {
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_invocation_id) in_subgroup: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

// A workgroup is one team, whose members are its invocations.
fn team(lane: Lane, workgroup: u32) -> u32 { return workgroup; }
fn member(lane: Lane) -> u32 { return lane.index; }

var<workgroup> reduce_parts: array<vec4<f32>, WG>;                     // one a subgroup; a subgroup may be a single lane

fn reduce_sum(value: vec4<f32>, lane: Lane) -> vec4<f32> {
    let part = subgroupAdd(value);
    workgroupBarrier();                                                // earlier readers are done
    if (lane.in_subgroup == 0u) { reduce_parts[lane.subgroup] = part; }
    workgroupBarrier();
    var sum = reduce_parts[0];
    for (var i = 1u; i < lane.subgroups; i++) { sum += reduce_parts[i]; }
    return sum;
}

fn reduce_max(value: f32, lane: Lane) -> f32 {
    let part = subgroupMax(value);
    workgroupBarrier();
    if (lane.in_subgroup == 0u) { reduce_parts[lane.subgroup].x = part; }
    workgroupBarrier();
    var largest = reduce_parts[0].x;
    for (var i = 1u; i < lane.subgroups; i++) { largest = max(largest, reduce_parts[i].x); }
    return largest;
}

// Sums of several vectors at once, by the same additions: each invocation puts what it has of vectors 0 .. MANY, all
// pass `reduce_many`, then any of them gets elements of any sum.
const MANY = 10u;
override MANY_PARTS: u32 = WG * MANY;

var<workgroup> reduce_many_parts: array<vec4<f32>, MANY_PARTS>;

fn reduce_put(vector: u32, value: vec4<f32>, lane: Lane) {
    let part = subgroupAdd(value);
    if (lane.in_subgroup == 0u) { reduce_many_parts[vector * WG + lane.subgroup] = part; }
}

fn reduce_many(count: u32, lane: Lane) {
    workgroupBarrier();
}

fn reduce_get(vector: u32, element: u32, lane: Lane) -> f32 {
    var sum = reduce_many_parts[vector * WG][element];
    for (var i = 1u; i < lane.subgroups; i++) { sum += reduce_many_parts[vector * WG + i][element]; }
    return sum;
}
