// bias add: one number an output
// binding 5 bias read array<f32> [rows of the whole matrix]

@group(0) @binding(5) var<storage, read> bias: array<f32>;

fn bias_at(n: u32) -> f32 {
  return bias[n];
}
