// input plain: the row as it is, read from storage
// why     Wide rows (down_proj) do not fit in workgroup memory; the cache serves them.

var<private> input_first: u32;

fn input_load(row: u32, t: u32) -> f32 {
  input_first = row * (COLS / 4u);
  return 0.0;
}

fn input_quad(quad: u32) -> vec4<f32> {
  // Units are 32 columns wide; the guard is compiled away where COLS is a multiple of 32.
  if (COLS % 32u != 0u && quad >= COLS / 4u) {
    return vec4<f32>();
  }
  return x[input_first + quad];
}

fn input_scale(squares: f32) -> f32 {
  return 1.0;
}
