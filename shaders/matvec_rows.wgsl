// y[t, r] = sum_c w[r, c] * x[t, c] for a few rows of activations, each with its additions in the order of matvec, so that
// a row has the same result as alone. One team makes four outputs of every row; a weight is decoded once for all.
//
// NORM, RESIDUAL, GLU, BIAS: see matvec.
override NORM: bool = false;
override RESIDUAL: bool = false;
override BIAS: bool = false;
override MOST: u32 = 8u;                                               // rows, at most; some devices compute what is masked out

struct Params {
    rows: u32, cols: u32, x_offset: u32, y_offset: u32, norm_offset: u32, eps: f32, bias_offset: u32,
    x_stride: u32, y_stride: u32, max_rows: u32,
}

@group(1) @binding(0) var<uniform> params: Params;
@group(1) @binding(1) var<storage, read> state: array<u32>;
@group(1) @binding(2) var<storage, read> x: array<vec4<f32>>;          // (T, cols) from x_offset, rows x_stride apart
@group(1) @binding(3) var<storage, read> norms: array<vec4<f32>>;      // g: (cols) from norm_offset, bias: (rows)
@group(1) @binding(4) var<storage, read_write> y: array<f32>;          // (T, rows) from y_offset, rows y_stride apart

// What one row has of four outputs, and of its mean square.
struct Part { sums: vec4<f32>, square: f32 }

struct Weights4 { r0: Weights8, r1: Weights8, r2: Weights8, r3: Weights8 }

fn part(t: u32, group: u32, w: Weights4, g: Weights8) -> Part {
    let at = (params.x_offset + t * params.x_stride) / 4u + group * 2u;
    let x8 = columns8(Weights8(x[at], x[at + 1u]), (group + 1u) * 8u == params.cols);
    var x0 = x8.lo;
    var x1 = x8.hi;
    var square = 0.0;
    if (NORM) {
        square = dot(x0, x0) + dot(x1, x1);
        x0 *= g.lo;
        x1 *= g.hi;
    }
    let sums = vec4(
        dot(w.r0.lo, x0) + dot(w.r0.hi, x1),
        dot(w.r1.lo, x0) + dot(w.r1.hi, x1),
        dot(w.r2.lo, x0) + dot(w.r2.hi, x1),
        dot(w.r3.lo, x0) + dot(w.r3.hi, x1),
    );
    return Part(sums, square);
}

fn add(a: Part, b: Part) -> Part {
    return Part(a.sums + b.sums, a.square + b.square);
}

@compute @workgroup_size(SIZE)
fn main(lane: Lane, @builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let row0 = team(lane, workgroup.y * grid.x + workgroup.x) * 4u;
    if (row0 >= params.rows) { return; }
    let tokens = min(state[params.max_rows], MOST);
    let last = params.rows - 1u;
    let row1 = min(row0 + 1u, last);
    let row2 = min(row0 + 2u, last);
    let row3 = min(row0 + 3u, last);
    let groups = params.cols / 8u;
    // A variable a row, not an array: some compilers keep those in memory.
    var p0 = Part();
    var p1 = Part();
    var p2 = Part();
    var p3 = Part();
    var p4 = Part();
    var p5 = Part();
    var p6 = Part();
    var p7 = Part();
    for (var group = member(lane); group < groups; group += WG) {
        let w = Weights4(weights8(row0, group), weights8(row1, group), weights8(row2, group), weights8(row3, group));
        var g = Weights8(vec4(1.0), vec4(1.0));
        if (NORM) {
            let at = params.norm_offset / 4u + group * 2u;
            g = Weights8(norms[at], norms[at + 1u]);
        }
        p0 = add(p0, part(0u, group, w, g));
        if (tokens > 1u) { p1 = add(p1, part(1u, group, w, g)); }
        if (MOST > 2u && tokens > 2u) { p2 = add(p2, part(2u, group, w, g)); }
        if (MOST > 2u && tokens > 3u) { p3 = add(p3, part(3u, group, w, g)); }
        if (MOST > 4u && tokens > 4u) { p4 = add(p4, part(4u, group, w, g)); }
        if (MOST > 4u && tokens > 5u) { p5 = add(p5, part(5u, group, w, g)); }
        if (MOST > 4u && tokens > 6u) { p6 = add(p6, part(6u, group, w, g)); }
        if (MOST > 4u && tokens > 7u) { p7 = add(p7, part(7u, group, w, g)); }
    }
    reduce_put(0u, p0.sums, lane);
    if (tokens > 1u) { reduce_put(1u, p1.sums, lane); }
    if (MOST > 2u && tokens > 2u) { reduce_put(2u, p2.sums, lane); }
    if (MOST > 2u && tokens > 3u) { reduce_put(3u, p3.sums, lane); }
    if (MOST > 4u && tokens > 4u) { reduce_put(4u, p4.sums, lane); }
    if (MOST > 4u && tokens > 5u) { reduce_put(5u, p5.sums, lane); }
    if (MOST > 4u && tokens > 6u) { reduce_put(6u, p6.sums, lane); }
    if (MOST > 4u && tokens > 7u) { reduce_put(7u, p7.sums, lane); }
    var count = tokens;
    if (NORM) {
        // The squares come after the sums, those of four rows in a vector.
        reduce_put(tokens, vec4(p0.square, p1.square, p2.square, p3.square), lane);
        count += 1u;
        if (MOST > 4u && tokens > 4u) {
            reduce_put(tokens + 1u, vec4(p4.square, p5.square, p6.square, p7.square), lane);
            count += 1u;
        }
    }
    reduce_many(count, lane);

    // Outputs of all rows by turns, with GLU two rows of the matrix an output.
    let outputs = select(4u, 2u, GLU != 0u);
    for (var o = member(lane); o < tokens * outputs; o += WG) {
        let t = o / outputs;
        let i = o % outputs;
        var scale = 1.0;
        if (NORM) {
            let cols = params.cols - select(0u, 8u - TAIL, TAIL != 0u);
            scale = 1.0 / sqrt(reduce_get(tokens + t / 4u, t % 4u, lane) / f32(cols) + params.eps);
        }
        let y_row = params.y_offset + t * params.y_stride;
        if (GLU != 0u) {
            if (row0 + i * 2u < params.rows) {
                let gate = reduce_get(t, i * 2u, lane) * scale;
                let up = reduce_get(t, i * 2u + 1u, lane) * scale;
                y[y_row + row0 / 2u + i] = glu(gate, up);
            }
        } else if (row0 + i < params.rows) {
            let at = y_row + row0 + i;
            var result = reduce_get(t, i, lane);
            if (NORM) { result *= scale; }
            if (BIAS) {
                let b = params.bias_offset + row0 + i;
                result += norms[b / 4u][b % 4u];
            }
            if (RESIDUAL) { result += y[at]; }
            y[at] = result;
        }
    }
}
