// Float rows to plane 0: words are copied, rows go to `first_row + row * row_step`. One invocation copies one word.
struct Params { words_per_row: u32, rows: u32, first_row: u32, row_step: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> raw: array<u32>;              // (rows, words_per_row)
@group(0) @binding(2) var<storage, read_write> plane0: array<u32>;
@group(0) @binding(3) var<storage, read_write> plane1: array<atomic<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let word = id.y * grid.x * 64u + id.x;
    if (word >= params.rows * params.words_per_row) { return; }
    let row = params.first_row + word / params.words_per_row * params.row_step;
    plane0[row * params.words_per_row + word % params.words_per_row] = raw[word];
}
