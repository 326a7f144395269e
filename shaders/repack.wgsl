// Raw blocks of a file to the two planes that quant/<format>.wgsl reads: of each block one range of bytes goes to plane
// 0, all others, in their order, to plane 1. One invocation moves one block. Plane 0 has whole words of each block; in
// plane 1 blocks share words and may come from different uploads: it starts at zero and is or-ed.
//
// `nibble_span`, where not 0: of each run of so many bytes the low nibbles are the first weights and the high nibbles
// the next. They are regrouped, eight consecutive weights to a word: byte j of a word holds weight j (low nibble) and
// weight j + 4 (high nibble).
struct Params {
    blocks_per_row: u32, rows: u32, first_row: u32, row_step: u32,
    block_bytes: u32, first_at: u32, first_bytes: u32, nibble_span: u32,
    row_bytes: u32,                                                    // of a row of `raw`; the rest of its blocks is zero
    shared_rows: u32, shared_blocks: u32, runs: u32,                   // blocks with one entry in plane 1 (Shared)
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> raw: array<u32>;              // (rows, blocks_per_row) blocks
@group(0) @binding(2) var<storage, read_write> plane0: array<u32>;
@group(0) @binding(3) var<storage, read_write> plane1: array<atomic<u32>>;

fn raw_word(at: u32) -> u32 {                                          // 4 bytes at any offset
    let shift = (at & 3u) * 8u;
    if (shift == 0u) { return raw[at / 4u]; }
    return (raw[at / 4u] >> shift) | (raw[at / 4u + 1u] << (32u - shift));
}

fn before(end: u32, at: u32) -> u32 {                                  // ones for the bytes of a word that lie before `end`
    let bytes = max(end, at) - at;
    if (bytes >= 4u) { return 0xffffffffu; }
    return (1u << (bytes * 8u)) - 1u;
}

fn regrouped(at: u32, word: u32) -> u32 {                              // word `word` of the nibbles from `at` on
    let words = params.nibble_span / 4u;                               // of a run; half of them are low nibbles
    let group = word % words;
    let start = at + (word - group + group % (words / 2u) * 2u) * 4u;
    let shift = group / (words / 2u) * 4u;
    return ((raw_word(start) >> shift) & 0x0f0f0f0fu) | (((raw_word(start + 4u) >> shift) & 0x0f0f0f0fu) << 4u);
}

fn rest(to: u32, at: u32, count: u32) {                                // `count` bytes from `at` to byte `to` of plane 1
    for (var i = 0u; i < count; i += 4u) {
        let bits = min(4u, count - i) * 8u;
        let word = raw_word(at + i) & (0xffffffffu >> (32u - bits));
        let shift = ((to + i) & 3u) * 8u;
        atomicOr(&plane1[(to + i) / 4u], word << shift);
        if (shift + bits > 32u) { atomicOr(&plane1[(to + i) / 4u + 1u], word >> (32u - shift)); }
    }
}

// The head of a block of a run (src/quant/runs.rs) to the entry of its row, and the byte behind it to the window's bytes.
fn run(row: u32, block: u32, at: u32) {
    let scales = 64u * params.blocks_per_row / 256u + 2u;
    let window = row / 64u * (2u * (2u + scales) + 16u * params.blocks_per_row);
    let entry = window + row % 2u * (2u + scales);
    let step = 2u / params.row_step;                                   // rows of the tensor from one of the entry to the next
    let earlier = row % 64u / 2u * step * params.blocks_per_row + block;
    let tail = raw_word(at + 8u);                                      // place, then the byte
    let first = (tail - earlier) & 0xffu;
    atomicOr(&plane1[entry], raw_word(at));
    atomicOr(&plane1[entry + 1u], first | (step << 8u));
    atomicOr(&plane1[entry + 2u + (first + earlier) / 256u], raw_word(at + 4u));
    let byte = row % 64u * params.blocks_per_row + block;
    atomicOr(&plane1[window + 2u * (2u + scales) + byte / 4u], ((tail >> 8u) & 0xffu) << (byte % 4u * 8u));
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let source = id.y * grid.x * 64u + id.x;
    if (source >= params.rows * params.blocks_per_row) { return; }
    let row = params.first_row + source / params.blocks_per_row * params.row_step;
    let block = row * params.blocks_per_row + source % params.blocks_per_row;
    let in_row = source % params.blocks_per_row * params.block_bytes;
    let at = source / params.blocks_per_row * params.row_bytes + in_row;
    let first = at + params.first_at;
    let row_end = at - in_row + params.row_bytes;
    let words = params.first_bytes / 4u;
    for (var i = 0u; i < words; i++) {
        if (params.nibble_span == 0u) {
            plane0[block * words + i] = raw_word(first + i * 4u) & before(row_end, first + i * 4u);
        } else {
            plane0[block * words + i] = regrouped(first, i);
        }
    }
    if (params.runs != 0u) {
        run(row, source % params.blocks_per_row, at);
        return;
    }
    let rest_bytes = params.block_bytes - params.first_bytes;
    let after = params.first_at + params.first_bytes;
    // Blocks that share an entry have the same bytes, so that it does not matter how many of them write it.
    let entry_row = select(row, row / 16u * 2u + row % 2u, params.shared_rows != 0u);
    let row_entries = (params.blocks_per_row + params.shared_blocks - 1u) / params.shared_blocks;
    let entry = entry_row * row_entries + source % params.blocks_per_row / params.shared_blocks;
    rest(entry * rest_bytes, at, params.first_at);
    rest(entry * rest_bytes + params.first_at, at + after, params.block_bytes - after);
}
