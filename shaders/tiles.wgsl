// Products by tiles, for a workgroup of 128: 32 rows of x by 64 rows of w, staged in workgroup memory 32 columns at a time.
//
// Four rows stand side by side, so that a result of 4 x 4 takes two loads a column. A vector is always written whole, by
// one invocation: writes to components of one vector may overwrite each other.
const TILE_X = 32u;
const TILE_W = 64u;
const TILE_C = 32u;

var<workgroup> tile_x: array<array<vec4<f32>, TILE_X / 4u>, TILE_C>;   // (column, four rows of x)
var<workgroup> tile_w: array<array<vec4<f32>, TILE_W / 4u>, TILE_C>;   // (column, four rows of w)

// Eight columns from 8 * eight on of the four rows 4 * quad to 4 * quad + 3.
fn stage_w(quad: u32, eight: u32, a: Weights8, b: Weights8, c: Weights8, d: Weights8) {
    for (var i = 0u; i < 4u; i++) {
        tile_w[eight * 8u + i][quad] = vec4(a.lo[i], b.lo[i], c.lo[i], d.lo[i]);
        tile_w[eight * 8u + 4u + i][quad] = vec4(a.hi[i], b.hi[i], c.hi[i], d.hi[i]);
    }
}

fn stage_x(quad: u32, eight: u32, a: Weights8, b: Weights8, c: Weights8, d: Weights8) {
    for (var i = 0u; i < 4u; i++) {
        tile_x[eight * 8u + i][quad] = vec4(a.lo[i], b.lo[i], c.lo[i], d.lo[i]);
        tile_x[eight * 8u + 4u + i][quad] = vec4(a.hi[i], b.hi[i], c.hi[i], d.hi[i]);
    }
}

// Adds the products of what is staged to 4 x 4 results (t, r).
fn add_tile(acc: ptr<function, array<vec4<f32>, 4>>, lane_t: u32, lane_r: u32) {
    for (var c = 0u; c < TILE_C; c++) {
        let w = tile_w[c][lane_r / 4u];
        let x4 = tile_x[c][lane_t / 4u];
        (*acc)[0] += x4.x * w;
        (*acc)[1] += x4.y * w;
        (*acc)[2] += x4.z * w;
        (*acc)[3] += x4.w * w;
    }
}
