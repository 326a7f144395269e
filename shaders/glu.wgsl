// Gated units, by the number GLU: 1 silu(gate) * up, 2 gelu(gate) * up (tanh form), 3 silu with a slope and limits
// (gpt-oss): g = min(gate, limit), u = clamp(up, -limit, limit), g / (1 + exp(-slope * g)) * (u + 1).
override GLU: u32 = 0u;
override GLU_LIMIT: f32 = 0.0;
override GLU_SLOPE: f32 = 0.0;

fn glu(gate: f32, up: f32) -> f32 {
    if (GLU == 2u) {
        // tanh is clamped: some devices overflow inside it.
        let inner = 0.7978845608 * (gate + 0.044715 * gate * gate * gate);
        return 0.5 * gate * (1.0 + tanh(clamp(inner, -20.0, 20.0))) * up;
    }
    if (GLU == 3u) {
        let g = min(gate, GLU_LIMIT);
        return g / (1.0 + exp(-GLU_SLOPE * g)) * (clamp(up, -GLU_LIMIT, GLU_LIMIT) + 1.0);
    }
    return gate / (1.0 + exp(-gate)) * up;
}
