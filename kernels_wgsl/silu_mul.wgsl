// silu_mul: y[r, n] = silu(g[r, n]) * u[r, n]
// binding 0 x read       array<f32> [rows][COLS / TILE][gate TILE, up TILE]
// binding 1 y read_write array<f32> [rows][COLS]
// grid    COLS / 256, rows
// why     Takes the order that the gate_up weight leaves behind: alternating tiles of 16, or one tile where it is stacked.

override COLS: u32;
override TILE: u32;  // 16 or COLS

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let n = id.x;
  if (n < COLS) {
    let tiles = (COLS + TILE - 1u) / TILE;
    let gate = (id.y * tiles + n / TILE) * 2u * TILE + n % TILE;
    let g = x[gate];
    y[id.y * COLS + n] = g / (1.0 + exp(-g)) * x[gate + TILE];
  }
}
