//! Attention as a model asks for it: who sees whom, and what is kept of each position.

use super::WeightId;

/// Attention with grouped queries. `q` is `(tokens, heads * head_dim)`, `k` is `(tokens, kv_heads * head_dim)`, `v` is
/// `(tokens, kv_heads * value_dim)`. Writes k and v to the layer's pages first, then lets each row attend to all
/// positions of its sequence up to and including its own, or to fewer as the fields say:
/// `softmax(cap(scale * q k^T)) v`, `(tokens, heads * value_dim)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Index of the layer whose pages hold the keys and values.
    pub layer: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head `h` reads key head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Elements of one head of queries and keys.
    pub head_dim: usize,
    /// Elements of one head of values.
    pub value_dim: usize,
    /// The values are the first `value_dim` elements of the keys, and `v` is `k` (the latent attention of DeepSeek-V2,
    /// arXiv 2405.04434): only keys are kept.
    pub latent: bool,
    /// Factor on the scores.
    pub scale: f32,
    /// Sliding window: a row sees the positions less than `window` away from it (Longformer, arXiv 2004.05150).
    pub window: Option<usize>,
    /// A row sees only positions of its own chunk, `chunk` positions each from 0 on (Llama 4).
    pub chunk: Option<usize>,
    /// `cap(s) = softcap * tanh(s / softcap)` on the scaled scores (Gemma 2, arXiv 2408.00118).
    pub softcap: Option<f32>,
    /// A vector of `heads` scores that take part in the softmax and stand for no value (gpt-oss; arXiv 2309.17453).
    pub sinks: Option<WeightId>,
    /// How queries grow with their position.
    pub temperature: Option<Temperature>,
    /// Whether a row sees no later positions. Without it all rows of a sequence see each other, so that they are all in
    /// one step (encoders).
    pub causal: bool,
}

/// Queries of position `p` are multiplied by `1 + scale * ln(1 + floor((p + 1) / floor))` (Llama 4, after arXiv 2501.19399).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// Positions with one factor.
    pub floor: f32,
    /// How fast it grows.
    pub scale: f32,
}

impl Attention {
    /// Causal attention to everything before, values as wide as keys.
    pub fn new(layer: usize, (heads, kv_heads): (usize, usize), head_dim: usize, scale: f32) -> Self {
        Self {
            layer,
            heads,
            kv_heads,
            head_dim,
            value_dim: head_dim,
            latent: false,
            scale,
            window: None,
            chunk: None,
            softcap: None,
            sinks: None,
            temperature: None,
            causal: true,
        }
    }

    /// Positions that the row at `position` sees, of a sequence that has `len` of them after the step.
    pub fn seen(&self, position: usize, len: usize) -> std::ops::Range<usize> {
        let window = self.window.unwrap_or(usize::MAX);
        let chunk = self.chunk.map_or(0, |chunk| position / chunk.max(1) * chunk);
        let start = position.saturating_sub(window.saturating_sub(1)).max(chunk);
        let end = if self.causal { position + 1 } else { position.saturating_add(window).min(len) };
        start..end
    }

    /// Factor on the scores of the row at `position`.
    pub fn scale_at(&self, position: usize) -> f32 {
        match self.temperature {
            None => self.scale,
            Some(Temperature { floor, scale }) => {
                let steps = ((position + 1) as f32 / floor).floor();
                self.scale * (steps.ln_1p() * scale + 1.0)
            }
        }
    }
}
