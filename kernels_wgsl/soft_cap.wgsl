// soft_cap: y[r, n] = CAP tanh(y[r, n] / CAP)
// binding 0 y read_write array<f32> [rows][COLS]
// grid    COLS / 256, rows
// uses    cap
// why     The order of logits stays, their distances do not: sampling needs them. COLS, the vocabulary, may be odd.

override COLS: u32;

@group(0) @binding(0) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < COLS) {
    let at = id.y * COLS + id.x;
    y[at] = capped(vec4<f32>(y[at])).x;
  }
}
