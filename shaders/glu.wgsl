// Gated units, by the number GLU: 1 silu(gate) * up, 2 gelu(gate) * up (tanh form), 3 silu with a slope and limits
// (gpt-oss): g = min(gate, limit), u = clamp(up, -limit, limit), g / (1 + exp(-slope * g)) * (u + 1), 4 gelu(gate) * up,
// 5 tanh(gate) * up, 6 sigmoid(gate) * up.
override GLU: u32 = 0u;
override GLU_LIMIT: f32 = 0.0;
override GLU_SLOPE: f32 = 0.0;

// tanh is clamped: some devices overflow inside it.
fn bounded_tanh(v: f32) -> f32 { return tanh(clamp(v, -20.0, 20.0)); }

// The error function to 2e-8: a polynomial up to 0.927734375, beyond it 1 - exp(-t - t p(t)), both minimax in single
// precision (N. Juffa, "A faster, less accurate erff()", stackoverflow.com/a/35148199).
fn erf(a: f32) -> f32 {
    let t = abs(a);
    let s = a * a;
    if (t > 0.927734375) {
        var r = (-1.72853470e-5 * t + 3.83197126e-4) * s + (-3.88396438e-3 * t + 2.42546219e-2);
        r = ((r * t - 1.06777877e-1) * t - 6.34846687e-1) * t - 1.28717512e-1;
        r = 1.0 - exp(min(r * t - t, 0.0));
        return select(r, -r, a < 0.0);
    }
    var r = ((-5.96761703e-4 * s + 4.99119423e-3) * s - 2.67681349e-2) * s + 1.12819925e-1;
    r = (r * s - 3.76125336e-1) * s + 1.28379166e-1;
    return r * a + a;
}

fn glu(gate: f32, up: f32) -> f32 {
    switch (GLU) {
        case 2u: { return 0.5 * gate * (1.0 + bounded_tanh(0.7978845608 * (gate + 0.044715 * gate * gate * gate))) * up; }
        case 3u: {
            let g = min(gate, GLU_LIMIT);
            return g / (1.0 + exp(-GLU_SLOPE * g)) * (clamp(up, -GLU_LIMIT, GLU_LIMIT) + 1.0);
        }
        case 4u: { return 0.5 * gate * (1.0 + erf(gate * 0.7071067811865476)) * up; }
        case 5u: { return bounded_tanh(gate) * up; }
        case 6u: { return up / (1.0 + exp(-gate)); }
        default: { return gate / (1.0 + exp(-gate)) * up; }
    }
}
