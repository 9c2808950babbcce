// half f32: 16 numbers of a row of y, as they are
// binding 4 y read_write array<vec4<f32>> [rows][COLS / 4]

@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

fn put_quad(row: u32, quad: u32, v: vec4<f32>) {
  if (quad < COLS / 4u) {
    y[row * (COLS / 4u) + quad] = v;
  }
}

fn put_half(row: u32, half: u32, v: mat4x4<f32>) {
  put_quad(row, 4u * half, v[0]);
  put_quad(row, 4u * half + 1u, v[1]);
  put_quad(row, 4u * half + 2u, v[2]);
  put_quad(row, 4u * half + 3u, v[3]);
}
