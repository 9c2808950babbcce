// silu_mul: y[r, n] = silu(g[r, n]) * u[r, n]
// binding 0 x read       array<f32> [rows][tiles of 16][gate 16, up 16]
// binding 1 y read_write array<f32> [rows][COLS]
// grid    COLS / 256, rows
// why     Takes the order that the interleaved gate_up weight leaves behind.

override COLS: u32;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let n = id.x;
  if (n < COLS) {
    let gate = id.y * ((COLS + 15u) / 16u) * 32u + (n / 16u) * 32u + n % 16u;
    let g = x[gate];
    y[id.y * COLS + n] = g / (1.0 + exp(-g)) * x[gate + 16u];
  }
}
