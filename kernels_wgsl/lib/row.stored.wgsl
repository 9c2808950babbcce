// row stored: a matvec reads its input from storage as often as it needs it
// uses    input
// why     Wide rows (down_proj) do not fit in workgroup memory as floats; the cache serves them.

var<private> stored_row: u32;

fn row_load(row: u32, t: u32) -> f32 {
  stored_row = row;
  return 0.0;
}

fn input_quad(quad: u32) -> vec4<f32> {
  // Units are 32 columns wide; the guard is compiled away where COLS is a multiple of 32.
  if (COLS % 32u != 0u && quad >= COLS / 4u) {
    return vec4<f32>();
  }
  return input_at(stored_row, quad);
}

fn row_scale(squares: f32) -> f32 {
  return input_scale(squares);
}

fn unit_dot(i: u32, unit: u32) -> f32 {
  return weight_dot(i, unit * 8u);
}
