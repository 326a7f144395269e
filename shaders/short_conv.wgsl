// y[t, c] = after[t, c] * act(sum_j w[c, j] * u[t - TAPS + 1 + j, c]), u = before * x, over the rows of a sequence, those
// before the step from its state; before and after are 1 unless GATED. One invocation makes a channel of a sequence, so
// its state may be read and written in the same slot.
override TAPS: u32 = 4u;
override GATED: bool = false;
override SILU: bool = false;

struct Params {
    cols: u32, x_offset: u32, before_offset: u32, after_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32,
    weight_offset: u32, max_rows: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> norms: array<f32>;            // w: (cols, TAPS) from weight_offset
@group(1) @binding(3) var<storage, read> x: array<f32>;                // x and the gates: (T, cols), rows x_stride apart
@group(1) @binding(4) var<storage, read_write> y: array<f32>;          // (T, cols), rows y_stride apart
@group(1) @binding(5) var<storage, read_write> slots: array<f32>;      // (slots, TAPS - 1, cols), oldest first

// u of the row `index` of the sequence; negative ones are in its state.
fn input_at(sequence: Sequence, index: i32, c: u32) -> f32 {
    if (index < 0) {
        if (sequence.fresh) { return 0.0; }
        let past = u32(index + i32(TAPS) - 1);
        return slots[(sequence.before * (TAPS - 1u) + past) * params.cols + c];
    }
    let at = state[sequence.list + u32(index)] * params.x_stride + c;
    let value = x[params.x_offset + at];
    if (GATED) { return value * x[params.before_offset + at]; }
    return value;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.x;
    if (c >= params.cols) { return; }
    let sequence = sequence_of(id.y, params.max_rows);
    for (var i = 0u; i < sequence.rows; i++) {
        var sum = 0.0;
        for (var j = 0u; j < TAPS; j++) {
            sum += norms[params.weight_offset + c * TAPS + j] * input_at(sequence, i32(i + j + 1u) - i32(TAPS), c);
        }
        if (SILU) { sum = sum / (1.0 + exp(-sum)); }
        let row = state[sequence.list + i];
        if (GATED) { sum *= x[params.after_offset + row * params.x_stride + c]; }
        y[params.y_offset + row * params.y_stride + c] = sum;
    }
    // In ascending order: what is read lies at or after what is written.
    for (var j = 0u; j + 1u < TAPS; j++) {
        let last = input_at(sequence, i32(sequence.rows + j + 1u) - i32(TAPS), c);
        slots[(sequence.after * (TAPS - 1u) + j) * params.cols + c] = last;
    }
}
