// What products of many rows by a matrix share: their numbers and buffers, and what becomes of a result.
//
// RESIDUAL: y += ... GLU: rows 2i and 2i + 1 of w are gate and up; y[t, i] = glu(gate, up). BIAS: y = ... + bias.
override RESIDUAL: bool = false;
override BIAS: bool = false;
override ADAPT: u32 = 0u;                                              // the product times 1: factor, 2: 1 + factor * gain[r]
override OUTPUTS: bool = false;                                        // the rows of x are the step's outputs

struct Params {
    rows: u32, cols: u32, x_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32, max_rows: u32, bias_offset: u32,
    gain_offset: u32, factor: f32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(3) var<storage, read> norms: array<f32>;            // bias: (rows) from bias_offset, gain likewise
@group(1) @binding(4) var<storage, read_write> y: array<f32>;          // (T, rows or rows / 2), rows y_stride apart

fn rows_of_x() -> u32 { return state[params.max_rows + select(0u, 1u, OUTPUTS)]; }

// Writes what row t of x gives with the four rows of w from r on, of which the first is there.
fn finish(t: u32, r: u32, acc: vec4<f32>) {
    let at = params.y_offset + t * params.y_stride;
    if (GLU != 0u) {
        y[at + r / 2u] = glu(acc.x, acc.y);
        if (r + 2u < params.rows) { y[at + r / 2u + 1u] = glu(acc.z, acc.w); }
        return;
    }
    for (var j = 0u; j < 4u && r + j < params.rows; j++) {
        var result = acc[j];
        if (ADAPT == 1u) { result *= params.factor; }
        if (ADAPT == 2u) { result *= 1.0 + params.factor * norms[params.gain_offset + r + j]; }
        if (BIAS) { result += norms[params.bias_offset + r + j]; }
        if (RESIDUAL) { result += y[at + r + j]; }
        y[at + r + j] = result;
    }
}
