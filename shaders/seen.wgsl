// What kernels of attention share: their numbers and buffers, which positions a row sees, and where these are.
//
// y = softmax(cap(scale * q K^T)) V over the positions that the row sees: those of its sequence up to its own (or all of
// them where it is not causal), less than `window` away, in its own chunk. cap(s) = softcap * tanh(s / softcap). A sink is
// a score that takes part in the softmax and stands for no value.
struct Params {
    heads: u32, kv_heads: u32, head_dim: u32, value_dim: u32, stride: u32, q_offset: u32, y_offset: u32, y_stride: u32,
    scale: f32, softcap: f32, temperature_floor: f32, temperature: f32,
    window: u32, chunk: u32, sinks_offset: u32, causal: u32, latent: u32, max_rows: u32, // softcap, window, chunk: 0 is none
}

const NO_WEIGHT = 0xffffffffu;

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> vectors: array<f32>;          // sinks: (heads) from sinks_offset
@group(1) @binding(3) var<storage, read> qkv: array<vec4<f32>>;        // (T, stride)
@group(1) @binding(4) var<storage, read_write> kv: array<u32>;         // the layer's pages
@group(1) @binding(5) var<storage, read_write> y: array<vec4<f32>>;    // (T, heads * value_dim), rows y_stride apart

const PAGE = 32u;
const MAX_HEAD4 = 256u;                                                // a head of 1024 elements


var<workgroup> query: array<vec4<f32>, MAX_HEAD4>;

// The positions from `begin` on, below `end`; where the table of their pages is; the factor of the row's scores.
struct Seen { begin: u32, end: u32, pages: u32, scale: f32 }

fn seen_by(row: u32) -> Seen {
    let m = params.max_rows;
    let own = state[m + 8u + row];
    let pages = state[m + 8u + m + row];
    var end = own + 1u;
    // The length of a sequence stands before its page table.
    if (params.causal == 0u) { end = min(state[pages - 1u], select(own + params.window, 0xffffffffu, params.window == 0u)); }
    var begin = select(0u, own + 1u - min(own + 1u, params.window), params.window > 0u);
    if (params.chunk > 0u) { begin = max(begin, own / params.chunk * params.chunk); }
    let steps = floor(f32(own + 1u) / params.temperature_floor);
    return Seen(begin, end, pages, params.scale * (1.0 + params.temperature * log(1.0 + steps)));
}

// Where the key and the value of a position start.
struct Place { key: u32, value: u32 }

fn place_of(position: u32, pages: u32, kv_head: u32) -> Place {
    let latent = params.latent != 0u;
    let key_words = kv_words(params.head_dim);                         // of one head; of all of a position's below
    let value_words = select(kv_words(params.value_dim), 0u, latent);
    let position_keys = params.kv_heads * key_words;
    let position_values = params.kv_heads * value_words;
    let page = state[pages + position / PAGE] * PAGE * (position_keys + position_values);
    let key = page + (position % PAGE) * position_keys + kv_head * key_words;
    // Values follow the keys of their page, or are the beginning of the key.
    let value = page + PAGE * position_keys + (position % PAGE) * position_values + kv_head * value_words;
    return Place(key, select(value, key, latent));
}

// Elements of a head that its values are read from.
fn value_head() -> u32 { return select(params.value_dim, params.head_dim, params.latent != 0u); }

fn capped(score: f32) -> f32 {
    if (params.softcap == 0.0) { return score; }
    return params.softcap * tanh(clamp(score / params.softcap, -20.0, 20.0));
}
