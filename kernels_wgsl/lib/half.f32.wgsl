// half f32: 16 numbers of a row of y, as they are
// binding 4 y read_write array<vec4<f32>> [rows][COLS / 4]

@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

fn put_half(row: u32, half: u32, v: mat4x4<f32>) {
  for (var i = 0u; i < 4u && 4u * half + i < COLS / 4u; i++) {
    y[row * (COLS / 4u) + 4u * half + i] = v[i];
  }
}
