//! Mixtures of experts in place of the gated feed-forward (Shazeer et al., arXiv 1701.06538): their hyperparameters in both
//! dialects, and their computation, written once for all families.

use super::hyper::{Key, malformed, unsupported};
use super::{Hyper, decoder};
use crate::error::Result;
use crate::format::{Dialect, Metadata};
use crate::graph::{Activation, Builder, GroupScore, Groups, RouterScore, Routing, ValueId};

/// What a mixture of experts is described by.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// How a token's experts are chosen.
    pub routing: Routing,
    /// Width inside one expert.
    pub ffn_dim: usize,
    /// Width inside the experts that every token goes through, all of them together; 0 for none.
    pub shared_dim: usize,
    /// Whether what those give goes through a gate of one number a token.
    pub shared_gate: bool,
    /// Whether the route's weights go on what experts are given, before their gates, and not on what they give.
    pub weighs_input: bool,
}

/// What a family means where its files say nothing, and whether it has what files may ask for.
pub(super) struct Family {
    /// How scores become weights.
    pub score: RouterScore,
    /// Whether weights are divided by their sum.
    pub normalise: bool,
    /// Whether every token goes through shared experts.
    pub shared: bool,
}

/// The hub has several names for most of these; where a file has two, they must agree.
const COUNT: &[Key<u64>] = &[
    Key::new("expert_count", "num_experts", 1, 1024),
    Key::new("", "num_local_experts", 1, 1024),
    Key::new("", "n_routed_experts", 1, 1024),
];
const USED: &[Key<u64>] =
    &[Key::new("expert_used_count", "num_experts_per_tok", 1, 64), Key::new("", "experts_per_token", 1, 64)];
const FFN_DIM: Key<u64> = Key::new("expert_feed_forward_length", "moe_intermediate_size", 8, 1 << 16);
const SHARED: Key<u64> = Key::new("expert_shared_count", "n_shared_experts", 0, 64);
const GROUPS: Key<u64> = Key::new("expert_group_count", "n_group", 0, 1024);
const GROUPS_USED: Key<u64> = Key::new("expert_group_used_count", "topk_group", 0, 1024);
const SCALE: Key<f64> = Key::new("expert_weights_scale", "routed_scaling_factor", 0.0, 1e6);
const GATING: Key<u64> = Key::new("expert_gating_func", "", 0, 64);
const NORMALISE: [&str; 2] = ["expert_weights_norm", "norm_topk_prob"];
const SCORING: &str = "scoring_func";
const METHOD: &str = "topk_method";

/// The value that any of the keys has.
fn any(keys: &[Key<u64>], metadata: &Metadata) -> Result<Option<usize>> {
    let mut found: Option<(String, usize)> = None;
    for key in keys {
        match (key.get(metadata)?, &found) {
            (Some(value), Some((name, other))) if value != *other => {
                return Err(malformed(key.name(metadata), format!("{value}, where {name} is {other}")));
            }
            (Some(value), None) => found = Some((key.name(metadata), value)),
            _ => {}
        }
    }
    Ok(found.map(|(_, value)| value))
}

/// The same, of which one must be there.
fn need(keys: &[Key<u64>], metadata: &Metadata) -> Result<usize> {
    let missing = || malformed(keys.first().map(|key| key.name(metadata)).unwrap_or_default(), "the key is missing");
    any(keys, metadata)?.ok_or_else(missing)
}

/// Whether a GGUF file says that there are experts, in families whose files may have none.
pub(super) fn declared(metadata: &Metadata) -> Result<bool> {
    let count = metadata.integer(&format!("{}.expert_count", metadata.architecture))?;
    Ok(count.is_some_and(|count| count > 0))
}

impl Experts {
    /// Reads what describes a mixture; `ffn_dim` is the width of an expert where the files give it no key of its own.
    ///
    /// Fails with `MalformedModel` naming the key where numbers do not fit together, with `UnsupportedFormat` where a
    /// setting asks for mathematics that is not here.
    pub(super) fn read(metadata: &Metadata, ffn_dim: usize, family: &Family) -> Result<Self> {
        let ffn_dim = FFN_DIM.get(metadata)?.unwrap_or(ffn_dim);
        let shared = SHARED.get(metadata)?.unwrap_or(0);
        if shared > 0 && !family.shared {
            return Err(unsupported(SHARED.name(metadata), format!("{shared} is not supported")));
        }
        let [gguf, hub] = NORMALISE;
        let normalise = match metadata.dialect {
            Dialect::Gguf => metadata.boolean(&format!("{}.{gguf}", metadata.architecture))?,
            Dialect::Hub => metadata.boolean(hub)?,
        };
        let routing = Routing {
            experts: need(COUNT, metadata)?,
            used: need(USED, metadata)?,
            score: score(metadata)?.unwrap_or(family.score),
            groups: groups(metadata)?,
            normalise: normalise.unwrap_or(family.normalise),
            // GGUF writes 0 where there is none.
            scale: SCALE.get(metadata)?.filter(|scale| *scale != 0.0).map_or(1.0, |scale| scale as f32),
        };
        let keys = if (Routing { groups: None, ..routing }).problem().is_some() { USED } else { &[GROUPS] };
        match (routing.problem(), keys.first()) {
            (Some(problem), Some(key)) => Err(malformed(key.name(metadata), problem)),
            _ => Ok(Self {
                routing,
                ffn_dim,
                shared_dim: shared.saturating_mul(ffn_dim),
                shared_gate: false,
                weighs_input: false,
            }),
        }
    }
}

/// How scores become weights, where the files say so.
fn score(metadata: &Metadata) -> Result<Option<RouterScore>> {
    if metadata.dialect == Dialect::Gguf {
        return match GATING.get(metadata)? {
            None | Some(0) => Ok(None),
            Some(1) => Ok(Some(RouterScore::Softmax)),
            Some(2) => Ok(Some(RouterScore::Sigmoid)),
            Some(3) => Ok(Some(RouterScore::SoftmaxOfChosen)),
            Some(other) => Err(unsupported(GATING.name(metadata), format!("{other} is not supported"))),
        };
    }
    match metadata.text(SCORING)? {
        None => Ok(None),
        Some("softmax") => Ok(Some(RouterScore::Softmax)),
        Some("sigmoid") => Ok(Some(RouterScore::Sigmoid)),
        Some(other) => Err(unsupported(SCORING, format!("{other} is not supported"))),
    }
}

/// Groups of experts, where there are several. llama.cpp ranks them by their two best, whatever the model.
fn groups(metadata: &Metadata) -> Result<Option<Groups>> {
    let by = match metadata.text(METHOD)? {
        None | Some("noaux_tc") => GroupScore::TwoBest,
        Some("group_limited_greedy") => GroupScore::Best,
        Some("greedy") => return Ok(None),
        Some(other) => return Err(unsupported(METHOD, format!("{other} is not supported"))),
    };
    match GROUPS.get(metadata)?.filter(|count| *count > 1) {
        Some(count) => Ok(Some(Groups { count, used: GROUPS_USED.need(metadata)?, by })),
        None => Ok(None),
    }
}

/// The experts' part of a layer's output from the normed stream `x (tokens, dim)`: the sum over the chosen ones.
pub(super) fn mixture(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId, experts: &Experts) -> ValueId {
    let named = |part: &str| format!("blk.{layer}.{part}");
    let Experts { routing, ffn_dim, weighs_input, .. } = *experts;
    let scores = decoder::linear(h, g, &named("ffn_gate_inp"), x, routing.experts);
    let bias = named("exp_probs_b.bias");
    let bias = h.biases.contains(&bias).then(|| g.vector(bias, routing.experts));
    let route = g.route(named("ffn_route"), scores, routing, bias);
    let product = |g: &mut Builder, part: &str, x, rows: usize, cols: usize, weighted| {
        let (name, count) = (named(part), routing.experts);
        let weight = g.matrices(format!("{name}.weight"), count, rows, cols);
        let bias = format!("{name}.bias");
        let bias = h.biases.contains(&bias).then(|| g.table(bias, count, rows));
        g.expert_matmul(name, x, Some(route), (weight, bias), weighted)
    };
    let gate = product(g, "ffn_gate_exps", x, ffn_dim, h.dim, weighs_input);
    let up = product(g, "ffn_up_exps", x, ffn_dim, h.dim, weighs_input);
    let hidden = g.glu(named("ffn_glu"), gate, up, h.activation);
    let down = product(g, "ffn_down_exps", hidden, h.dim, ffn_dim, !weighs_input);
    g.sum_parts(named("ffn_moe"), down, routing.used)
}

/// Norm, mixture of experts (and those that every token goes through), and the sum with the residual stream. The sums come
/// last, when nobody reads the stream any more, so that products may be added to it in place.
pub(super) fn feed_forward(h: &Hyper, g: &mut Builder, layer: usize, x: ValueId, experts: &Experts) -> ValueId {
    let named = |part: &str| format!("blk.{layer}.{part}");
    let normed = decoder::norm(h, g, &named("ffn_norm"), x, 1);
    if experts.shared_dim == 0 {
        let routed = mixture(h, g, layer, normed, experts);
        return g.add(named("ffn_residual"), x, routed);
    }
    let mut shared = decoder::gated_part(h, g, layer, normed, "_shexp", experts.shared_dim);
    if experts.shared_gate {
        let gate = decoder::linear(h, g, &named("ffn_gate_inp_shexp"), normed, 1);
        shared = g.glu(named("ffn_shexp"), gate, shared, Activation::Sigmoid);
    }
    let routed = mixture(h, g, layer, normed, experts);
    let stream = g.add(named("ffn_moe_residual"), x, routed);
    g.add(named("ffn_residual"), stream, shared)
}
