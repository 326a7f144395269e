// Sums and maxima where every invocation works by itself: they are what it has. For devices on which a workgroup that waits
// for its members costs more than what they share saves, which processors are.
const WG = 1u;                                                         // members of a team
override SIZE: u32 = 16u;                                              // invocations of a workgroup, each a team

struct Lane { @builtin(local_invocation_index) index: u32 }

fn team(lane: Lane, workgroup: u32) -> u32 { return workgroup * SIZE + lane.index; }
fn member(lane: Lane) -> u32 { return 0u; }

fn reduce_sum(value: vec4<f32>, lane: Lane) -> vec4<f32> { return value; }

fn reduce_max(value: f32, lane: Lane) -> f32 { return value; }

const MANY = 10u;

var<private> reduce_many_parts: array<vec4<f32>, MANY>;

fn reduce_put(vector: u32, value: vec4<f32>, lane: Lane) {
    reduce_many_parts[vector] = value;
}

fn reduce_many(count: u32, lane: Lane) {}

fn reduce_get(vector: u32, element: u32, lane: Lane) -> f32 {
    return reduce_many_parts[vector][element];
}
