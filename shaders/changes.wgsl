// Changes the logits of a few ids before others are compared with them, and puts them back afterwards: bias, penalties and
// what else goes by a history that the device does not have (see Change in src/graph/held.rs).
//
// RESTORE: puts back what was there.
override RESTORE: bool = false;

struct Params { vocab: u32, logits_offset: u32 }
struct Change { id: u32, bias: f32, divisor: f32, less: f32 }
struct Asked { changes: u32, named: u32, temperature: f32, masked: u32, list: array<Change> }

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read_write> logits: array<f32>;     // (vocab) from logits_offset
@group(1) @binding(2) var<storage, read> asked: Asked;                 // each id once
@group(1) @binding(3) var<storage, read_write> found: array<f32>;      // what was there, behind what `top` writes

const FOUND = 520u;                                                    // where it starts; top.wgsl too

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) invocation: vec3<u32>) {
    let index = invocation.x;
    if (index >= asked.changes) { return; }
    let change = asked.list[index];
    if (change.id >= params.vocab) { return; }
    let at = params.logits_offset + change.id;
    if (RESTORE) {
        logits[at] = found[FOUND + index];
        return;
    }
    found[FOUND + index] = logits[at];
    let biased = logits[at] + change.bias;
    logits[at] = select(biased * change.divisor, biased / change.divisor, biased > 0.0) - change.less;
}
