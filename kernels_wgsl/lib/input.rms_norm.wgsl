// input rms_norm: the row times norm_weight; 1 / rms is applied to the products
// binding 2 norm_weight read array<vec4<f32>> [COLS / 4]
// binding 3 x           read array<vec4<f32>> [rows][COLS / 4]
// why     Saves a dispatch a norm: a sum of squares is cheap beside the launch of a kernel.

override EPS: f32;

@group(0) @binding(2) var<storage, read> norm_weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;

var<private> input_squares: f32;  // sum of the squares of what this thread has asked for

fn input_prepare(row: u32, t: u32) {
}

fn input_at(row: u32, quad: u32) -> vec4<f32> {
  let value = x[row * (COLS / 4u) + quad];
  input_squares += dot(value, value);
  return value * norm_weight[quad];
}

// What the products are multiplied with, from the sum of squares of the whole row: 1 / rms.
fn input_scale(squares: f32) -> f32 {
  return inverseSqrt(squares / f32(COLS) + EPS);
}
