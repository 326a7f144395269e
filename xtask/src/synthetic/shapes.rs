//! The true shapes of published models, from their `config.json`, and which block format each tensor has in a file of the
//! mixture Q4_K_M (llama.cpp, `llama-quant.cpp`).

use super::blocks::Format;

/// A model's shape.
pub(crate) struct Shape {
    /// What the command line calls it.
    pub(crate) name: &'static str,
    /// As GGUF files call it.
    pub(crate) architecture: &'static str,
    pub(crate) dim: u64,
    pub(crate) n_layers: u64,
    pub(crate) n_heads: u64,
    pub(crate) n_kv_heads: u64,
    pub(crate) head_dim: u64,
    /// Width inside the feed-forward block, or of one expert.
    pub(crate) ffn_dim: u64,
    pub(crate) vocab: u64,
    pub(crate) context: u64,
    pub(crate) tied: bool,
    /// Norms of every query and key head.
    pub(crate) head_norms: bool,
    pub(crate) rope_base: f32,
    pub(crate) norm_eps: f32,
    /// The factor of Llama 3's rotary scaling; 1 for none.
    pub(crate) rope_factor: f32,
    /// Experts, and how many a token goes through; 0 for none.
    pub(crate) experts: (u64, u64),
    /// Whether all matrices are q8_0, not those of the mixture.
    pub(crate) bytes: bool,
}

/// Every shape that can be made.
pub(crate) const SHAPES: &[Shape] = &[
    SMALL,
    Shape { name: "Qwen3-33M-bytes", bytes: true, ..SMALL },
    Shape { name: "Qwen3-0.6B", dim: 1024, n_layers: 28, n_heads: 16, ffn_dim: 3072, tied: true, ..QWEN3 },
    Shape { name: "Llama-3.2-1B", dim: 2048, n_layers: 16, head_dim: 64, ffn_dim: 8192, rope_factor: 32.0, ..LLAMA3 },
    Shape { name: "Qwen3-4B", dim: 2560, n_layers: 36, ffn_dim: 9728, tied: true, ..QWEN3 },
    Shape { name: "Llama-3.1-8B", dim: 4096, n_layers: 32, ffn_dim: 14336, tied: false, rope_factor: 8.0, ..LLAMA3 },
    Shape {
        name: "Qwen3-30B-A3B",
        architecture: "qwen3moe",
        dim: 2048,
        n_layers: 48,
        n_kv_heads: 4,
        ffn_dim: 768,
        experts: (128, 8),
        ..QWEN3
    },
];

/// No published model: small enough for engines of one thread, deep enough that what is around the products counts.
const SMALL: Shape = Shape {
    name: "Qwen3-33M",
    dim: 512,
    n_layers: 8,
    n_heads: 8,
    n_kv_heads: 4,
    head_dim: 64,
    ffn_dim: 1536,
    vocab: 16_384,
    tied: true,
    ..QWEN3
};

/// What the models of this family have in common.
const QWEN3: Shape = Shape {
    name: "",
    architecture: "qwen3",
    dim: 0,
    n_layers: 0,
    n_heads: 32,
    n_kv_heads: 8,
    head_dim: 128,
    ffn_dim: 0,
    vocab: 151_936,
    context: 40_960,
    tied: false,
    head_norms: true,
    rope_base: 1e6,
    norm_eps: 1e-6,
    rope_factor: 1.0,
    experts: (0, 0),
    bytes: false,
};

/// What the models of this family have in common.
const LLAMA3: Shape = Shape {
    architecture: "llama",
    vocab: 128_256,
    context: 131_072,
    tied: true,
    head_norms: false,
    rope_base: 5e5,
    norm_eps: 1e-5,
    ..QWEN3
};

/// A tensor: its name, its dimensions (rows last, as GGUF writes them), its format, and the size of its numbers.
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dims: Vec<u64>,
    pub(crate) format: Format,
    pub(crate) spread: Spread,
}

/// What a tensor's numbers are around.
#[derive(Clone, Copy)]
pub(crate) enum Spread {
    /// 0, with this deviation.
    Zero(f32),
    /// 1: the weights of norms.
    One,
    /// The factors of Llama 3's rotary scaling.
    RopeFactors,
}

impl Shape {
    /// All tensors, in the order of the file.
    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let mut tensors = vec![];
        let mut add = |name: String, dims: &[u64], format, spread| {
            let format = if self.bytes && format != Format::F32 { Format::Q8_0 } else { format };
            tensors.push(Tensor { name, dims: dims.to_vec(), format, spread });
        };
        // Activations behind a norm are around 1, so a matrix of this spread keeps them there.
        let matrix = |cols: u64| Spread::Zero(1.0 / (cols as f32).sqrt());
        let (q, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        let table = if self.tied { Format::Q6K } else { Format::Q4K };
        // A tied table is the output matrix too, whose scores are then around 2.
        add("token_embd.weight".into(), &[self.dim, self.vocab], table, Spread::Zero(2.0 / (self.dim as f32).sqrt()));
        if self.rope_factor != 1.0 {
            add("rope_freqs.weight".into(), &[self.head_dim / 2], Format::F32, Spread::RopeFactors);
        }
        for layer in 0..self.n_layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let better = if more_bits(layer, self.n_layers) { Format::Q6K } else { Format::Q4K };
            add(name("attn_norm"), &[self.dim], Format::F32, Spread::One);
            add(name("attn_q"), &[self.dim, q], Format::Q4K, matrix(self.dim));
            add(name("attn_k"), &[self.dim, kv], Format::Q4K, matrix(self.dim));
            add(name("attn_v"), &[self.dim, kv], better, matrix(self.dim));
            if self.head_norms {
                add(name("attn_q_norm"), &[self.head_dim], Format::F32, Spread::One);
                add(name("attn_k_norm"), &[self.head_dim], Format::F32, Spread::One);
            }
            add(name("attn_output"), &[q, self.dim], Format::Q4K, matrix(q));
            add(name("ffn_norm"), &[self.dim], Format::F32, Spread::One);
            match self.experts {
                (0, _) => {
                    add(name("ffn_gate"), &[self.dim, self.ffn_dim], Format::Q4K, matrix(self.dim));
                    add(name("ffn_up"), &[self.dim, self.ffn_dim], Format::Q4K, matrix(self.dim));
                    add(name("ffn_down"), &[self.ffn_dim, self.dim], better, matrix(self.ffn_dim));
                }
                (count, _) => {
                    add(name("ffn_gate_inp"), &[self.dim, count], Format::F32, matrix(self.dim));
                    add(name("ffn_gate_exps"), &[self.dim, self.ffn_dim, count], Format::Q4K, matrix(self.dim));
                    add(name("ffn_up_exps"), &[self.dim, self.ffn_dim, count], Format::Q4K, matrix(self.dim));
                    add(name("ffn_down_exps"), &[self.ffn_dim, self.dim, count], better, matrix(self.ffn_dim));
                }
            }
        }
        add("output_norm.weight".into(), &[self.dim], Format::F32, Spread::One);
        if !self.tied {
            add(
                "output.weight".into(),
                &[self.dim, self.vocab],
                Format::Q6K,
                Spread::Zero(2.0 / (self.dim as f32).sqrt()),
            );
        }
        tensors
    }

    /// The factors of Llama 3's rotary scaling, as `convert_hf_to_gguf.py` writes them: long waves are stretched, short
    /// ones stay, those between are in between.
    pub(crate) fn rope_factors(&self) -> Vec<f32> {
        const ORIGINAL_CONTEXT: f32 = 8192.0;
        const LOW: f32 = 1.0;
        const HIGH: f32 = 4.0;
        let factor = |pair: u64| {
            let wave = 2.0 * std::f32::consts::PI * self.rope_base.powf(2.0 * pair as f32 / self.head_dim as f32);
            let smooth = (ORIGINAL_CONTEXT / wave - LOW) / (HIGH - LOW);
            match wave {
                wave if wave < ORIGINAL_CONTEXT / HIGH => 1.0,
                wave if wave > ORIGINAL_CONTEXT / LOW => self.rope_factor,
                _ => 1.0 / ((1.0 - smooth) / self.rope_factor + smooth),
            }
        };
        (0..self.head_dim / 2).map(factor).collect()
    }
}

/// Layers whose values and last projections get more bits in the mixtures _M.
fn more_bits(layer: u64, n_layers: u64) -> bool {
    layer < n_layers / 8 || layer >= 7 * n_layers / 8 || (layer - n_layers / 8) % 3 == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_the_parameters_of_the_models() {
        // As the models' cards count them, tied tables once.
        let expected = [0.0336e9, 0.0336e9, 0.596e9, 1.236e9, 4.022e9, 8.030e9, 30.532e9];
        for (shape, expected) in SHAPES.iter().zip(expected) {
            let numbers = |tensor: &Tensor| tensor.dims.iter().product::<u64>();
            let count: u64 = shape.tensors().iter().map(numbers).sum();
            assert!((count as f64 / expected - 1.0).abs() < 0.002, "{}: {count}", shape.name);
        }
    }

    #[test]
    fn rotary_factors_are_those_of_llama_3() {
        let factors = SHAPES[5].rope_factors();
        assert_eq!((factors.len(), factors[0], factors[63]), (64, 1.0, 8.0));
        assert!(factors.is_sorted() && factors.iter().any(|factor| *factor > 1.0 && *factor < 8.0));
    }
}
