// Sums and maxima over a workgroup: inside subgroups by their own instructions, between them through workgroup memory.
// Right for every subgroup size and for any assignment of invocations to subgroups.
override WG: u32 = 64u;                                                // invocations, a power of two

struct Lane {
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_invocation_id) in_subgroup: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

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
