// Sums and maxima over a workgroup through its memory: halving trees, so the order of additions is fixed.
override WG: u32 = 64u;                                                // invocations, a power of two

struct Lane { @builtin(local_invocation_index) index: u32 }

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
