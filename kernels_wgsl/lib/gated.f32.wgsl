// gated f32: the outputs of matvec_glu as they are
// binding 4 y read_write array<f32> [rows][STRIDE]

@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn put(row: u32, n: u32, t: u32, value: f32) {
  if (t < PER && n < ROWS) {
    y[row * STRIDE + OFFSET + n] = value;
  }
}
