//! The models that every backend is held to, and where their goldens are.

/// A model among the test data.
pub struct Case {
    /// Shown in reports.
    pub name: &'static str,
    /// Its files, from the root of the project; a second name after `=` is the one the loader sees.
    pub files: &'static [&'static str],
    /// Where its goldens are, without their extension.
    pub goldens: &'static str,
    /// By how much the reference's own approximations may move a logit; 0 where it computes in plain float32.
    pub reference: f32,
}

impl Case {
    /// The bound of a normalised squared error, never below what the reference itself leaves: logits have a standard
    /// deviation of about 2.5.
    pub fn nmse(&self, bound: f64) -> f64 {
        bound.max(f64::from(self.reference / 2.5).powi(2))
    }

    /// The margin from which on ids must be equal.
    pub fn margin(&self, margin: f32) -> f32 {
        margin.max(2.0 * self.reference)
    }
}

/// Every model that every backend is held to.
pub const CASES: &[Case] = &[
    Case {
        name: "llama3",
        files: &["tests/data/models/llama3/config.json", "tests/data/models/llama3/model.safetensors"],
        goldens: "tests/data/models/llama3/goldens",
        reference: 0.0,
    },
    Case {
        name: "llama3 (config of transformers 5)",
        files: &["tests/data/models/llama3/config.v5.json=config.json", "tests/data/models/llama3/model.safetensors"],
        goldens: "tests/data/models/llama3/goldens",
        reference: 0.0,
    },
    Case {
        name: "qwen3",
        files: &["tests/data/models/qwen3/config.json", "tests/data/models/qwen3/model.safetensors"],
        goldens: "tests/data/models/qwen3/goldens",
        reference: 0.0,
    },
    Case {
        name: "qwen3 (config of transformers 5)",
        files: &["tests/data/models/qwen3/config.v5.json=config.json", "tests/data/models/qwen3/model.safetensors"],
        goldens: "tests/data/models/qwen3/goldens",
        reference: 0.0,
    },
    Case {
        name: "llama3-F16.gguf",
        files: &["tests/data/gguf/llama3-F16.gguf"],
        goldens: "tests/data/gguf/llama3-F16",
        reference: 0.0,
    },
    Case {
        name: "llama3-Q8_0.gguf",
        files: &["tests/data/gguf/llama3-Q8_0.gguf"],
        goldens: "tests/data/gguf/llama3-Q8_0",
        reference: 0.0,
    },
    Case {
        name: "llama3-Q4_0.gguf",
        files: &["tests/data/gguf/llama3-Q4_0.gguf"],
        goldens: "tests/data/gguf/llama3-Q4_0",
        reference: 0.0,
    },
    Case {
        name: "smollm2-Q8_0.gguf",
        files: &["tests/data/gguf/smollm2-Q8_0.gguf"],
        goldens: "tests/data/gguf/smollm2-Q8_0",
        reference: 0.0,
    },
    Case {
        name: "qwen3-Q4_0.gguf",
        files: &["tests/data/gguf/qwen3-Q4_0.gguf"],
        goldens: "tests/data/gguf/qwen3-Q4_0",
        reference: 0.0,
    },
    Case {
        name: "qwen2",
        files: &["tests/data/models/qwen2/config.json", "tests/data/models/qwen2/model.safetensors"],
        goldens: "tests/data/models/qwen2/goldens",
        reference: 0.0,
    },
    Case {
        name: "qwen2-untied",
        files: &["tests/data/models/qwen2-untied/config.json", "tests/data/models/qwen2-untied/model.safetensors"],
        goldens: "tests/data/models/qwen2-untied/goldens",
        reference: 0.0,
    },
    Case {
        name: "r1-distill-qwen",
        files: &["tests/data/models/r1-distill-qwen/config.json", "tests/data/models/qwen2-untied/model.safetensors"],
        goldens: "tests/data/models/r1-distill-qwen/goldens",
        reference: 0.0,
    },
    Case {
        name: "r1-distill-llama",
        files: &["tests/data/models/r1-distill-llama/config.json", "tests/data/models/llama3/model.safetensors"],
        goldens: "tests/data/models/r1-distill-llama/goldens",
        reference: 0.0,
    },
    Case {
        name: "llama-bias",
        files: &["tests/data/models/llama-bias/config.json", "tests/data/models/llama-bias/model.safetensors"],
        goldens: "tests/data/models/llama-bias/goldens",
        reference: 0.0,
    },
    Case {
        name: "mistral",
        files: &["tests/data/models/mistral/config.json", "tests/data/models/mistral/model.safetensors"],
        goldens: "tests/data/models/mistral/goldens",
        reference: 0.0,
    },
    Case {
        name: "smollm2",
        files: &["tests/data/models/smollm2/config.json", "tests/data/models/smollm2/model.safetensors"],
        goldens: "tests/data/models/smollm2/goldens",
        reference: 0.0,
    },
    Case {
        name: "smollm3",
        files: &["tests/data/models/smollm3/config.json", "tests/data/models/smollm3/model.safetensors"],
        goldens: "tests/data/models/smollm3/goldens",
        reference: 0.0,
    },
    Case {
        name: "qwen2-Q8_0.gguf",
        files: &["tests/data/gguf/qwen2-Q8_0.gguf"],
        goldens: "tests/data/gguf/qwen2-Q8_0",
        reference: 0.0,
    },
    Case {
        name: "qwen2-untied-Q8_0.gguf",
        files: &["tests/data/gguf/qwen2-untied-Q8_0.gguf"],
        goldens: "tests/data/gguf/qwen2-untied-Q8_0",
        reference: 0.0,
    },
    Case {
        name: "mistral-nemo-Q4_0.gguf",
        files: &["tests/data/gguf/mistral-nemo-Q4_0.gguf"],
        goldens: "tests/data/gguf/mistral-nemo-Q4_0",
        reference: 0.0,
    },
    Case {
        name: "smollm3-Q4_0.gguf",
        files: &["tests/data/gguf/smollm3-Q4_0.gguf"],
        goldens: "tests/data/gguf/smollm3-Q4_0",
        reference: 0.0,
    },
    Case {
        name: "olmo2",
        files: &["tests/data/models/olmo2/config.json", "tests/data/models/olmo2/model.safetensors"],
        goldens: "tests/data/models/olmo2/goldens",
        reference: 0.0,
    },
    Case {
        name: "gemma2",
        files: &["tests/data/models/gemma2/config.json", "tests/data/models/gemma2/model.safetensors"],
        goldens: "tests/data/models/gemma2/goldens",
        reference: 0.0,
    },
    Case {
        name: "gemma3",
        files: &["tests/data/models/gemma3/config.json", "tests/data/models/gemma3/model.safetensors"],
        goldens: "tests/data/models/gemma3/goldens",
        reference: 0.0,
    },
    Case {
        name: "gemma2-g-Q8_0.gguf",
        files: &["tests/data/gguf/gemma2-g-Q8_0.gguf"],
        goldens: "tests/data/gguf/gemma2-g-Q8_0",
        // llama.cpp looks its GELU up in a table of half precision.
        reference: 7e-3,
    },
    Case {
        name: "gemma3-Q8_0.gguf",
        files: &["tests/data/gguf/gemma3-Q8_0.gguf"],
        goldens: "tests/data/gguf/gemma3-Q8_0",
        // llama.cpp looks its GELU up in a table of half precision.
        reference: 7e-3,
    },
    Case {
        name: "llama3-Q5_0.gguf",
        files: &["tests/data/gguf/llama3-Q5_0.gguf"],
        goldens: "tests/data/gguf/llama3-Q5_0",
        reference: 0.0,
    },
    Case {
        name: "kq-llama-Q2_K.gguf",
        files: &["tests/data/gguf/kq-llama-Q2_K.gguf"],
        goldens: "tests/data/gguf/kq-llama-Q2_K",
        reference: 0.0,
    },
    Case {
        name: "kq-llama-Q3_K_M.gguf",
        files: &["tests/data/gguf/kq-llama-Q3_K_M.gguf"],
        goldens: "tests/data/gguf/kq-llama-Q3_K_M",
        reference: 0.0,
    },
    Case {
        name: "kq-llama-Q4_K_M.gguf",
        files: &["tests/data/gguf/kq-llama-Q4_K_M.gguf"],
        goldens: "tests/data/gguf/kq-llama-Q4_K_M",
        reference: 0.0,
    },
    Case {
        name: "kq-llama-Q5_K_M.gguf",
        files: &["tests/data/gguf/kq-llama-Q5_K_M.gguf"],
        goldens: "tests/data/gguf/kq-llama-Q5_K_M",
        reference: 0.0,
    },
    Case {
        name: "kq-llama-Q6_K.gguf",
        files: &["tests/data/gguf/kq-llama-Q6_K.gguf"],
        goldens: "tests/data/gguf/kq-llama-Q6_K",
        reference: 0.0,
    },
    Case {
        name: "kq-llama-IQ4_XS.gguf",
        files: &["tests/data/gguf/kq-llama-IQ4_XS.gguf"],
        goldens: "tests/data/gguf/kq-llama-IQ4_XS",
        reference: 0.0,
    },
    Case {
        name: "phi3",
        files: &["tests/data/models/phi3/config.json", "tests/data/models/phi3/model.safetensors"],
        goldens: "tests/data/models/phi3/goldens",
        reference: 0.0,
    },
    Case {
        name: "llama2-spm (in shards)",
        files: &[
            "tests/data/models/llama2-spm/config.json",
            "tests/data/models/llama2-spm/model.safetensors.index.json",
            "tests/data/models/llama2-spm/model-00001-of-00002.safetensors",
            "tests/data/models/llama2-spm/model-00002-of-00002.safetensors",
        ],
        goldens: "tests/data/models/llama2-spm/goldens",
        reference: 0.0,
    },
    Case {
        name: "llama2-spm-Q8_0.gguf",
        files: &["tests/data/gguf/llama2-spm-Q8_0.gguf"],
        goldens: "tests/data/gguf/llama2-spm-Q8_0",
        reference: 0.0,
    },
    Case {
        name: "phi4-mini-Q8_0.gguf",
        files: &["tests/data/gguf/phi4-mini-Q8_0.gguf"],
        goldens: "tests/data/gguf/phi4-mini-Q8_0",
        // Its unquantised twin is as far from transformers: llama.cpp makes each frequency from the one before it.
        reference: 2e-5,
    },
    Case {
        name: "phi3-g-Q8_0.gguf",
        files: &["tests/data/gguf/phi3-g-Q8_0.gguf"],
        goldens: "tests/data/gguf/phi3-g-Q8_0",
        reference: 0.0,
    },
    Case {
        name: "lfm2",
        files: &["tests/data/models/lfm2/config.json", "tests/data/models/lfm2/model.safetensors"],
        goldens: "tests/data/models/lfm2/goldens",
        reference: 0.0,
    },
    Case {
        name: "lfm2-Q4_0.gguf",
        files: &["tests/data/gguf/lfm2-Q4_0.gguf"],
        goldens: "tests/data/gguf/lfm2-Q4_0",
        reference: 0.0,
    },
    Case {
        name: "mixtral",
        files: &["tests/data/models/mixtral/config.json", "tests/data/models/mixtral/model.safetensors"],
        goldens: "tests/data/models/mixtral/goldens",
        reference: 0.0,
    },
    Case {
        name: "mixtral-Q4_0.gguf",
        files: &["tests/data/gguf/mixtral-Q4_0.gguf"],
        goldens: "tests/data/gguf/mixtral-Q4_0",
        reference: 0.0,
    },
    Case {
        name: "qwen3moe",
        files: &["tests/data/models/qwen3moe/config.json", "tests/data/models/qwen3moe/model.safetensors"],
        goldens: "tests/data/models/qwen3moe/goldens",
        reference: 0.0,
    },
    Case {
        name: "qwen3moe-Q4_0.gguf",
        files: &["tests/data/gguf/qwen3moe-Q4_0.gguf"],
        goldens: "tests/data/gguf/qwen3moe-Q4_0",
        reference: 0.0,
    },
    Case {
        name: "gpt-oss",
        files: &["tests/data/models/gpt-oss/config.json", "tests/data/models/gpt-oss/model.safetensors"],
        goldens: "tests/data/models/gpt-oss/goldens",
        reference: 0.0,
    },
    Case {
        name: "gpt-oss-g-MXFP4_MOE.gguf",
        files: &["tests/data/gguf/gpt-oss-g-MXFP4_MOE.gguf"],
        goldens: "tests/data/gguf/gpt-oss-g-MXFP4_MOE",
        reference: 0.0,
    },
    Case {
        name: "llama4",
        files: &["tests/data/models/llama4/config.json", "tests/data/models/llama4/model.safetensors"],
        goldens: "tests/data/models/llama4/goldens",
        reference: 0.0,
    },
    Case {
        name: "llama4-g-Q4_0.gguf",
        files: &["tests/data/gguf/llama4-g-Q4_0.gguf"],
        goldens: "tests/data/gguf/llama4-g-Q4_0",
        reference: 0.0,
    },
    Case {
        name: "deepseek-v2",
        files: &["tests/data/models/deepseek-v2/config.json", "tests/data/models/deepseek-v2/model.safetensors"],
        goldens: "tests/data/models/deepseek-v2/goldens",
        reference: 0.0,
    },
    Case {
        name: "deepseek-v3",
        files: &["tests/data/models/deepseek-v3/config.json", "tests/data/models/deepseek-v3/model.safetensors"],
        goldens: "tests/data/models/deepseek-v3/goldens",
        reference: 0.0,
    },
    Case {
        name: "qwen3-next",
        files: &["tests/data/models/qwen3-next/config.json", "tests/data/models/qwen3-next/model.safetensors"],
        goldens: "tests/data/models/qwen3-next/goldens",
        // It computes the rule chunk by chunk and is 2.5e-4 from its own float64 run.
        reference: 2e-5,
    },
    Case {
        name: "deepseek-v3-Q4_0.gguf",
        files: &["tests/data/gguf/deepseek-v3-Q4_0.gguf"],
        goldens: "tests/data/gguf/deepseek-v3-Q4_0",
        reference: 0.0,
    },
];

/// A model whose rotations depend on the context that it is loaded for: the context, and the prompts of the goldens that
/// the reference computed with the rotations of that context.
pub const BY_CONTEXT: &[(usize, &[&str])] = &[(80, &["short", "mid"]), (81, &["long"]), (512, &["long"])];
/// See [`BY_CONTEXT`].
pub const LONGROPE: Case = Case {
    name: "phi4-mini",
    files: &["tests/data/models/phi4-mini/config.json", "tests/data/models/phi4-mini/model.safetensors"],
    goldens: "tests/data/models/phi4-mini/goldens",
    reference: 0.0,
};

/// A storage of the trained model, and how near its replies are to the reference's, which computes with the bf16 weights.
pub struct Trained {
    /// Shown in reports.
    pub name: &'static str,
    /// Its files, from the root of the project.
    pub files: &'static [&'static str],
    /// What storing the weights so may add to the error of a top logit.
    pub logits: f32,
    /// Replies are compared where the reference's least margin is above this.
    pub margin: f32,
}

/// The model that ships with the package.
pub const TINY_ASSISTANT: &[Trained] = &[
    Trained {
        name: "tiny-assistant",
        files: &["www/models/tiny-assistant/config.json", "www/models/tiny-assistant/model.safetensors"],
        logits: 0.0,
        margin: 0.0,
    },
    Trained {
        name: "tiny-assistant-q8_0.gguf",
        files: &["www/models/tiny-assistant/tiny-assistant-q8_0.gguf"],
        logits: 0.1,
        margin: 0.1,
    },
    Trained {
        name: "tiny-assistant-q4_0.gguf",
        files: &["www/models/tiny-assistant/tiny-assistant-q4_0.gguf"],
        logits: 1.0,
        margin: 1.0,
    },
];
