// row packed: a matvec reads 8-bit integers that the kernel before it has packed
// binding 2 x_factors read array<vec2<f32>> [rows][COLS / 16]
// binding 3 x_codes   read array<vec4<u32>> [rows][COLS / 16]
// uses    int8 no_input
// why     Approximate. Nothing to prepare: a workgroup starts with its weights.

@group(0) @binding(2) var<storage, read> x_factors: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> x_codes: array<vec4<u32>>;

var<private> packed_row: u32;

fn row_load(row: u32, t: u32) -> f32 {
  packed_row = row * (COLS / 16u);
  return 0.0;
}

fn row_scale(squares: f32) -> f32 {
  return 1.0;
}

// Sum of weights times inputs over the 32 columns of the row's unit; i is the weight's.
fn unit_dot(i: u32, unit: u32) -> f32 {
  let at = packed_row + 2u * unit;
  return int8_dot(i, 0u, x_codes[at], x_factors[at]) + int8_dot(i, 1u, x_codes[at + 1u], x_factors[at + 1u]);
}
