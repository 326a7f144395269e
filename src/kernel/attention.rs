//! Attention over pages, and what prepares queries, keys and values for it.

use super::{Buffer, Context, Extent, Kernel, Launch, NO_WEIGHT, Teams, Use, word};
use crate::gpu::stage::{Norm, Place};
use crate::graph::{Attention, RopeId, RopePairs, Temperature};

pub(super) const ROPE_STORE: Kernel = Kernel {
    name: "rope_store",
    source: wgsl!("rope_store.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Write, Use::Write],
    reduces: Some(Teams::Workgroup),
    kv: true,
    ..Kernel::PLAIN
};

pub(super) const ATTENTION: Kernel = Kernel {
    name: "attention",
    source: wgsl!("attention.wgsl"),
    bindings: &[Use::Uniform, Use::Read, Use::Read, Use::Read, Use::Write, Use::Write],
    reduces: Some(Teams::Workgroup),
    kv: true,
    sees: true,
    ..Kernel::PLAIN
};

pub(super) const ATTENTION_SHARED: Kernel =
    Kernel { name: "attention_shared", source: wgsl!("attention_shared.wgsl"), ..ATTENTION };

/// Largest head that the kernels stage in workgroup memory, in elements.
pub(crate) const MAX_HEAD_DIM: usize = 1024;

/// Norms and rotation of queries and keys, keys and values into their pages.
pub(super) fn rope_store(
    spec: &Attention,
    [q, k, v]: [Place; 3],
    [q_norm, k_norm]: [Option<Norm>; 2],
    rope: Option<(RopeId, usize)>,
    context: &Context<'_>,
) -> Launch {
    let norm_offset = |norm: Option<Norm>| norm.map_or(0, |norm| context.norm_weight(norm));
    let norm_cols = |norm: Option<Norm>| norm.map_or(0, |norm| word(norm.cols));
    let eps = |norm: Option<Norm>| norm.map_or(0.0f32, |norm| norm.eps).to_bits();
    let encoding = rope.and_then(|(id, _)| context.rope(id));
    let value_dim = if spec.latent { 0 } else { spec.value_dim };
    let sizes = [spec.heads, spec.kv_heads, spec.head_dim, value_dim, q.stride, q.offset, k.offset, v.offset];
    let mut params = sizes.map(word).to_vec();
    params.extend([norm_offset(q_norm), norm_offset(k_norm), norm_cols(q_norm), norm_cols(k_norm)]);
    params.extend([eps(q_norm), eps(k_norm)]);
    params.extend([
        word(rope.map_or(0, |(id, _)| (context.rope_offset)(id))),
        word(encoding.map_or(0, |rope| rope.inv_freq.len())),
        word(rope.map_or(0, |(_, first)| first)),
        context.max_rows(),
    ]);
    let switch = |on: bool| f64::from(u8::from(on));
    Launch {
        kernel: &ROPE_STORE,
        weights: None,
        constants: vec![
            ("WG", context.teams.lanes(spec.head_dim / 2, 64)),
            ("Q_NORM", switch(q_norm.is_some())),
            ("K_NORM", switch(k_norm.is_some())),
            ("ADJACENT", switch(encoding.is_some_and(|rope| rope.pairs == RopePairs::Adjacent))),
        ],
        params,
        buffers: vec![
            Buffer::State,
            Buffer::Norms,
            Buffer::Ropes,
            Buffer::Activation(q.buffer),
            Buffer::Kv(spec.layer),
        ],
        grid_x: word(spec.heads + if spec.latent { 1 } else { 2 } * spec.kv_heads),
        grid_y: Extent::Rows(1),
    }
}

/// Query heads that share keys and values at most: the components of a vector.
const MOST_SHARED: usize = 4;

/// Invocations of a workgroup of shared heads, where values need no more, and keys that each of them scores before all meet.
const SHARED: (f64, f64) = (8.0, 8.0);

/// Query heads that share what a workgroup loads where waiting is dear. Elsewhere a head has a workgroup of its own, since that
/// fills a wide device.
fn shared(spec: &Attention) -> usize {
    let group = spec.heads / spec.kv_heads.max(1);
    let fits = |heads: &usize| group.is_multiple_of(*heads) && heads * spec.head_dim <= MAX_HEAD_DIM;
    (1..=MOST_SHARED).rev().find(fits).unwrap_or(1)
}

/// `softmax(scale * q K^T) V` for every query head of every row.
pub(super) fn attention(spec: &Attention, q: Place, y: Place, context: &Context<'_>) -> Launch {
    let sizes = [spec.heads, spec.kv_heads, spec.head_dim, spec.value_dim, q.stride, q.offset, y.offset, y.stride];
    let mut params = sizes.map(word).to_vec();
    let off = Temperature { floor: 1.0, scale: 0.0 };
    let temperature = spec.temperature.unwrap_or(off);
    params.extend([spec.scale, spec.softcap.unwrap_or(0.0), temperature.floor, temperature.scale].map(f32::to_bits));
    params.extend([word(spec.window.unwrap_or(0)), word(spec.chunk.unwrap_or(0))]);
    params.push(spec.sinks.map_or(NO_WEIGHT, |sinks| word((context.norm_offset)(sinks))));
    params.extend([spec.causal, spec.latent].map(u32::from));
    params.push(context.max_rows());
    // At most four rounds through the vectors of a value.
    let least = f64::from(word(spec.value_dim.div_ceil(16).next_power_of_two()));
    let (kernel, share, constants) = match context.teams {
        Teams::Workgroup => (&ATTENTION, 1, vec![("WG", context.teams.lanes(64, 64).max(least))]),
        Teams::Invocation => {
            let (lanes, share) = (SHARED.0.max(least), shared(spec));
            let rounds = (f64::from(word(spec.value_dim / 4)) / lanes).ceil();
            let numbers = [("WG", lanes), ("SHARE", f64::from(word(share))), ("KEYS", SHARED.1), ("ROUNDS", rounds)];
            (&ATTENTION_SHARED, share, numbers.to_vec())
        }
    };
    Launch {
        kernel,
        weights: None,
        constants,
        params,
        buffers: vec![
            Buffer::State,
            Buffer::Norms,
            Buffer::Activation(q.buffer),
            Buffer::Kv(spec.layer),
            Buffer::Activation(y.buffer),
        ],
        grid_x: word(spec.heads / share),
        grid_y: Extent::Rows(1),
    }
}
