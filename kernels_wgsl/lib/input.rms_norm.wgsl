// input rms_norm: the row times norm_weight, in workgroup memory; 1 / rms is applied to the products
// binding 2 norm_weight read array<vec4<f32>> [COLS / 4]
// why     Saves a dispatch a norm: a sum of squares is cheap beside the launch of a kernel.

override EPS: f32;
override QUADS: u32;  // COLS / 4 rounded up to 8; a workgroup array takes a bare override only

@group(0) @binding(2) var<storage, read> norm_weight: array<vec4<f32>>;

var<workgroup> input_row: array<vec4<f32>, QUADS>;

// Returns this thread's share of the row's sum of squares. Holds a barrier: call it in uniform control flow.
fn input_load(row: u32, t: u32) -> f32 {
  var squares = 0.0;
  for (var quad = t; quad < QUADS; quad += WG) {
    var value = vec4<f32>();
    if (quad < COLS / 4u) {
      value = x[row * (COLS / 4u) + quad];
      squares += dot(value, value);
      value *= norm_weight[quad];
    }
    input_row[quad] = value;
  }
  workgroupBarrier();
  return squares;
}

fn input_quad(quad: u32) -> vec4<f32> {
  return input_row[quad];
}

// What the products are multiplied with, from the sum of all that input_load returned: 1 / rms.
fn input_scale(squares: f32) -> f32 {
  return inverseSqrt(squares / f32(COLS) + EPS);
}
